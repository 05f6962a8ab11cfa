"""A transfer matrix of N datasets: each read by the model once, against each pair read anew.

N simulated sessions of 60 s, a dataset each, and an untrained model of size tiny: what is timed does not depend on what it
learned. Ours reads the N datasets, factorises N readouts and fills N x N cells with their permutations from these. The peer does
what a loop over pairs does: it reads source and target, fits, scores, permutes. Both must give the same matrix, or the benchmark
stops. Printed: seconds, and how many datasets were read; the exponent of N between the two largest N. `ratio` = the peer's
seconds / ours at the largest N.
"""

import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from neurofm_ml import presets
from neurofm_ml.config import to_dict
from neurofm_ml.data.batches import build_vocabulary
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.scaler import fit, load_scaler
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.windows import read_windows, shard_recordings
from neurofm_ml.evaluation.features.features import Source
from neurofm_ml.evaluation.tasks.tasks import find_cases
from neurofm_ml.evaluation.transfer.example_sources import series_examples
from neurofm_ml.evaluation.transfer.places import Place, matrix
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.models import NeuroFMx
from neurofm_ml.training.problems import find_problems

SIZES = (2, 4, 8)
SECONDS = 60.0
MODALITIES = ("spikes", "pose")
N_PERM = 1000


def write(folder: Path, n: int) -> tuple[list[Path], list[Path]]:
    """Shards of n datasets, and scalers of their spikes and behaviour."""
    base = datasets()["simulation"]
    signals = {name: base.signals[name] for name in ("spikes", "behaviour")}
    shards = []
    for k in range(n):
        card = dataclasses.replace(base, name=f"simulation_{k}", recordings=base.recordings[:1], signals=signals, expected={})
        recordings, out = folder / f"recordings-{k}", folder / f"shards-{k}"
        out.mkdir()
        for recording in simulate(card, SECONDS):
            subject = dataclasses.replace(recording.subject, id=card.name)  # places of one recording are none to each other
            save_recording(dataclasses.replace(recording, subject=subject), recordings / "recordings")
        (recordings / "card.json").write_text(json.dumps(to_dict(card)))
        shard_recordings(presets.ShardsConfig(dataset=card.name), recordings, out)
        shards.append(out)
    scalers = [folder / f"scaler-{modality}" for modality in MODALITIES]
    for path, modality in zip(scalers, MODALITIES, strict=True):
        path.mkdir()
        fit(presets.ScalerConfig(modality=modality), shards, path)
    return shards, scalers


def reader(shards: list[Path], scalers: list[Path]) -> tuple[Callable[[Path], Place], list[int]]:
    """A function that has the model read a dataset, and how often it was called."""
    torch.manual_seed(0)
    model, scale, calls = NeuroFMx(presets.neurofmx("tiny"), build_vocabulary(shards)).eval(), load_scaler(scalers), [0]

    def read(path: Path) -> Place:
        calls[0] += 1
        source, (problem,), (case,) = Source(model, path, scale, 64, "cpu"), find_problems(path), find_cases(path, scalers)
        bins = {split: source.bins(problem, problem.inputs, split)[:, -1] for split in presets.SPLITS}
        return Place.of(case.dataset, series_examples(case, read_windows(path), bins))

    return read, calls


def ours(read: Callable[[Path], Place], shards: list[Path]) -> list[float]:
    return [row["value"] for row in matrix([read(path) for path in shards], "own", N_PERM, 0)]


def peer(read: Callable[[Path], Place], shards: list[Path]) -> list[float]:
    """Each pair from the start; a source on itself is read once."""
    values = []
    for source in shards:
        for target in shards:
            places = [read(source)] if source == target else [read(source), read(target)]
            values.append(matrix(places, "own", N_PERM, 0)[len(places) - 1]["value"])
    return values


def main() -> None:
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as root:
        shards, scalers = write(Path(root), SIZES[-1])
        read, calls = reader(shards, scalers)
        read(shards[0])
        print(f"{'datasets':>8s} {'':6s} {'seconds':>9s} {'read':>6s}")
        for n in SIZES:
            found = {}
            for name, contender in (("ours", ours), ("peer", peer)):
                calls[0] = 0
                start = time.perf_counter()
                found[name] = contender(read, shards[:n])
                seconds[name].append(time.perf_counter() - start)
                print(f"{n:8d} {name:6s} {seconds[name][-1]:9.2f} {calls[0]:6d}", flush=True)
            assert np.allclose(found["ours"], found["peer"]), "the two matrices differ"
    for name, taken in seconds.items():
        print(f"{name}: seconds grow as N^{math.log2(taken[-1] / taken[-2]) / math.log2(SIZES[-1] / SIZES[-2]):.2f}")
    mine, theirs = seconds["ours"][-1], seconds["peer"][-1]
    print(json.dumps({"name": "transfer", "ours": round(mine, 2), "peer": round(theirs, 2), "ratio": round(theirs / mine, 2), "unit": "s"}))


if __name__ == "__main__":
    main()
