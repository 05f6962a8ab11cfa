"""The `adapt_labels` job: fit a pretrained encoder to the label tasks of each dataset it can read."""

import copy
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from neurofm_ml import gang
from neurofm_ml.data.batches import build_vocabulary
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler, load_scaler
from neurofm_ml.data.shards import read_index
from neurofm_ml.files import write_json
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.metrics import SCORES
from neurofm_ml.presets import AdaptLabelsConfig
from neurofm_ml.training.curves import read_curves
from neurofm_ml.training.label_decoders import (
    LabelDecoder,
    Scale,
    answers,
    fit_readout,
    label_loss,
    mean_loss,
    modalities_of,
    save_label_decoder,
    windows,
)
from neurofm_ml.training.loop import fit
from neurofm_ml.training.pretrain import choose
from neurofm_ml.training.problems import provenance
from neurofm_ml.training.saved import extend, load_model
from neurofm_ml.types import Array, Check, Report

COLUMNS = ["dataset", "task", "split", "recording", "subject", "start", "truth", "said"]


def adapt_labels(cfg: AdaptLabelsConfig, pretrained: Path, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Write ``decoders/<dataset>``, and ``labels.parquet`` with what they say of the validation and test windows.

    Datasets with labels that the encoder cannot read are left out by name. A dataset that is finished is not fitted again.
    The processes of a gang share the datasets among them.
    """
    base, scale = load_model(pretrained), load_scaler(scaler)
    labelled = [path for path in shards if load_card(path).label_tasks]
    if not labelled:
        raise ValueError("no dataset here has a task with a label; add one to a card, or choose others.")
    used, _ = choose(cfg.datasets, labelled, modalities_of(base))
    for name in tqdm(list(used)[gang.rank() :: gang.world()], desc="adapt to labels", disable=None):
        if not (out / "decoders" / name / "model.json").exists():
            _adapt_one(cfg, base, used[name], scale, out)
    gang.meet("adapted")
    said = {name: pd.read_parquet(out / "decoders" / name / "labels.parquet") for name in used}
    if gang.rank() == 0:
        pd.concat(said.values()).to_parquet(out / "labels.parquet")
    scores = {
        f"validation/{task.name}@{name}": value
        for name, path in used.items()
        for task, value in score(said[name], load_card(path), "validation").items()
    }
    return Report({"decoders": len(used), **scores}, (_losses(out, sorted(said)),), {"answers": "labels.parquet"})


def _adapt_one(cfg: AdaptLabelsConfig, base: Any, shards: Path, scaler: Scaler, out: Path) -> None:
    """Fit the readout, then all; keep what has the smaller loss on the validation windows."""
    card, began = load_card(shards), time.perf_counter()
    model = fresh(base, shards, scaler, cfg.seed)
    least = fit_readout(model, shards, scaler)
    best = copy.deepcopy(model)
    _fit(cfg, model, shards, scaler, out / "fits" / card.name)
    if mean_loss(model, shards, scaler, "validation") < least:
        best = model
    folder, fitted = out / "decoders" / card.name, time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    said = pd.concat([table(best, shards, scaler, split) for split in ("validation", "test")])
    cost = {
        "seed": cfg.seed,
        "parameters": sum(p.numel() for p in best.parameters()),
        "train_seconds": fitted - began,
        "samples_per_second": len(said) / (time.perf_counter() - fitted),
    }
    said.to_parquet(folder / "labels.parquet")
    write_json(folder / "cost.json", cost)
    shutil.rmtree(out / "fits" / card.name / "checkpoints")
    save_label_decoder(folder, best)  # last: it says that the dataset is finished


def fresh(base: Any, shards: Path, scaler: Scaler, seed: int) -> LabelDecoder:
    """A decoder that knows the channels and labels of a dataset; its readouts are new."""
    vocabulary = build_vocabulary([shards])
    model = extend(base, vocabulary, seed)
    numbers = {task for task, classes in vocabulary.labels.items() if not classes}
    found: dict[str, list[Array]] = {task: [] for task in numbers}
    if numbers:
        for batch in windows(model, shards, scaler, "train").epoch():
            for task in numbers:
                found[task].append(batch.labels[task].numpy())
    scales: dict[str, Scale] = {task: _scale(np.concatenate(values)) for task, values in found.items()}
    torch.manual_seed(seed)
    return LabelDecoder(model, vocabulary.labels, scales)


def _scale(values: Array) -> Scale:
    known = values[np.isfinite(values)]
    return float(known.mean()), float(known.std()) or 1.0


def _fit(cfg: AdaptLabelsConfig, model: LabelDecoder, shards: Path, scaler: Scaler, out: Path) -> None:
    batches = windows(model.encoder, shards, scaler, "train", cfg.train.batch_size, cfg.seed)
    described = f"{load_card(shards).name}, {out.name}"
    fit(model, batches, label_loss, cfg.train, out, seed=cfg.seed, provenance=provenance([shards]), description=described)


def table(model: LabelDecoder, shards: Path, scaler: Scaler, split: str) -> pd.DataFrame:
    """One row per window of a split and task whose label is known: dataset, task, split, recording, subject, start, truth
    (place among the classes, or the number), and said (K,) probabilities or (1,) the number."""
    listed, index = pd.read_parquet(shards / "windows.parquet").set_index("key"), read_index(shards)
    rows: list[Mapping[str, Any]] = []
    for batch, said in answers(model, shards, scaler, split):
        for task, guesses in said.items():
            label = batch.labels[task].numpy()
            known = label >= 0 if model.classes[task] else np.isfinite(label)
            for i in np.flatnonzero(known):
                about = listed.loc[index.key(int(batch.rows[i]))]
                rows.append(
                    {
                        "dataset": load_card(shards).name,
                        "task": task.split("/", 1)[1],
                        "split": split,
                        "recording": about.recording,
                        "subject": about.subject,
                        "start": float(batch.starts[i]),
                        "truth": float(label[i]),
                        "said": guesses[i].tolist(),
                    }
                )
    return pd.DataFrame(rows, columns=COLUMNS)


def score(said: pd.DataFrame, card: DatasetCard, split: str) -> dict[Any, float]:
    """Task -> its metric over a split; left out where the split has no label, or one class alone.

    What is asked of a subject is answered once per recording: its windows are averaged first.
    """
    found = {}
    for task in card.label_tasks:
        rows = said[(said.task == task.name) & (said.split == split)]
        groups = rows.recording if task.of_subject else rows.index
        answered = [(part.truth.iloc[0], np.mean(list(part.said), axis=0)) for _, part in rows.groupby(groups)]
        truth = np.array([t for t, _ in answered])
        if len(np.unique(truth)) > 1:
            found[task] = SCORES[task.metric].value(truth[:, None], np.array([a for _, a in answered]))
    return found


def _losses(out: Path, names: Sequence[str]) -> Check:
    last = {name: float(read_curves(out / "fits" / name / "metrics.csv")["loss"][1][-1]) for name in names}
    return Check("loss_is_finite", all(np.isfinite(v) for v in last.values()), numbers=last, threshold="finite")
