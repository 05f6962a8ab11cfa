"""Killed and resumed at any moment: the same bits, and every sample as often as it should be seen."""

import json
import os
import random
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn
from toy_training import ToyBatch, block_model, encoded, in_process, noisy_loss, one_cpu, toy_run, train

from neurofm_ml.data.loader import Loader
from neurofm_ml.data.shards import write_manifest, write_shards
from neurofm_ml.presets import TrainConfig
from neurofm_ml.training.checkpoints import latest_checkpoint, save_weights
from neurofm_ml.training.loop import fit

ROWS, EPOCHS, BATCH = 50, 3, 5
CFG = TrainConfig(steps=ROWS * EPOCHS // BATCH, batch_size=BATCH, lr=0.01, ema=0.9, log_every=3, checkpoint_every=4)
FILES = ("weights", "ema", "optimizer")


@dataclass(frozen=True)
class RowBatch(ToyBatch):
    """A toy batch that knows the rows of the shards it was made of."""

    rows: tuple[int, ...]

    def to(self, device: torch.device) -> "RowBatch":
        return self


def collate(samples: Sequence[Mapping[str, Any]]) -> RowBatch:
    x = torch.from_numpy(np.stack([sample["x"] for sample in samples]))
    rows = [sample["__row__"] for sample in samples]
    return RowBatch(x, torch.tensor(rows) % 3, x[:, :, :2].cumsum(1), tuple(rows))


def train_from_shards(artifact: Path, out: Path, threads: int, count: int | None) -> None:
    """Train on every window of `artifact`; with `count`, killed at that Python call after the first batch was asked for.

    Each update notes its rows in ``served.jsonl``, without `count` the number of calls in ``calls``.
    """
    one_cpu()
    calls = 0

    def called(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)

    def loss(model: nn.Module, batch: RowBatch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        if sys.getprofile() is None:
            sys.setprofile(called)
        os.write(served, f"{json.dumps([round(progress * CFG.steps), batch.rows])}\n".encode())
        return noisy_loss(model, batch, generator, progress)

    out.mkdir(exist_ok=True)
    served = os.open(out / "served.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    model = block_model()
    batches = Loader([artifact], split="train", batch_size=BATCH, seed=7, threads=threads, collate=collate)
    fit(model, batches, loss, CFG, out, seed=3, validate=encoded)
    sys.setprofile(None)
    save_weights(out, model.state_dict(), {})
    (out / "calls").write_text(str(calls))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    x, keys = np.random.default_rng(0).standard_normal((ROWS, 6, 5), np.float32), [f"window-{i:03d}" for i in range(ROWS)]
    written = write_shards(((key, {"x": values}) for key, values in zip(keys, x, strict=True)), out, "train", 4_000)
    pq.write_table(pa.table({"key": keys, "split": ["train"] * ROWS}), out / "windows.parquet")
    write_manifest(out, [written], {})
    return out


@pytest.fixture(scope="module")
def undisturbed(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert ends(train_from_shards, artifact, out, 1, None) == 0
    return out


def ends(function: Any, *args: Any) -> int:
    """How a process that runs `function` ends."""
    process = in_process(function, *args)
    process.join()
    return int(process.exitcode)


def served(out: Path) -> dict[int, list[int]]:
    """Update (0-based) -> its rows, which must be the same each time that the update was tried."""
    found: dict[int, list[int]] = {}
    for step, rows in map(json.loads, (out / "served.jsonl").read_text().splitlines()):
        assert found.setdefault(step, rows) == rows
    return found


def assert_same_bits(out: Path, expected: Path, steps: int) -> None:
    for name in ("model.safetensors", "metrics.csv", *(f"checkpoints/step-{steps:06d}/{n}.safetensors" for n in FILES)):
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name


def test_each_epoch_is_every_window_once(undisturbed: Path) -> None:
    rows = [row for _, rows in sorted(served(undisturbed).items()) for row in rows]
    epochs = [rows[i : i + ROWS] for i in range(0, ROWS * EPOCHS, ROWS)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(ROWS))] * EPOCHS
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("draw", [pytest.param(n, marks=() if n < 3 else pytest.mark.slow) for n in range(25)])
def test_killed_at_random_moments_it_ends_in_the_same_bits(draw: int, artifact: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Two attempts are killed, with one and with two reading threads, and a third with one goes to the end."""
    moments, calls = random.Random(draw), int((undisturbed / "calls").read_text())
    for threads in (1, 2):
        code = ends(train_from_shards, artifact, tmp_path, threads, moments.randrange(1, calls))
        assert code in (0, -signal.SIGKILL)  # the second may have had little left to do
        begun, kept = max(served(tmp_path)), latest_checkpoint(tmp_path / "checkpoints")
        assert (kept.step if kept else 0) >= begun // CFG.checkpoint_every * CFG.checkpoint_every
    assert ends(train_from_shards, artifact, tmp_path, 1, None) == 0
    assert_same_bits(tmp_path, undisturbed, CFG.steps)
    assert served(tmp_path) == served(undisturbed)


# ---------------------------------------------------------------- while files are written
def train_until_sync(out: Path, count: int) -> None:
    """`toy_run`, killed when it is about to make file number `count` durable."""
    one_cpu()
    fsync, left = os.fsync, iter(range(count - 1))

    def deadly(descriptor: int) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = deadly
    toy_run(out)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy")
    assert ends(train, out) == 0
    return out


# 50 files are made durable: metrics.csv and 7 to each of the 6 checkpoints with its folders, then 2 of the model.
@pytest.mark.parametrize("count", [pytest.param(n, marks=() if n in (14, 24) else pytest.mark.slow) for n in range(1, 51)])
def test_killed_while_writing_it_ends_in_the_same_bits(count: int, toy: Path, tmp_path: Path) -> None:
    assert ends(train_until_sync, tmp_path, count) == -signal.SIGKILL
    assert ends(train, tmp_path) == 0
    assert_same_bits(tmp_path, toy, 40)


def test_a_checkpoint_cut_short_costs_one_interval(tmp_path: Path, toy: Path, caplog: pytest.LogCaptureFixture) -> None:
    ends(train_until_sync, tmp_path, 24)  # after step-000021 stands, before the one it replaces is gone
    cut = tmp_path / "checkpoints/step-000021/optimizer.safetensors"
    os.truncate(cut, cut.stat().st_size // 2)
    torch.set_num_threads(1)
    assert toy_run(tmp_path).resumed_from == 14
    assert f"{cut} has" in caplog.text
    assert_same_bits(tmp_path, toy, 40)
