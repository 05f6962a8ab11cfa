"""Two processes against one, whatever they share: losses, weights, averages, checkpoints."""

import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy_training import ToyBatches, block_model, encoded, in_two_processes, noisy_loss, toy_model

from neurofm_ml.config import patch
from neurofm_ml.presets import TrainConfig
from neurofm_ml.training import tracking
from neurofm_ml.training.checkpoints import load_checkpoint, load_weights, save_weights
from neurofm_ml.training.curves import read_curves
from neurofm_ml.training.loop import fit
from neurofm_ml.training.strategies import blocks_of, rank_and_world
from neurofm_ml.types import Preempted

CFG = TrainConfig(steps=12, batch_size=4, lr=0.02, ema=0.8, log_every=1, checkpoint_every=4, keep=3)
#: Name -> changes of CFG under which two processes train; those "accumulated" have twice the samples in an update.
SHARED: dict[str, dict[str, Any]] = {
    "ddp": {"strategy": "ddp"},
    "ddp-accumulated": {"strategy": "ddp", "accumulate": 2},
    "fsdp": {"strategy": "fsdp"},
    "fsdp-accumulated": {"strategy": "fsdp", "accumulate": 2},
    "fsdp-grad-op": {"strategy": "fsdp", "fsdp": {"shard": "grad_op"}},
    "fsdp-offload": {"strategy": "fsdp", "fsdp": {"cpu_offload": True}},
    "fsdp-recomputed": {"strategy": "fsdp", "activation_checkpointing": True},
}
BFLOAT16 = {"precision": "bf16-mixed"}


def train(out: Path, changes: Mapping[str, Any], until: float = math.inf) -> None:
    """Train in this process, alone or as one of two, to the end or until `Preempted` in step `until`.

    Every process keeps the averaged weights that `fit` leaves, and what was observed, in a folder of its own.
    """
    cfg = patch(CFG, changes)
    rank, world = rank_and_world(cfg)
    model, seen = block_model(), []

    def observe(step: int, means: Mapping[str, float]) -> None:
        seen.append([step, dict(means)])
        if step == until:
            raise Preempted

    batches = ToyBatches(cfg.batch_size, rank, world)
    fit(model, batches, noisy_loss, cfg, out, seed=3, validate=encoded, observe=observe)
    save_weights(out / f"rank-{rank}", model.state_dict(), {"seen": seen})


def stopped(out: Path, changes: Mapping[str, Any], until: int) -> None:
    with pytest.raises(Preempted):
        train(out, changes, until)


class Recorder:
    """A run at W&B that only notes which steps it was told of."""

    id = "toy"

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, values: dict[str, float], step: int) -> None:
        with self.path.open("a") as file:
            file.write(f"{step}\n")

    def finish(self, exit_code: int) -> None: ...


def begin(out: Path) -> None:
    """Everything that two processes do, in one go: starting them takes longer than the trainings."""
    os.environ["NEUROFM_WANDB_PROJECT"] = "toy"
    tracking._start = lambda project, out, config, run_id: Recorder(out / f"tracked-by-{os.environ['RANK']}")
    for name, changes in SHARED.items():
        train(out / name, changes)
    for name in ("ddp", "fsdp"):
        train(out / f"{name}-bfloat16", {**SHARED[name], **BFLOAT16})
        stopped(out / f"{name}-resumed", SHARED[name], 7)
        train(out / f"{name}-resumed", SHARED[name])
        stopped(out / f"{name}-relay", SHARED[name], 5)


def finish(out: Path) -> None:
    for name in ("ddp", "fsdp"):
        train(out / f"{name}-relay", SHARED[name])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all runs: "one" and "one-accumulated" by one process; relays by two, one and two."""
    out = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    in_two_processes(begin, out)
    train(out / "one", {"accumulate": 2})
    train(out / "one-accumulated", {"accumulate": 4})
    train(out / "one-bfloat16", {"accumulate": 2, **BFLOAT16})
    for name in ("ddp", "fsdp"):
        stopped(out / f"{name}-relay", {"accumulate": 2}, 9)
    in_two_processes(finish, out)
    torch.set_num_threads(threads)
    return out


def assert_alike(found: Path, expected: Path, rtol: float = 1e-5) -> None:
    """Every logged value, the exported weights of every process, and the last checkpoint."""
    one, two = (read_curves(path / "metrics.csv") for path in (expected, found))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(two[name][0], one[name][0])
        np.testing.assert_allclose(two[name][1], one[name][1], rtol=rtol, err_msg=name)
    exported = load_weights(expected / "rank-0")[0]
    for path in found.glob("rank-*"):
        for name, weights in load_weights(path)[0].items():
            torch.testing.assert_close(weights, exported[name], rtol=1e-4, atol=1e-6, msg=name)
    checkpoints = [load_checkpoint(path / "checkpoints/step-000012") for path in (expected, found)]
    for part in ("weights", "ema", "optimizer"):
        whole, shared = (getattr(checkpoint, part) for checkpoint in checkpoints)
        assert whole.keys() == shared.keys()
        for name, tensor in whole.items():
            torch.testing.assert_close(shared[name], tensor, rtol=1e-3, atol=1e-6, msg=f"{part} {name}")


# ---------------------------------------------------------------- the truth of one process
@pytest.mark.parametrize("name", SHARED)
def test_two_processes_do_what_one_does(name: str, runs: Path) -> None:
    assert_alike(runs / name, runs / ("one-accumulated" if name.endswith("accumulated") else "one"))


def test_the_toy_makes_sharing_out_hard(runs: Path) -> None:
    """What no batch used has no state of the optimizer, what some used has taken fewer steps than the rest."""
    optimizer = load_checkpoint(runs / "fsdp/checkpoints/step-000012").optimizer
    steps = {name.removesuffix("|step"): int(value) for name, value in optimizer.items() if name.endswith("|step")}
    assert not [name for name in steps if name.startswith(("never", "frozen"))]
    assert 0 < steps["seldom.weight"] < steps["into.weight"] == 12


def test_all_processes_observe_the_same_means(runs: Path) -> None:
    for name in SHARED:
        first, second = (load_weights(runs / name / f"rank-{rank}")[1]["seen"] for rank in (0, 1))
        assert first == second
        assert [step for step, _ in first] == list(range(1, 13))


@pytest.mark.parametrize("name", SHARED)
def test_only_the_first_process_is_tracked(name: str, runs: Path) -> None:
    (tracked,) = (runs / name).glob("tracked-by-*")
    assert tracked.name == "tracked-by-0"
    assert sorted({int(line) for line in tracked.read_text().splitlines()}) == list(range(1, 13))


@pytest.mark.parametrize("name", ["ddp-bfloat16", "fsdp-bfloat16"])
def test_half_precision_is_near_and_keeps_whole_weights(name: str, runs: Path) -> None:
    losses = {run: read_curves(runs / run / "metrics.csv")["loss"][1] for run in (name, "one-bfloat16", "one")}
    np.testing.assert_allclose(losses[name], losses["one-bfloat16"], rtol=0.02)
    assert 0 < np.abs(losses[name] / losses["one"] - 1).max() < 0.05
    assert all(weights.dtype == torch.float32 for weights in load_checkpoint(runs / name / "checkpoints/step-000012").weights.values())


# ---------------------------------------------------------------- resumed
@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_resume_in_the_same_bits(name: str, runs: Path) -> None:
    for file in (
        "metrics.csv",
        "rank-1/model.safetensors",
        *(f"checkpoints/step-000012/{n}.safetensors" for n in ("weights", "ema", "optimizer")),
    ):
        assert (runs / f"{name}-resumed" / file).read_bytes() == (runs / name / file).read_bytes(), file


@pytest.mark.parametrize("name", ["ddp-relay", "fsdp-relay"])
def test_two_processes_hand_over_to_one_and_take_back(name: str, runs: Path) -> None:
    assert_alike(runs / name, runs / "one")


def test_another_layout_of_the_batch_is_refused(runs: Path) -> None:
    with pytest.raises(ValueError, match="accumulate x processes was 2, is 1"):
        train(runs / "fsdp", {})


# ---------------------------------------------------------------- blocks, in one process
def test_blocks_are_found_by_the_name_of_their_list() -> None:
    inner, model = block_model(), nn.Module()
    model.encoder, model.backbone, model.heads = inner, nn.ModuleList([nn.Linear(1, 1)]), nn.ModuleList([nn.Linear(1, 1)])
    assert blocks_of(model) == [*inner.blocks, *model.backbone]
    assert blocks_of(toy_model()) == []


def test_blocks_are_computed_again_in_the_same_bits(tmp_path: Path) -> None:
    models, calls = {again: block_model(dropout=0.3) for again in (False, True)}, {False: 0, True: 0}
    for again, model in models.items():

        def count(*_: Any, again: bool = again) -> None:
            calls[again] += 1

        model.blocks[0].linear.register_forward_hook(count)
        fit(model, ToyBatches(4), noisy_loss, patch(CFG, {"activation_checkpointing": again}), tmp_path / str(again), seed=0)
    assert calls == {False: 12, True: 24}
    assert all(torch.equal(p, models[True].state_dict()[name]) for name, p in models[False].state_dict().items())
    assert not any("forward" in vars(block) for block in models[True].blocks)


def test_what_has_no_blocks_cannot_be_computed_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ToyModel has no list of layers called `blocks`"):
        fit(toy_model(), ToyBatches(4), noisy_loss, patch(CFG, {"activation_checkpointing": True}), tmp_path, seed=0)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("changes", [{}, {"activation_checkpointing": True}])
def test_compiled_blocks_give_the_same_losses(changes: dict[str, Any], tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    models = {compiled: block_model(dropout=0.0) for compiled in (False, True)}
    losses = [
        fit(model, ToyBatches(4), noisy_loss, patch(CFG, {"compile": compiled, **changes}), tmp_path / str(compiled), seed=0).curves[
            "loss"
        ][1]
        for compiled, model in models.items()
    ]
    assert counters["stats"]["unique_graphs"] > 0
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert not any("forward" in vars(block) for block in models[True].blocks)
