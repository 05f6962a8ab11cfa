"""Features: what each layer of a frozen encoder makes of every window and of every bin to decode, computed once.

Probes, few-shot curves, transfer, zero-shot, subject variance and RSA all read these files, so a model is run once over the
data, whatever is asked of it later. Of each dataset:

    <dataset>/windows.parquet                       a row per window: COLUMNS, and for each label task of the card the place among
                                                    its classes or the number, NaN where unknown
    <dataset>/pooled.npy                            (n windows, N, D) float32: mean over the latents of a window
    <dataset>/bins/<recording>/<inputs>/<split>.npy (T, N, D) float32 on the grid of `Case.data`, from the inputs of series tasks
    <dataset>/targets/<recording>/<task>/<split>.npy (T, K) what those tasks ask for, in its own unit, NaN where unknown
    <dataset>/layers.json, card.json                names of the layers, "tokens" first and "latents" last; the dataset's card
    about.json                                      family of the model, and the tasks whose labels its pretraining learned from

Shapes: n windows, T bins of a block, N layers, D width.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from neurofm_ml import markdown
from neurofm_ml.artifacts import save_work
from neurofm_ml.data.batches import Collate, Vocabulary, build_vocabulary, neural_signals, readable
from neurofm_ml.data.labels import classes_of
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler, load_scaler
from neurofm_ml.data.shards import Index, read_index
from neurofm_ml.data.windows import load_block, read_channels, read_windows
from neurofm_ml.evaluation.features.hidden import LAST, Hidden, hidden_states, layer_names
from neurofm_ml.files import write_json
from neurofm_ml.knowledge.cards import DatasetCard, TaskSpec
from neurofm_ml.objectives import OBJECTIVES
from neurofm_ml.presets import RECIPES, SPLITS, FeaturesConfig
from neurofm_ml.training.decoders import grid_step, stitched
from neurofm_ml.training.label_decoders import modalities_of
from neurofm_ml.training.problems import Problem, find_problems, target_names
from neurofm_ml.training.saved import described, load_model
from neurofm_ml.types import Array, Batch, Check, Report, Signal

COLUMNS = ("key", "row", "dataset", "recording", "subject", "session", "family_id", "site", "species", "split", "start", "end")


# ---------------------------------------------------------------- read
@dataclass(frozen=True, eq=False)
class Features:
    """The features of one dataset, read from its folder as they are asked for."""

    folder: Path

    @cached_property
    def windows(self) -> pd.DataFrame:
        """One row per window: COLUMNS and a column per label task."""
        return pd.read_parquet(self.folder / "windows.parquet")

    @cached_property
    def layers(self) -> tuple[str, ...]:
        return tuple(json.loads((self.folder / "layers.json").read_text()))

    @cached_property
    def card(self) -> DatasetCard:
        return load_card(self.folder)

    @cached_property
    def family(self) -> str:
        return str(json.loads((self.folder.parent / "about.json").read_text())["family"])

    @cached_property
    def labels_seen(self) -> frozenset[str]:
        """``dataset/task`` of the labels that the model's pretraining learned from: on these nothing is few-shot or zero-shot."""
        return frozenset(json.loads((self.folder.parent / "about.json").read_text())["labels_seen"])

    def pooled(self, layer: str = LAST) -> Array:
        """(n, D) of one layer, in the order of `windows`."""
        return np.asarray(np.load(self.folder / "pooled.npy", mmap_mode="r")[:, self._place(layer)])

    def bins(self, recording: str, split: str, layer: str = LAST, inputs: Sequence[str] = ()) -> Array:
        """(T, D) of one layer over a block of a recording, read from `inputs` (default: those of its only series tasks)."""
        path = self._inputs(recording, inputs) / f"{split}.npy"
        return np.asarray(np.load(path, mmap_mode="r")[:, self._place(layer)])

    def has_bins(self, recording: str, inputs: Sequence[str]) -> bool:
        return (self.folder / "bins" / recording / "+".join(inputs)).is_dir()

    def blocks(self) -> list[tuple[str, tuple[str, ...]]]:
        """(recording, inputs) of all bins there are."""
        return [(path.parent.name, tuple(path.name.split("+"))) for path in sorted(self.folder.glob("bins/*/*"))]

    def target(self, recording: str, split: str, task: TaskSpec) -> Array:
        """(T, K) what a series task asks for, bin by bin."""
        return np.asarray(np.load(self.folder / "targets" / recording / task.name / f"{split}.npy"))

    def _inputs(self, recording: str, inputs: Sequence[str]) -> Path:
        folder = self.folder / "bins" / recording
        have = sorted(path.name for path in folder.glob("*"))
        wanted = "+".join(inputs) if inputs or len(have) != 1 else have[0]
        if wanted not in have:
            raise ValueError(
                f"{self.folder.name} has no bins of {recording!r} from inputs {wanted or 'of all kinds'!r}; there are {', '.join(have) or 'none'}."
            )
        return folder / wanted

    def _place(self, layer: str) -> int:
        if layer not in self.layers:
            raise ValueError(f"{self.folder.name} has no layer {layer!r}; there are {', '.join(self.layers)}.")
        return self.layers.index(layer)


def load_features(folder: Path) -> dict[str, Features]:
    """Dataset -> features, of an artifact that `extract` wrote."""
    return {path.parent.name: Features(path.parent) for path in sorted(folder.glob("[!.]*/layers.json"))}


# ---------------------------------------------------------------- write
def extract(cfg: FeaturesConfig, pretrained: Path, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Write the features of every dataset that the model of any family can read; a dataset that is finished is not read again.

    Datasets that it cannot read are left out by name, with the reason.
    """
    model, scale = load_model(pretrained), load_scaler(scaler)
    here = {load_card(path).name: path for path in shards}
    wanted = {name: here[name] for name in cfg.datasets or here if name in here}
    left_out = {name: "not here" for name in cfg.datasets or () if name not in here}
    write_json(out / "about.json", {"family": described(model)["family"], "labels_seen": labels_seen(pretrained, model)})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    start = time.perf_counter()
    for name, path in tqdm(wanted.items(), desc="features", unit="dataset", disable=None):
        source = Source(model.to(device), path, scale, cfg.batch_size, device)
        if reason := source.unreadable():
            left_out[name] = reason
        elif not (out / name / "layers.json").exists():
            source.write(out / name)
            save_work(out)
    found = load_features(out)
    unread = sum(len(read_windows(wanted[name])) - len(features.windows) for name, features in found.items() if name in wanted)
    return _report(found, left_out, {"windows_left_out": unread, "seconds": round(time.perf_counter() - start, 3)}, out)


@dataclass(frozen=True, eq=False)
class Source:
    """One dataset as a model of any family reads it: its own channels, and no target of any task."""

    model: Any
    shards: Path
    scaler: Scaler
    batch_size: int
    device: str

    @cached_property
    def card(self) -> DatasetCard:
        return load_card(self.shards)

    @cached_property
    def _index(self) -> Index:
        return read_index(self.shards)

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """Those that the family reads and this model has seen."""
        known: Vocabulary = self.model.vocabulary
        return tuple(m for m in modalities_of(self.model) if m in known.modalities)

    @cached_property
    def where(self) -> dict[str, Any]:
        """Windows that hold a signal to read, of sessions that have a scale: whole sessions held out from training have none."""
        signals, channels = neural_signals(self.card, self.modalities), read_channels(self.shards)
        known = self.scaler.table
        scaled = [s for s, about in channels.items() if all((self.card.name, s, name) in known for name in signals if name in about)]
        return {**readable(self.shards, self.modalities), "session": scaled}

    def unreadable(self) -> str:
        """Why the model cannot read any of it; empty where it can."""
        if not neural_signals(self.card, self.modalities):
            return "no modality that the model reads"
        if not self.where["session"]:
            return "no session with a scale from training windows"
        own, known = build_vocabulary([self.shards]).channels, self.model.vocabulary.channels
        lacking = {name for m in self.modalities for name in own.get(m, ())} - {name for names in known.values() for name in names}
        if lacking:
            return f"{len(lacking)} channels that the model has no rows for"
        if self.card.window_s < getattr(self.model.cfg, "patch_s", 0.0):
            return "windows shorter than a patch"
        return ""

    def write(self, folder: Path) -> None:
        partial = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        table, values = self.pooled()
        table.to_parquet(partial / "windows.parquet", index=False)
        _save(partial / "pooled.npy", values)
        for problem in find_problems(self.shards):
            if inputs := tuple(name for name in problem.inputs if self.card.signals[name].modality in self.modalities):
                self._write_bins(problem, inputs, partial)
        write_json(partial / "layers.json", layer_names(values.shape[1]))
        shutil.copyfile(self.shards / "card.json", partial / "card.json")
        partial.rename(folder)

    def pooled(self) -> tuple[pd.DataFrame, Array]:
        """The table of windows in which there was anything to read, and their features (n, N, D)."""
        tables, values = [], []
        signals = neural_signals(self.card, self.modalities)
        for split in self._splits():
            for batch, hidden in self._read(signals, split, self.where):
                there = hidden.mask.any(1).numpy()
                tables.append(self._table(batch)[there])
                values.append(hidden.pooled.numpy()[there])
        listed = pd.read_parquet(self.shards / "windows.parquet").rename(columns={"family": "family_id"})
        table = pd.concat(tables, ignore_index=True).merge(listed, on="key", how="left", validate="1:1")
        table = table.assign(dataset=self.card.name, species=self.card.species)
        return table[[*COLUMNS, *(task.name for task in self.card.label_tasks)]], np.concatenate(values)

    def _splits(self) -> list[str]:
        """Those in which there is anything to read."""
        listed = pd.read_parquet(self.shards / "windows.parquet", columns=["key", "session", "split"])
        usable = listed[listed.session.isin(self.where["session"]) & listed.key.isin(self.where.get("key", listed.key))]
        return [split for split in SPLITS if (usable.split == split).any()]

    def _table(self, batch: Batch) -> pd.DataFrame:
        labels = {name.split("/", 1)[1]: _numbers(values) for name, values in batch.labels.items()}
        return pd.DataFrame({"key": [self._index.key(row) for row in batch.rows.tolist()], "row": batch.rows.numpy(), **labels})

    def _write_bins(self, problem: Problem, inputs: Sequence[str], folder: Path) -> None:
        for split in SPLITS:
            _save(folder / "bins" / problem.recording / "+".join(problem.inputs) / f"{split}.npy", self.bins(problem, inputs, split))
            block = load_block(self.shards, problem.recording, split)
            for task in problem.tasks:
                target = cast(Signal, block.signals[task.target])
                columns = [target.ch_names.index(name) for name in target_names(problem, task)]
                _save(folder / "targets" / problem.recording / task.name / f"{split}.npy", target.values[:, columns])

    def bins(self, problem: Problem, inputs: Sequence[str], split: str) -> Array:
        """(T, N, D) float32 over a block of a recording, on its grid, read from `inputs` alone."""
        windows = self._read(inputs, split, {"recording": [problem.recording]})
        flat, _ = stitched(((batch, hidden.on_grid(batch).flatten(2)) for batch, hidden in windows), grid_step(problem))
        return np.asarray(flat.reshape(len(flat), -1, self.model.cfg.d_model), np.float32)

    def _read(self, signals: Sequence[str], split: str, where: Mapping[str, Any]) -> Iterator[tuple[Batch, Hidden]]:
        """Batches of a split and what the layers make of them, in memory."""
        vocabulary = dataclasses.replace(self.model.vocabulary, tasks={}, labels=classes_of([self.card]), domains={})
        collate = Collate([self.shards], vocabulary, self.scaler, signals)
        loader = Loader([self.shards], split=split, batch_size=self.batch_size, seed=0, where=where, collate=collate)
        for batch in loader.epoch():
            hidden = hidden_states(self.model, batch.to(self.device))
            yield batch, Hidden(hidden.values.cpu(), hidden.times.cpu(), hidden.mask.cpu())


def labels_seen(pretrained: Path, model: Any) -> list[str]:
    """``dataset/task`` of the labels that pretraining learned from: series where behaviour was an objective, classes in families that
    are supervised."""
    series = list(model.vocabulary.tasks) if "behaviour" in objectives_of(pretrained) else []
    return sorted([*series, *(model.vocabulary.labels if RECIPES[described(model)["family"]].supervised else ())])


def objectives_of(pretrained: Path) -> frozenset[str]:
    """What pretraining learned by, at any stage. A model without a ``job.json`` does not say, and is taken to have learned by all."""
    job = pretrained / "job.json"
    if not job.exists():
        return frozenset(OBJECTIVES)
    config = json.loads(job.read_text())["config"]
    parts = config.get("curriculum") or (config,)
    return frozenset(name for part in parts for name, weight in part.get("objectives", {}).items() if weight)


def _save(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values, allow_pickle=False)


def _numbers(labels: Tensor) -> Array:
    """(B,) float64: places among classes, or numbers; NaN where unknown."""
    values = labels.numpy().astype(np.float64)
    return values if labels.is_floating_point() else np.where(values < 0, np.nan, values)


# ---------------------------------------------------------------- report
def _report(found: Mapping[str, Features], left_out: Mapping[str, str], more: Mapping[str, float], out: Path) -> Report:
    if not found:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise ValueError(f"the model can read none of the datasets ({reasons}); choose others, or a model that was trained on them.")
    broken = [name for name, features in found.items() if not _finite(features)]
    metrics: dict[str, float | int | str] = {
        "datasets": len(found),
        "windows": sum(len(features.windows) for features in found.values()),
        "layers": max(len(features.layers) for features in found.values()),
        "megabytes": round(sum(path.stat().st_size for path in out.rglob("*.npy")) / 1e6, 3),
        **more,
        "left_out": markdown.by_reason(left_out),
    }
    return Report(metrics, (Check("features_are_finite", not broken, "error", {"datasets": len(broken)}, "0 datasets", ", ".join(broken)),))


def _finite(features: Features) -> bool:
    return all(
        bool(np.isfinite(np.load(path, mmap_mode="r")).all())
        for path in (features.folder / "pooled.npy", *features.folder.glob("bins/*/*/*.npy"))
    )
