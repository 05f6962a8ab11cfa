"""Job `planted`: is the one trajectory behind several modalities in the features of a model that was pretrained on them?

Recordings are simulated from one latent trajectory (a Lorenz system) seen by spikes, calcium, EEG and fMRI at the signal to
noise of `simulate.VIEWS`. A model is pretrained on their training blocks without the latent; a linear probe then reads the
latent from its frozen features, fitted on the training block, tuned on validation, scored on the test block. Beside it: the
same model untrained, and ridge with lags on the signals themselves, on their principal components, and on a contrastive
embedding that is taught by the same behaviour as the model.

Shapes: T bins, N channels of all signals on the grid, K = 3 columns of the latent.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch

from neurofm_ml.config import patch, to_dict
from neurofm_ml.data.batches import build_vocabulary
from neurofm_ml.data.recordings import load_card, save_recording
from neurofm_ml.data.scaler import fit as fit_scaler
from neurofm_ml.data.simulate import FINE_HZ, VIEWS, Truth, simulate_truth
from neurofm_ml.data.windows import load_block, shard_recordings
from neurofm_ml.evaluation.baselines.ridge import fit_ridge
from neurofm_ml.evaluation.features.features import Features, extract, load_features
from neurofm_ml.evaluation.features.probe import fit_ridges, standardised
from neurofm_ml.evaluation.tasks.tasks import Blocks, DecodingData
from neurofm_ml.knowledge.cards import DatasetCard, TaskSpec, datasets
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import SPLITS, FeaturesConfig, PlantedConfig, ScalerConfig, ShardsConfig, pretrain
from neurofm_ml.training.embedding import fit_embedding
from neurofm_ml.training.pretrain import pretrain as run_pretraining
from neurofm_ml.training.saved import save_model
from neurofm_ml.types import Array, Check, Recording, Report, Signal

DATASET = "simulation"
INPUTS = ("spikes", "calcium", "eeg", "fmri")
#: R2 of the latent that the features have to reach.
BAR = 0.9
BASELINES = ("ridge", "pca", "embedding")
#: Principal components that are tried.
COMPONENTS = (3, 5, 10, 20, 40)


def planted(cfg: PlantedConfig, out: Path) -> Report:
    """Write ``planted.parquet``: R2 of the latent on the test block, for each recording and method."""
    work = out / "work"
    shards, scalers, truths = simulated(cfg, work)
    fresh, trained = frozen_features(cfg, shards, scalers, work)
    rows = []
    for recording, truth in truths.items():
        data = raw_blocks(shards, recording, truth)
        untrained = {"untrained": probed(data, _layers(fresh, recording))["linear_probe"]}
        scores = {**probed(data, _layers(trained, recording)), **untrained, **baselines(cfg, data, behaviour(shards, recording))}
        rows += [{"recording": recording, "method": method, "value": value} for method, value in scores.items()]
    table = pd.DataFrame(rows)
    table.to_parquet(out / "planted.parquet", index=False)
    shutil.rmtree(work)
    return _report(table)


def _report(table: pd.DataFrame) -> Report:
    means = table.groupby("method").value.mean()
    ours, rivals = float(means["linear_probe"]), means[list(BASELINES)]
    best = str(rivals.idxmax())
    metrics = {f"r2.{method}": round(float(value), 4) for method, value in means.items()}
    snr = {f"snr.{name}": VIEWS[name].snr for name in INPUTS}
    return Report(
        {**metrics, **snr, "best_baseline": best},
        (
            Check("latent_is_recovered", ours >= BAR, "warn", {"r2": round(ours, 4)}, f"R2 >= {BAR}"),
            Check(
                "beats_best_baseline",
                bool(ours > rivals[best]),
                "warn",
                {"r2": round(ours, 4), best: round(float(rivals[best]), 4)},
                "> it",
            ),
        ),
    )


# ---------------------------------------------------------------- data and model
def simulation_card(n_recordings: int) -> DatasetCard:
    """The first recordings of the simulation; behaviour is decoded from all modalities at once."""
    card = datasets()[DATASET]
    task = TaskSpec(name="behaviour", target="behaviour", inputs=INPUTS)
    return dataclasses.replace(card, recordings=card.recordings[:n_recordings], tasks=(task,), expected={})


def simulated(cfg: PlantedConfig, work: Path) -> tuple[Path, list[Path], dict[str, Truth]]:
    """Shards, scalers, and what was planted in each recording."""
    card, source, shards = simulation_card(cfg.recordings), work / "recordings", work / "shards"
    found = simulate_truth(card, cfg.duration_s)
    scalers = [work / modality for modality in (*INPUTS, "pose")]
    for folder in (source, shards, *scalers):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for recording, _ in found:
        save_recording(recording, source / "recordings")
    (source / "card.json").write_text(json.dumps(to_dict(card)))
    shard_recordings(ShardsConfig(dataset=DATASET), source, shards)
    for folder in scalers:
        fit_scaler(ScalerConfig(modality=folder.name), [shards], folder)
    return shards, scalers, {recording.id: truth for recording, truth in found}


def frozen_features(cfg: PlantedConfig, shards: Path, scalers: list[Path], work: Path) -> list[Features]:
    """Features of a model before and after pretraining on the training blocks; a killed run goes on from its checkpoints."""
    for name in ("untrained", "pretrained", "features_untrained", "features_pretrained"):
        (work / name).mkdir(exist_ok=True)
    told = patch(pretrain("tiny", cfg.seed), {"train": to_dict(cfg.train), "model": to_dict(cfg.model), "datasets": (DATASET,)})
    torch.manual_seed(cfg.seed)
    save_model(work / "untrained", NeuroFMx(cfg.model, build_vocabulary([shards])))
    run_pretraining("neurofmx", told, [shards], scalers, work / "pretrained")
    for name in ("untrained", "pretrained"):
        extract(FeaturesConfig(), work / name, [shards], scalers, work / f"features_{name}")
    return [load_features(work / f"features_{name}")[DATASET] for name in ("untrained", "pretrained")]


def _layers(features: Features, recording: str) -> dict[str, Blocks]:
    return {layer: {split: features.bins(recording, split, layer) for split in SPLITS} for layer in features.layers}


# ---------------------------------------------------------------- arrays
def raw_blocks(shards: Path, recording: str, truth: Truth) -> DecodingData:
    """All signals on the grid, roots of counts, and the latent in each bin."""
    hz = load_card(shards).grid_hz
    blocks = {split: load_block(shards, recording, split) for split in SPLITS}
    times = {split: grid_times(block, hz) for split, block in blocks.items()}
    x = {split: np.concatenate([_on_grid(cast(Signal, b.signals[n]), times[split], hz) for n in INPUTS], 1) for split, b in blocks.items()}
    y = {split: binned(truth.latent, FINE_HZ, 0.0, times[split], hz) for split in SPLITS}
    return DecodingData(standardised(x), y, times, np.zeros(x["train"].shape[1], bool))


def behaviour(shards: Path, recording: str) -> Array:
    """(T, 2) of the training block, in the bins of the grid."""
    return cast(Signal, load_block(shards, recording, "train").signals["behaviour"]).values


def grid_times(block: Recording, hz: float) -> Array:
    """(T,) seconds, the middle of each bin of a block."""
    start, end = block.bounds
    return np.asarray(start + (np.arange(round((end - start) * hz)) + 0.5) / hz)


def _on_grid(signal: Signal, times: Array, hz: float) -> Array:
    """(T, C): means of a faster signal in each bin, a slower one interpolated, roots of counts."""
    values = np.sqrt(signal.values) if signal.modality == "spikes" else signal.values
    if signal.sfreq >= hz:
        return binned(values, signal.sfreq, signal.t0, times, hz)
    clock = signal.times + 0.5 / signal.sfreq
    return np.stack([np.interp(times, clock, column) for column in values.T], axis=1)


def binned(values: Array, sfreq: float, t0: float, times: Array, hz: float) -> Array:
    """(T, C) means over the bins of 1 / hz seconds around `times` of values (n, C), the first at `t0`."""
    size = round(sfreq / hz)
    first = np.round((times - 0.5 / hz - t0) * sfreq).astype(int)
    return np.asarray(values[first[:, None] + np.arange(size)].mean(1), np.float64)


# ---------------------------------------------------------------- methods
def probed(data: DecodingData, layers: Mapping[str, Blocks]) -> dict[str, float]:
    """R2 of the linear probe of each layer, and of the one that validation chooses."""
    scores, best = {}, (-np.inf, "")
    for layer, blocks in layers.items():
        x = standardised(blocks)
        fitted = fit_ridges(x, {"latent": data.y})["latent"]
        scores[f"layer:{layer}"] = data.r2("test", fitted.readout(x["test"]))
        best = max(best, (fitted.validation, f"layer:{layer}"))
    return {**scores, "linear_probe": scores[best[1]]}


def baselines(cfg: PlantedConfig, data: DecodingData, taught: Array) -> dict[str, float]:
    """Ridge with lags on the signals, on principal components, and on a contrastive embedding taught by behaviour (T, 2)."""
    embedding = fit_embedding(data.x["train"], taught, seed=cfg.seed)
    embedded = {split: embedding.embed(x) for split, x in data.x.items()}
    return {
        "ridge": _ridge(data, data.x)[1],
        "pca": max(_ridge(data, blocks) for blocks in _components(data.x))[1],
        "embedding": _ridge(data, embedded)[1],
    }


def _ridge(data: DecodingData, x: Blocks) -> tuple[float, float]:
    """R2 on validation and on test rows."""
    fitted = fit_ridge(data, x)
    return data.r2("validation", fitted.predict(x["validation"])), data.r2("test", fitted.predict(x["test"]))


def _components(x: Blocks) -> list[Blocks]:
    _, _, directions = np.linalg.svd(x["train"] - x["train"].mean(0), full_matrices=False)
    return [{split: values @ directions[:n].T for split, values in x.items()} for n in COMPONENTS]
