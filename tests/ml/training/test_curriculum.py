"""Curricula: stages in order, by updates or plateau, and a run that is killed anywhere goes on as if it had not been."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_training import CFG, ToyBatches, noisy_loss, toy_model

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.presets import StageConfig
from neurofm_ml.training.checkpoints import latest_checkpoint
from neurofm_ml.training.curriculum import Curriculum, Staged, staged
from neurofm_ml.training.curves import read_curves
from neurofm_ml.training.loop import fit
from neurofm_ml.training.pretrain import pretrain
from neurofm_ml.training.saved import load_model

OBJECTIVES = {"masked": 1.0}


def stage(**more: Any) -> StageConfig:
    return StageConfig(kind="multimodal", objectives=OBJECTIVES, **more)


class Numbered(ToyBatches):
    """The toy's batches, of a stream of its own for each stage."""

    def __init__(self, stage: int) -> None:
        super().__init__(4)
        self.position = 1000 * stage


def toy_curriculum(*stages: StageConfig, accumulate: int = 1) -> Curriculum:
    return Curriculum(stages, [lambda k=k: Numbered(k) for k in range(len(stages))], accumulate)


def observed(curriculum: Curriculum, losses: Iterator[float] | list[float]) -> list[int]:
    """Stage of the batches drawn between observations of these losses."""
    batches, seen = iter(curriculum), []
    for step, loss in enumerate(losses):
        seen.append(next(batches).stage)
        curriculum.observe(step, {"loss": loss})
    return seen


# ---------------------------------------------------------------- when a stage ends
def test_stages_last_their_updates_and_the_last_has_no_end():
    curriculum = toy_curriculum(stage(steps=3), stage(steps=2), stage(steps=1), accumulate=2)
    batches = iter(curriculum)
    assert [next(batches).stage for _ in range(20)] == [0] * 6 + [1] * 4 + [2] * 10


def test_each_stage_has_batches_of_its_own():
    batches = iter(toy_curriculum(stage(steps=2), stage()))
    found = [next(batches) for _ in range(4)]
    for stage_number in (0, 1):
        own = iter(Numbered(stage_number))
        for batch in found[2 * stage_number : 2 * stage_number + 2]:
            assert torch.equal(batch.batch.x, next(own).x)


def test_a_plateau_ends_a_stage_after_its_patience():
    curriculum = toy_curriculum(stage(patience=2), stage())
    #         ignored, best, gain, none, gain, none, none
    losses = [0.1, 9.0, 8.0, 8.0, 7.0, 7.0, 6.9999, 1.0, 1.0, 1.0, 1.0]
    assert observed(curriculum, losses) == [0] * 7 + [1] * 4


def test_negative_losses_have_plateaus_too():
    assert observed(toy_curriculum(stage(patience=1), stage()), [0.0, -1.0, -2.0, -2.0005, -3.0]) == [0, 0, 0, 0, 1]


def test_whichever_comes_first_ends_a_stage():
    flat = [1.0] * 8
    assert observed(toy_curriculum(stage(patience=2, steps=6), stage()), flat) == [0] * 4 + [1] * 4
    assert observed(toy_curriculum(stage(patience=5, steps=3), stage()), flat) == [0] * 3 + [1] * 5


# ---------------------------------------------------------------- resumed
STAGES = (stage(steps=5), stage(patience=1), stage())


def drive(curriculum: Curriculum, first: int, last: int) -> list[tuple[int, list[float]]]:
    """Stage and data of batches `first` to `last`, with a flat loss observed after every third."""
    batches, seen = iter(curriculum), []
    for k in range(first, last):
        batch = next(batches)
        seen.append((batch.stage, batch.batch.x.flatten().tolist()))
        if k % 3 == 2:
            curriculum.observe(k, {"loss": 1.0})
    return seen


def test_resumed_anywhere_it_gives_the_batches_of_the_uninterrupted_one():
    whole = drive(toy_curriculum(*STAGES), 0, 20)
    assert [k for k, _ in whole] == [0] * 5 + [1] * 7 + [2] * 8
    for stop in range(20):
        first, second = toy_curriculum(*STAGES), toy_curriculum(*STAGES)
        seen = drive(first, 0, stop)
        second.load_state_dict(first.state_dict())
        assert seen + drive(second, stop, 20) == whole


def test_another_curriculum_is_refused():
    state = toy_curriculum(*STAGES).state_dict()
    with pytest.raises(ValueError, match="belongs to another curriculum; resume with the same stages"):
        toy_curriculum(stage(steps=6), *STAGES[1:]).load_state_dict(state)


def test_another_layout_of_the_same_updates_goes_on():
    first = toy_curriculum(*STAGES, accumulate=2)
    batches = iter(first)
    for _ in range(6):
        next(batches)
    second = toy_curriculum(*STAGES, accumulate=1)
    second.load_state_dict(first.state_dict())
    batches = iter(second)
    assert [next(batches).stage for _ in range(3)] == [0, 0, 1]


# ---------------------------------------------------------------- in a run
RUN = patch(CFG, {"steps": 30, "accumulate": 2, "log_every": 2, "checkpoint_every": 5})
IN_RUN = (stage(steps=9), stage(patience=2), stage())


class KilledError(Exception):
    """Stands for the end of a process."""


def run(out: Path, killed_at: int | None = None) -> Any:
    """Toy training through a curriculum; "killed" in the middle of update `killed_at`."""
    curriculum = toy_curriculum(*IN_RUN, accumulate=RUN.accumulate)

    def loss(model: Any, batch: Any, generator: torch.Generator, progress: float) -> Any:
        if killed_at is not None and progress * RUN.steps >= killed_at - 1:
            raise KilledError
        return noisy_loss(model, batch, generator, progress)

    model = toy_model()
    losses = [loss, lambda *args: (0 * loss(*args)[0] + 1.0, {}), loss]  # the second stage learns nothing
    return model, fit(model, curriculum, staged(losses), RUN, out, seed=3, observe=curriculum.observe)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    out = tmp_path_factory.mktemp("uninterrupted")
    return out, *run(out)


def test_the_stage_is_logged_and_in_the_checkpoint(uninterrupted, tmp_path, caplog):
    out, _, history = uninterrupted
    steps, values = history.curves["stage"]
    stages = dict(zip(steps.tolist(), values.tolist(), strict=True))
    assert [stages[k] for k in (2, 8, 10, 12, 14, 30)] == [1.0, 1.0, 1.5, 2.0, 2.0, 3.0]  # update 10 of 9 and 10 is in the second
    assert latest_checkpoint(out / "checkpoints").state["cursor"]["stage"] == 2
    with caplog.at_level(logging.INFO, "neurofm_ml.training.curriculum"):
        run(tmp_path)
    assert "stage 1 (multimodal) ends after 9 updates; stage 2 of 3 (multimodal)" in caplog.text
    assert "its loss no lower for 2 observations; stage 3 of 3" in caplog.text


# A checkpoint stands after every fifth update; the stages change after the ninth and, by plateau, some updates later.
@pytest.mark.parametrize("killed_at", [9, 10, 16, *(pytest.param(k, marks=pytest.mark.slow) for k in (3, 13, 17, 30))])
def test_killed_in_the_middle_or_at_a_change_it_ends_in_the_same_bits(killed_at, uninterrupted, tmp_path):
    out, whole, history = uninterrupted
    with pytest.raises(KilledError):
        run(tmp_path, killed_at)
    resumed, again = run(tmp_path)
    assert again.resumed_from == (killed_at - 1) // 5 * 5
    assert (tmp_path / "metrics.csv").read_text() == (out / "metrics.csv").read_text()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert np.array_equal(again.curves["stage"][1], history.curves["stage"][1])


def test_a_staged_batch_moves_as_a_whole():
    batch = Staged(next(iter(ToyBatches(2))), 1).to("meta")
    assert (batch.stage, batch.batch.x.device.type) == (1, "meta")


# ---------------------------------------------------------------- pretraining
def test_pretraining_through_a_curriculum_with_learned_weights(shards, scaler, monkeypatch, tmp_path):
    monkeypatch.setattr("neurofm_ml.training.pretrain.load_scaler", lambda _: scaler)
    together = {"behaviour": 1.0, "masked": 0.1, "trimodal": 0.1, "forecast": 0.1, "domains": 0.01}
    stages = [
        {"kind": "unimodal", "objectives": {"masked": 1.0}, "fusion": "none", "steps": 2},
        {"kind": "pairwise", "objectives": {"behaviour": 1.0, "jepa": 0.1}, "pairs": [["spikes", "eeg"]], "steps": 2},
        {"kind": "multimodal", "objectives": together, "fusion": "mid+late"},
    ]
    changes = {
        "train": {"steps": 6, "batch_size": 2, "log_every": 1},
        "model": {"d_model": 16, "n_heads": 2, "d_state": 4, "n_layers": 1},
        "weighting": "uncertainty",
        "sampling": {"rule": "round_robin"},
        "curriculum": stages,
    }
    report = pretrain("neurofmx", patch(presets.pretrain("tiny"), changes), [shards], [], tmp_path)
    curves = read_curves(tmp_path / "metrics.csv")
    assert curves["stage"][1].tolist() == [1, 1, 2, 2, 3, 3]
    assert [curves[name][0].tolist() for name in ("masked", "jepa", "trimodal")] == [[1, 2, 5, 6], [3, 4], [5, 6]]
    assert {f"weight/{name}" for name in {**together, "jepa": 0.1}} <= set(report.metrics)
    assert curves["weight/masked"][1][0] == pytest.approx(1.0)
    assert not any("log_variance" in name for name in load_model(tmp_path).state_dict())
