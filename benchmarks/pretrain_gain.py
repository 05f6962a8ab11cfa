"""What pretraining is worth where labels are few: fine-tuned from pretrained weights against trained from scratch.

Needs NEUROFM_DATA. Each set is cut in two halves (the folds); a model pretrained on one half of every set is fitted to
recordings of the other: another recording of one implanted array (monkey), other animals (rats), another subject
(simulation). Only the last 5, 10 or 25 % of a recording's training block keep their labels; targets are scaled and tuning
maps drawn from these alone, for both.

Both sides have the same model, augmentation and loop, and the same tuning: two runs (of 100 and 300 updates; pretrained
weights at 2e-3, scratch at 3e-3, as the presets have them), and the better on the validation block counts. Both may also
stay as they began, if that is better there. The pretrained begin by fitting the rows of the new units and the readout.

A set counts where the pretrained decode at 5 and 10 % (R2 above zero on the test blocks) and the mean difference has a 95 %
interval above zero: a t-interval over recordings x seeds, or, with fewer than three of these, their paired block bootstrap. `ratio` = the share of the
sets that count / 0.5. Every fit is kept under NEUROFM_HOME: a run that was stopped goes on.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from neurofm_ml import presets
from neurofm_ml.config import to_dict
from neurofm_ml.data.batches import Collate, Vocabulary, build_vocabulary
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.mixture import Mixture
from neurofm_ml.data.scaler import Scaler, load_scaler
from neurofm_ml.evaluation.statistics.resampling import score_difference
from neurofm_ml.files import home
from neurofm_ml.jobs import JobSpec, run
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.knowledge.files import raw_files
from neurofm_ml.metrics import r2
from neurofm_ml.models import NeuroFMx
from neurofm_ml.training.adapt import validation_r2
from neurofm_ml.training.decoders import adapted_to, fit_decoder, from_scratch, predict_block
from neurofm_ml.training.few_labels import scaled_by_labels, with_share
from neurofm_ml.training.loop import fit
from neurofm_ml.training.problems import Problem, find_problems
from neurofm_ml.training.saved import load_model, save_model
from neurofm_ml.training.steps import weighted_loss
from neurofm_ml.training.trainable import fitting
from neurofm_ml.training.tuning import embed_by_tuning
from neurofm_ml.types import Array

#: Recordings held out together, of each set.
FOLDS = {
    "first": {
        "monkey_m1_chewie": ("te",),
        "rat_ca1_openfield": ("R2217",),
        "rat_ca1_track": ("w-maze-1", "w-maze-2"),
        "simulation": ("sub2_ses1", "sub2_ses2"),
    },
    "second": {
        "monkey_m1_chewie": ("tr",),
        "rat_ca1_openfield": ("R2192",),
        "rat_ca1_track": ("linear-track",),
        "simulation": ("sub1_ses1", "sub1_ses2"),
    },
}
SETS = tuple(FOLDS["first"])
SHARES = (0.05, 0.1, 0.25)
FEW = 0.1
UPDATES = (100, 300)
AUGMENT = presets.AugmentConfig()
PRETRAIN = presets.TrainConfig(steps=1500, ema=0.995, checkpoint_every=500)
SCRATCH_LR, LR, ROWS_LR = 3e-3, 2e-3, 1e-2


@dataclass(frozen=True)
class Cell:
    """One held-out recording at one share of its labels, fitted both ways with one seed."""

    fold: str
    dataset: str
    recording: str
    share: float
    seed: int

    def __str__(self) -> str:
        return f"{self.dataset}-{self.recording}-{self.share:g}-{self.seed}"


@dataclass(frozen=True)
class Data:
    """Shards by set, scaler, problems."""

    shards: dict[str, Path]
    scaler: Scaler
    problems: tuple[Problem, ...]


# ---------------------------------------------------------------- data
def prepare() -> tuple[dict[str, Path], list[Path]]:
    """Shards of the sets and their scalers, made once and found again."""
    folder, shards, modalities = cache(), {}, set()
    for name in SETS:
        card = datasets()[name]
        recordings = _job("ingest", presets.IngestConfig(dataset=name), folder / "recordings" / name, raw=[str(p) for p in raw_files(card)])
        shards[name] = _job("write_shards", presets.ShardsConfig(dataset=name), folder / "shards" / name, recordings=[recordings])
        modalities |= {card.signals[n].modality for task in card.tasks for n in (*task.inputs, task.target)}
    paths = list(shards.values())
    scalers = [_job("fit_scaler", presets.ScalerConfig(modality=m), folder / "scaler" / m, shards=paths) for m in sorted(modalities)]
    return {name: Path(path) for name, path in shards.items()}, [Path(path) for path in scalers]


def _job(name: str, cfg: object, out: Path, **inputs: Sequence[str]) -> str:
    return run(JobSpec(job=name, config=to_dict(cfg), inputs={k: tuple(v) for k, v in inputs.items()}, out=str(out))).path


def cache() -> Path:
    return home() / "benchmarks" / "pretrain_gain"


def load(shards: dict[str, Path], scalers: Sequence[Path]) -> Data:
    return Data(shards, load_scaler(scalers), tuple(p for path in shards.values() for p in find_problems(path)))


# ---------------------------------------------------------------- pretraining
def pretrained(data: Data, fold: str, seed: int, steps: int) -> NeuroFMx:
    """A model of every recording that the fold does not hold out."""
    folder = cache() / "pretrained" / f"{fold}-{seed}-{steps}"
    if not (folder / "model.json").exists():
        save_model(folder, _pretrain(data, fold, seed, steps, folder))
    return load_model(folder)


def _pretrain(data: Data, fold: str, seed: int, steps: int, out: Path) -> NeuroFMx:
    seen = [p for p in data.problems if p.recording not in FOLDS[fold][p.dataset]]
    vocabulary = _known(build_vocabulary(data.shards.values()), {f"{p.dataset}/{p.session}" for p in seen})
    torch.manual_seed(seed)
    model = NeuroFMx(presets.neurofmx("tiny"), vocabulary)
    embed_by_tuning(model, seen, data.scaler)
    collate = Collate(list(data.shards.values()), vocabulary, data.scaler, sorted({name for p in seen for name in p.inputs}))
    loaders = {
        name: Loader(
            [path],
            split="train",
            batch_size=PRETRAIN.batch_size,
            seed=seed,
            where={"recording": [p.recording for p in seen if p.dataset == name]},
            collate=collate,
        )
        for name, path in data.shards.items()
    }
    mixture, cfg = Mixture(loaders, dict.fromkeys(loaders, 1.0), seed), dataclasses.replace(PRETRAIN, steps=steps)
    fit(model, mixture, weighted_loss(AUGMENT, {"behaviour": 1.0}), cfg, out, seed=seed, description=f"pretrain {fold} {seed}")
    return model


def _known(vocabulary: Vocabulary, sessions: set[str]) -> Vocabulary:
    """The vocabulary without the units and sessions that are held out: these are to begin from their tuning maps."""
    channels = {m: tuple(n for n in names if "/".join(n.split("/")[:2]) in sessions) for m, names in vocabulary.channels.items()}
    return Vocabulary(channels, tuple(s for s in vocabulary.sessions if s in sessions), vocabulary.tasks)


# ---------------------------------------------------------------- fitting
def fit_both(cell: Cell, shards: dict[str, Path], scalers: Sequence[Path], steps: int) -> None:
    """Write the cell's truth and both guesses (T, K) of the test block."""
    torch.set_num_threads(1)
    data = load(shards, scalers)
    problem = next(with_share(p, cell.share) for p in data.problems if (p.dataset, p.recording) == (cell.dataset, cell.recording))
    scaler = scaled_by_labels(data.scaler, problem)
    base = pretrained(data, cell.fold, cell.seed, steps)
    chosen = {"pretrained": from_pretrained(base, problem, scaler, cell.seed), "scratch": scratch(problem, scaler, cell.seed)}
    blocks = {side: next(iter(predict_block(model, problem, scaler, "test").values())) for side, model in chosen.items()}
    known = np.isfinite(blocks["scratch"].truth).all(1)
    said = {side: block.guess[known] for side, block in blocks.items()}
    path = cache() / "cells" / f"{cell}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(path.with_suffix(".part.npz"), truth=blocks["scratch"].truth[known], **said)
    path.with_suffix(".part.npz").replace(path)


def from_pretrained(base: NeuroFMx, problem: Problem, scaler: Scaler, seed: int) -> NeuroFMx:
    """Of no fit, a short one and a long one the best on validation; the first quarter of a fit is for rows and readout."""
    candidates = [adapted_to(base, [problem], scaler, seed)]
    for updates in UPDATES:
        model = adapted_to(base, [problem], scaler, seed)
        with fitting(model, presets.AdaptConfig(seed=seed, size="tiny", train=PRETRAIN, method="new_units"), problem):
            fitted(model, problem, scaler, ROWS_LR, updates // 4, seed)
        candidates.append(fitted(model, problem, scaler, LR, updates - updates // 4, seed))
    return max(candidates, key=lambda model: validation_r2(model, problem, scaler))


def scratch(problem: Problem, scaler: Scaler, seed: int) -> NeuroFMx:
    """The same for a fresh model."""
    cfg = presets.neurofmx("tiny")
    candidates = [from_scratch(cfg, problem, scaler, seed)]
    candidates += [fitted(from_scratch(cfg, problem, scaler, seed), problem, scaler, SCRATCH_LR, updates, seed) for updates in UPDATES]
    return max(candidates, key=lambda model: validation_r2(model, problem, scaler))


def fitted(model: NeuroFMx, problem: Problem, scaler: Scaler, lr: float, updates: int, seed: int) -> NeuroFMx:
    cfg = presets.TrainConfig(steps=updates, lr=lr, checkpoint_every=updates)
    with tempfile.TemporaryDirectory() as folder:
        fit_decoder(model, problem, scaler, cfg, AUGMENT, Path(folder), seed)
    return model


# ---------------------------------------------------------------- table
def gain(cells: Sequence[dict[str, Array]]) -> tuple[float, float, float]:
    """Mean difference in test R2 and its 95 % interval."""
    from scipy import stats

    paired = [score_difference("r2", cell["truth"], cell["pretrained"], cell["scratch"]) for cell in cells]
    values = np.array([found.value for found in paired])
    if len(values) < 3:
        half = float(np.mean([found.high - found.value for found in paired]))
    else:
        half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return float(values.mean()), float(values.mean()) - half, float(values.mean()) + half


def report(cells: Sequence[Cell]) -> list[str]:
    """Print the table; the sets where pretraining helps beyond doubt at few labels."""
    print(f"\n{'set':20s} {'labels':>6s} {'n':>3s} {'scratch':>8s} {'pretrained':>10s} {'gain':>7s}  95 % interval")
    done = {cell: dict(np.load(path)) for cell in cells if (path := cache() / "cells" / f"{cell}.npz").exists()}
    won = []
    for name in SETS:
        for share in SHARES:
            found = [answers for cell, answers in done.items() if (cell.dataset, cell.share) == (name, share)]
            if not found:
                continue
            scores = {side: float(np.mean([r2(f["truth"], f[side]) for f in found])) for side in ("scratch", "pretrained")}
            value, low, high = gain(found)
            print(
                f"{name:20s} {100 * share:4.0f} % {len(found):3d} {scores['scratch']:8.3f} {scores['pretrained']:10.3f} {value:+7.3f}"
                f"  [{low:+.3f}, {high:+.3f}]{'  *' if low > 0 else ''}"
            )
        few = [answers for cell, answers in done.items() if cell.dataset == name and cell.share <= FEW]
        if few and gain(few)[1] > 0 and np.mean([r2(f["truth"], f["pretrained"]) for f in few]) > 0:
            won.append(name)
        if few:
            print("{:20s} {:>6s} {:3d} {:19s} {:+7.3f}  [{:+.3f}, {:+.3f}]".format(name, "<= 10", len(few), "", *gain(few)))
    left = len(cells) - len(done)
    print(
        f"interval above zero at <= 10 %: {', '.join(won) or 'nowhere'}; of {len(SETS)} sets" + (f"; {left} fits are missing" * bool(left))
    )
    return won


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--steps", type=int, default=PRETRAIN.steps, help="updates of pretraining")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    start = time.perf_counter()
    shards, scalers = prepare()
    cells = [
        Cell(fold, name, recording, share, seed)
        for seed in range(options.seeds)
        for fold in list(FOLDS)[: options.folds]
        for share in options.shares
        for name in SETS
        for recording in FOLDS[fold][name]
    ]
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        bases = {(cell.fold, cell.seed) for cell in cells}
        list(pool.map(pretrain_one, *zip(*[(shards, scalers, *base, options.steps) for base in sorted(bases)], strict=True)))
        missing = [cell for cell in cells if not (cache() / "cells" / f"{cell}.npz").exists()]
        list(pool.map(fit_both, *zip(*[(cell, shards, scalers, options.steps) for cell in missing], strict=True)))
    won = report(cells)
    print(f"\n{time.perf_counter() - start:.0f} s in all")
    share = len(won) / len(SETS)
    print(json.dumps({"name": "pretrain_gain", "ours": share, "peer": 0.5, "ratio": round(share / 0.5, 4), "unit": "share of sets"}))


def pretrain_one(shards: dict[str, Path], scalers: Sequence[Path], fold: str, seed: int, steps: int) -> None:
    torch.set_num_threads(1)
    pretrained(load(shards, scalers), fold, seed, steps)


if __name__ == "__main__":
    main()
