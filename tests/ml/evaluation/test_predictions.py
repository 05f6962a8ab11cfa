"""Predictions survive a trip to disk, or are refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.data.predictions import Prediction, load_predictions, save_prediction


def test_what_is_saved_is_what_is_loaded(make_prediction: Callable[..., Prediction], tmp_path: Path) -> None:
    saved = [make_prediction(recording="r/1 a", control=0.01), make_prediction(method="scratch", k_shot=25.0, units=np.arange(400) // 20)]
    assert save_prediction(saved[0], tmp_path).name == "toy-r_1_a-velocity-ours.npz"
    save_prediction(saved[1], tmp_path)
    loaded = load_predictions(tmp_path)
    assert len(loaded) == 2
    for before, after in zip(reversed(saved), loaded, strict=True):  # by file name: "r1" before "r_1"
        for field in dataclasses.fields(Prediction):
            np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name))


def test_a_folder_without_predictions_has_none(tmp_path: Path) -> None:
    assert load_predictions(tmp_path / "predictions") == []


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b""])
def test_a_damaged_file_is_refused(make_prediction: Callable[..., Prediction], tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = save_prediction(make_prediction(), tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"r1-velocity-ours\.npz is no whole prediction"):
        load_predictions(tmp_path)
