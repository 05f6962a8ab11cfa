"""W&B beside the training loop: what it is told, what it keeps when a run is resumed, and that it never stands in the way."""

import json
import os
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_training import CFG, ToyBatches, noisy_loss, summed, toy_model

from neurofm_ml.config import patch
from neurofm_ml.training.checkpoints import latest_checkpoint
from neurofm_ml.training.curves import read_curves
from neurofm_ml.training.loop import LossFunction, fit
from neurofm_ml.training.tracking import GpuMeter
from neurofm_ml.types import Preempted

SHORT = patch(CFG, {"steps": 12, "accumulate": 1, "log_every": 2, "checkpoint_every": 6})
BLOCK = 32768


@pytest.fixture(autouse=True)
def kept_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tracking is on, and what it writes lands here."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NEUROFM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEUROFM_WANDB_PROJECT", "toys")
    return tmp_path / "home" / "wandb"


def run(out: Path, loss: LossFunction = noisy_loss) -> list[Tensor]:
    """Train a toy; gives its weights."""
    model = toy_model()
    made_from = {"simulation": "0123abcd", "git_revision": "89ef"}
    fit(model, ToyBatches(4), loss, SHORT, out, seed=3, validate=summed, provenance=made_from)
    return list(model.parameters())


def records(file: Path) -> Iterator[Any]:
    """What W&B wrote down for its server: protocol buffers in the log format of LevelDB, after a header of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(record)
            record = b""


def tracked(folder: Path) -> tuple[dict[str, Any], dict[int, dict[str, float]]]:
    """(config, values by step) of one run."""
    (file,) = folder.glob("*.wandb")
    found = list(records(file))
    (about,) = (r.run for r in found if r.WhichOneof("record_type") == "run")
    history = [{item.nested_key[0]: json.loads(item.value_json) for item in r.history.item} for r in found if r.HasField("history")]
    config = {item.key: json.loads(item.value_json) for item in about.config.update}
    return {**config, "id": about.run_id, "project": about.project, "name": about.display_name}, {row["_step"]: row for row in history}


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------- what it is told
def test_an_offline_run_holds_every_loss_and_where_it_came_from(tmp_path: Path, kept_at: Path) -> None:
    out = tmp_path / "home/artifacts/toys/tiny-0/work-12ab"
    run(out)
    (folder,) = kept_at.glob("offline-run-*")
    config, history = tracked(folder)
    curves = read_curves(out / "metrics.csv")
    for name in ("loss", "grad_norm", "validation/weights"):
        steps, values = curves[name]
        np.testing.assert_array_equal([history[step][name] for step in steps], values)
    assert config["project"] == "toys"
    assert config["name"] == "toys/tiny-0/work-12ab"
    assert config["provenance"] == {"simulation": "0123abcd", "git_revision": "89ef"}
    assert (config["seed"], config["lr"], config["folder"]) == (3, SHORT.lr, str(out))


def test_nothing_is_tracked_unless_a_project_is_named(tmp_path: Path, kept_at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = run(tmp_path / "with")
    monkeypatch.delenv("NEUROFM_WANDB_PROJECT")
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert_same(run(tmp_path / "without"), tracking)
    assert len(list(kept_at.glob("offline-run-*"))) == 1


def test_another_folder_is_the_users_choice(tmp_path: Path, kept_at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "mine"))
    run(tmp_path / "out")
    assert list((tmp_path / "mine/wandb").glob("offline-run-*"))
    assert not kept_at.exists()


def test_it_can_be_switched_off_for_a_while(tmp_path: Path, kept_at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run(tmp_path / "out")
    assert not list(kept_at.glob("*run-*"))


# ---------------------------------------------------------------- interrupted runs
def test_a_resumed_run_is_the_same_run(tmp_path: Path, kept_at: Path) -> None:
    def stopped(model: nn.Module, batch: Any, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        if progress == 8 / 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return noisy_loss(model, batch, generator, progress)

    out = tmp_path / "out"
    with pytest.raises(Preempted):
        run(out, stopped)
    run(out)
    found = [tracked(folder) for folder in kept_at.glob("offline-run-*")]
    assert len(found) == 2
    assert len({config["id"] for config, _ in found}) == 1
    assert sorted(step for _, history in found for step in history) == [2, 4, 6, 8, 10, 12]


def test_a_finished_run_is_not_tracked_again(tmp_path: Path, kept_at: Path) -> None:
    run(tmp_path / "out")
    run(tmp_path / "out")
    assert len(list(kept_at.glob("offline-run-*"))) == 1


# ---------------------------------------------------------------- it never stands in the way
class Broken:
    """A wandb that fails at one point."""

    def __init__(self, at: str) -> None:
        self.at, self.id, self.told = at, "b0b", 0
        self.Settings = lambda **_: None

    def _call(self, what: str) -> None:
        if what == self.at:
            raise RuntimeError(f"{what} is broken")

    def init(self, **_: Any) -> "Broken":
        self._call("init")
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.told += 1
        self._call("log")

    def finish(self, exit_code: int) -> None:
        self._call("finish")


@pytest.mark.parametrize("at", ["init", "log", "finish", "import"])
def test_what_breaks_is_said_once_and_training_goes_on(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(tmp_path / "whole")
    broken = Broken(at)
    monkeypatch.setitem(sys.modules, "wandb", None if at == "import" else broken)
    assert_same(run(tmp_path / "broken"), whole)
    (said,) = [record.getMessage() for record in caplog.records if "W&B" in record.getMessage()]
    assert str(tmp_path / "broken") in said
    assert "training goes on" in said
    assert broken.told == {"init": 0, "log": 1, "finish": 8, "import": 0}[at]


def test_a_wrong_mode_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    run(tmp_path / "out")
    assert "ofline" in caplog.text
    found = latest_checkpoint(tmp_path / "out/checkpoints")
    assert found is not None
    assert found.step == 12


# ---------------------------------------------------------------- the GPU
@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    busy = iter([40, 80])
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: next(busy))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 12_000_000_000)
    return torch.device("cuda", 0)


def test_a_gpu_is_metered(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROFM_GPU_PRICE_PER_HOUR", "2.5")
    meter = GpuMeter(gpu, world=8)
    meter.look()
    meter.look()
    assert meter.numbers(1800) == {"gpu_busy_percent": 60, "gpu_peak_memory_gb": 12, "gpu_hours": 4, "gpu_cost": 10}


def test_what_is_not_known_of_a_gpu_is_left_out(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_package(device: torch.device) -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    monkeypatch.delenv("NEUROFM_GPU_PRICE_PER_HOUR", raising=False)
    monkeypatch.setattr(torch.cuda, "utilization", no_package)
    meter = GpuMeter(gpu, world=1)
    meter.look()
    assert meter.numbers(3600) == {"gpu_peak_memory_gb": 12, "gpu_hours": 1}


def test_a_price_that_is_no_number_is_refused_before_training(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROFM_GPU_PRICE_PER_HOUR", "2,50 EUR")
    with pytest.raises(ValueError, match="NEUROFM_GPU_PRICE_PER_HOUR is '2,50 EUR'; it needs a number"):
        GpuMeter(gpu, world=1)


def test_a_cpu_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROFM_GPU_PRICE_PER_HOUR", "nonsense")
    meter = GpuMeter(torch.device("cpu"), world=1)
    meter.look()
    assert meter.numbers(3600) == {}


def test_a_jobs_report_carries_what_the_gpu_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = SimpleNamespace(look=lambda: None, numbers=lambda seconds: {"gpu_cost": 1.5})
    monkeypatch.setattr("neurofm_ml.training.loop.GpuMeter", lambda device, world: meter)
    history = fit(toy_model(), ToyBatches(4), noisy_loss, SHORT, tmp_path / "out", seed=3)
    assert history.metrics["gpu_cost"] == 1.5
