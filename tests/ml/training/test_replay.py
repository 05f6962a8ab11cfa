"""The last updates made again: from which checkpoint, and what is said of a run that does not come back to its weights."""

from pathlib import Path

import pytest
import torch

from neurofm_ml.training.replay import resume_is_exact


def checkpoints(out: Path, steps: list[int]) -> None:
    for step in steps:
        (out / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)


@pytest.mark.parametrize("moved", [0.0, 0.5])
def test_weights_that_come_back_otherwise_are_told(tmp_path: Path, moved: float) -> None:
    checkpoints(tmp_path, [999_990, 1_000_000, 90])
    weights, started = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor(4)}, list[str]()

    def train(folder: Path) -> dict[str, torch.Tensor]:
        started.extend(path.name for path in (folder / "checkpoints").iterdir())
        return {**weights, "a": torch.tensor([3.0, moved])}

    check = resume_is_exact(train, weights, tmp_path)
    assert started == ["step-999990"]
    assert check.passed == (moved == 0)
    assert check.numbers == {"distance": moved / 5, "updates_made_again": 10}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_one_checkpoint_proves_nothing(tmp_path: Path) -> None:
    checkpoints(tmp_path, [8])
    check = resume_is_exact(lambda _: pytest.fail("trained"), {}, tmp_path)
    assert not check.passed
    assert "one checkpoint alone" in check.note
