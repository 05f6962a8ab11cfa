"""Two processes under ZeRO-3 against one: losses, weights, averages, checkpoints. What two processes do is skipped without DeepSpeed."""

import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_strategies import BFLOAT16, CFG, assert_alike, stopped, train
from torch import Tensor
from toy_training import BlockModel, ToyBatch, ToyBatches, block_model, in_two_processes, plain_loss

from neurofm_ml.config import patch
from neurofm_ml.presets import DeepSpeedConfig, TrainConfig
from neurofm_ml.training.checkpoints import load_checkpoint, save_weights
from neurofm_ml.training.curves import read_curves
from neurofm_ml.training.loop import fit
from neurofm_ml.training.strategies import rank_and_world
from neurofm_ml.training.zero import zero_config

needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")

#: Every block is gathered when it is called, in messages of a weight or two.
APART: dict[str, Any] = {"strategy": "deepspeed", "deepspeed": {"keep_whole": 0, "bucket": 100}}
ZERO: dict[str, dict[str, Any]] = {
    "plain": {"strategy": "deepspeed"},
    "apart": APART,
    "accumulated": {**APART, "accumulate": 2},
    "biases-kept": {"strategy": "deepspeed", "deepspeed": {"keep_whole": 10, "bucket": 100}},
    "recomputed": {**APART, "activation_checkpointing": True},
}


# ---------------------------------------------------------------- what DeepSpeed is told
def test_config_says_what_is_asked_and_leaves_the_rest_to_the_loop() -> None:
    cfg = TrainConfig(
        batch_size=3, accumulate=5, clip_norm=0.7, strategy="deepspeed", deepspeed=DeepSpeedConfig(bucket=1000, keep_whole=20)
    )
    expected = {
        "train_micro_batch_size_per_gpu": 3,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0,
        "torch_autocast": {"enabled": False, "dtype": "bfloat16", "lower_precision_safe_modules": []},
        "zero_optimization": {
            "stage": 3,
            "reduce_bucket_size": 1000,
            "stage3_prefetch_bucket_size": 1000,
            "stage3_param_persistence_threshold": 20,
            "sub_group_size": 1,
        },
    }
    assert zero_config(cfg) == expected
    expected["torch_autocast"]["enabled"] = True
    assert zero_config(patch(cfg, BFLOAT16)) == expected


@needs_deepspeed
def test_deepspeed_understands_the_config() -> None:
    from deepspeed.runtime.config import DeepSpeedConfig as Theirs

    found = Theirs(zero_config(patch(TrainConfig(batch_size=3), {**APART, **BFLOAT16})))
    zero = found.zero_config
    assert (found.train_batch_size, found.gradient_accumulation_steps, found.managed_gradient_accumulation) == (3, 1, False)
    assert (found.gradient_clipping, found.torch_autocast_enabled, found.torch_autocast_dtype) == (0.0, True, torch.bfloat16)
    assert found.torch_autocast_lower_precision_safe_modules == []
    assert (found.bfloat16_config.enabled, found.float16_config.enabled) == (False, False)
    assert (zero.stage, zero.reduce_bucket_size, zero.prefetch_bucket_size) == (3, 100, 100)
    assert (zero.param_persistence_threshold, zero.sub_group_size) == (0, 1)


@pytest.mark.parametrize(("field", "value"), [("bucket", 0), ("keep_whole", -1)])
def test_sizes_that_make_no_sense_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"DeepSpeedConfig.{field} is {value}"):
        DeepSpeedConfig(**{field: value})


def test_without_deepspeed_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install deepspeed"):
        fit(block_model(), ToyBatches(4), plain_loss, patch(CFG, APART), tmp_path, seed=0)


# ---------------------------------------------------------------- the truth of one process
def shallow_at_times(model: BlockModel, batch: ToyBatch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
    """A loss that leaves the last block out in every third update."""
    values = model.into(batch.x + model.embedding(batch.k)[:, None])
    for block in model.blocks[: 1 if round(progress * CFG.steps) % 3 == 1 else 2]:
        values = block(values)
    return (model.readout(values) - batch.y).square().mean(), {}


def train_shallow(out: Path, changes: Mapping[str, Any]) -> None:
    cfg, model = patch(CFG, changes), block_model()
    rank, world = rank_and_world(cfg)
    fit(model, ToyBatches(cfg.batch_size, rank, world), shallow_at_times, cfg, out, seed=3)
    save_weights(out / f"rank-{rank}", model.state_dict(), {})


def begin(out: Path) -> None:
    warnings.simplefilter("ignore")  # DeepSpeed's own, one for every message
    for name, changes in ZERO.items():
        train(out / name, changes)
    train(out / "bfloat16", {**APART, **BFLOAT16})
    train_shallow(out / "shallow", APART)
    stopped(out / "resumed", APART, 7)
    train(out / "resumed", APART)
    stopped(out / "relay", APART, 5)


def finish(out: Path) -> None:
    warnings.simplefilter("ignore")
    train(out / "relay", APART)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all runs: "one" and "one-accumulated" by one process; the relay by two, one and two."""
    out = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    in_two_processes(begin, out)
    train(out / "one", {"accumulate": 2})
    train(out / "one-accumulated", {"accumulate": 4})
    train(out / "one-bfloat16", {"accumulate": 2, **BFLOAT16})
    train_shallow(out / "one-shallow", {"accumulate": 2})
    stopped(out / "relay", {"accumulate": 2}, 9)
    in_two_processes(finish, out)
    torch.set_num_threads(threads)
    return out


@needs_deepspeed
@pytest.mark.parametrize("name", ZERO)
def test_two_processes_do_what_one_does(name: str, runs: Path) -> None:
    assert_alike(runs / name, runs / ("one-accumulated" if name == "accumulated" else "one"))


@needs_deepspeed
def test_a_block_that_is_left_out_keeps_neither_gradient_nor_step(runs: Path) -> None:
    assert_alike(runs / "shallow", runs / "one-shallow")
    optimizer = load_checkpoint(runs / "shallow/checkpoints/step-000012").optimizer
    assert [int(optimizer[f"blocks.{i}.linear.weight|step"]) for i in (0, 1)] == [12, 8]


@needs_deepspeed
def test_half_precision_is_near_and_keeps_whole_weights(runs: Path) -> None:
    losses = {run: read_curves(runs / run / "metrics.csv")["loss"][1] for run in ("bfloat16", "one-bfloat16", "one")}
    np.testing.assert_allclose(losses["bfloat16"], losses["one-bfloat16"], rtol=0.02)
    assert 0 < np.abs(losses["bfloat16"] / losses["one"] - 1).max() < 0.05
    assert all(weights.dtype == torch.float32 for weights in load_checkpoint(runs / "bfloat16/checkpoints/step-000012").weights.values())


@needs_deepspeed
def test_two_processes_resume_in_the_same_bits(runs: Path) -> None:
    whole = [f"checkpoints/step-000012/{name}.safetensors" for name in ("weights", "ema", "optimizer")]
    for file in ("metrics.csv", "rank-1/model.safetensors", *whole):
        assert (runs / "resumed" / file).read_bytes() == (runs / "apart" / file).read_bytes(), file


@needs_deepspeed
def test_two_processes_hand_over_to_one_and_take_back(runs: Path) -> None:
    assert_alike(runs / "relay", runs / "one")
