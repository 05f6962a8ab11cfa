"""Tasks of real recordings: plain baselines reach what is known of them, and nothing where labels belong to another time."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.config import to_dict
from neurofm_ml.data import read
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.evaluation.baselines.baselines import roots
from neurofm_ml.evaluation.baselines.knn import fit_knn
from neurofm_ml.evaluation.baselines.ridge import fit_ridge
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase, find_label_cases
from neurofm_ml.evaluation.tasks.tasks import Case, find_cases
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.metrics import auroc
from neurofm_ml.presets import ShardsConfig
from neurofm_ml.types import Array, Recording

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def shards_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        card, folder, found = datasets()[name], tmp_path_factory.mktemp(name), read(name)
        (folder / "shards").mkdir()
        assert isinstance(found, list)
        for recording in found:
            assert isinstance(recording, Recording)
            save_recording(recording, folder / "recordings" / "recordings")
        (folder / "recordings" / "card.json").write_text(json.dumps(to_dict(card)))
        shard_recordings(ShardsConfig(dataset=name), folder / "recordings", folder / "shards")
        return folder / "shards"

    return make


def case_of(shards: Path, task: str) -> Case:
    (case,) = (case for case in find_cases(shards, []) if case.task.name == task)
    return case


def test_running_speed_is_in_theta_and_not_in_another_time(shards_of: Callable[[str], Path]) -> None:
    data = case_of(shards_of("rat_mec_r1838"), "speed_from_lfp").data
    assert data.r2("test", fit_knn(data).predict(data.x["test"])) > 0.4
    elsewhere = data.with_rolled_labels()
    assert elsewhere.r2("test", fit_knn(elsewhere).predict(data.x["test"])) < 0.05


def test_head_direction_is_decoded_within_twenty_degrees(shards_of: Callable[[str], Path]) -> None:
    """Of the recording awake alone: the others have no head direction. Whole states are told apart in every part of the split."""
    shards = shards_of("mouse_hd_peyrache")
    case = case_of(shards, "head_direction")
    assert case.recording == "run"
    said, truth = fit_ridge(case.data, roots(case.data)).predict(roots(case.data)["test"]), case.data.y["test"]
    off = np.angle(np.exp(1j * (np.arctan2(said[:, 1], said[:, 0]) - np.arctan2(truth[:, 1], truth[:, 0]))))
    assert np.degrees(np.median(np.abs(off))) < 20
    (state,) = find_label_cases(shards, [])
    assert all(set(state.data.labels(split)) == {0, 1, 2} for split in ("train", "validation", "test"))


def test_reversals_of_a_worm_are_ranked_above_the_rest(shards_of: Callable[[str], Path]) -> None:
    data = case_of(shards_of("worm_swf702"), "reversal").data
    assert set(np.unique(data.y["test"])) == {0, 1}
    assert auroc(data.y["test"][:, 0], fit_ridge(data, data.x).predict(data.x["test"])[:, 0]) > 0.78


def counted(case: LabelCase, split: str) -> Array:
    """(n, C) square roots of the spikes of each window."""
    return np.sqrt([signal.values.sum(0) for signal in case.data.windows(split)])


def test_every_part_of_the_split_has_every_reach_and_counts_tell_them_apart(shards_of: Callable[[str], Path]) -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    (case,) = find_label_cases(shards_of("monkey_reach_datahigh"), [])
    assert {split: np.bincount(case.data.labels(split).astype(int)).tolist() for split in ("train", "validation", "test")} == {
        "train": [18] * 7, "validation": [5] * 7, "test": [8] * 7,
    }  # fmt: skip
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(counted(case, "train"), case.data.labels("train"))
    assert lda.score(counted(case, "test"), case.data.labels("test")) > 0.9


def test_every_part_of_the_split_has_every_kind_of_stimulus_once_per_trial(shards_of: Callable[[str], Path]) -> None:
    stimulus, odour = find_label_cases(shards_of("mouse_2p_biane"), [])
    rows, y = stimulus.data.rows, stimulus.data.y
    trials = rows.assign(y=y).groupby("trial")
    assert (trials.y.nunique() == 1).all()
    assert (trials.split.nunique() == 1).all()
    test = rows.assign(y=y)[rows.split == "test"]
    assert test.groupby("y").trial.nunique().tolist() == [18, 18, 6, 6]
    assert set(odour.data.labels("test")) == {0, 1}
