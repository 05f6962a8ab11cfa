"""Views of windows: who is averaged over what, and channels that are not everywhere."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from planted_labels import Windows, case_of, changed, planted

from neurofm_ml.evaluation.label_baselines import LABEL_BASELINES
from neurofm_ml.evaluation.label_baselines.registry import CONNECTIVITY, COURSES, PAIRS
from neurofm_ml.evaluation.label_baselines.views import View, are_known, look, shared_channels
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase, leave_sites_out
from neurofm_ml.presets import SPLITS, BaselinesConfig

CFG = BaselinesConfig(dataset="toy")


# ---------------------------------------------------------------- people
@pytest.mark.parametrize("view", [PAIRS[0], COURSES[0], CONNECTIVITY[0]], ids=lambda view: view.name)
def test_people_are_read_once_whoever_is_left_out(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    case = planted("fmri", n_classes=2, of_subject=True)
    sites = changed(case, site=np.where(np.arange(len(case.sources[0].y)) // 4 % 2, "here", "there"))
    fresh = [look(one.data, view) for site in ("here", "there") for one in leave_sites_out(changed(sites)) if one.left_out == site]
    whole = look(sites.data, view)
    monkeypatch.setattr(Windows, "read", None)
    other = look(case_of(sites.sources[0], dataclasses.replace(sites.task, name="sex")).data, view)
    np.testing.assert_array_equal(other.x["test"], whole.x["test"])
    for one, alone in zip(leave_sites_out(sites), fresh, strict=True):
        found = look(one.data, view)
        assert len(found.x["test"]) != len(whole.x["test"])
        assert found.seconds > 0
        for split in SPLITS:
            np.testing.assert_array_equal(found.x[split], alone.x[split])


@pytest.mark.parametrize("view", [PAIRS[0], COURSES[0]], ids=lambda view: view.name)
def test_people_whose_recordings_are_cut_in_time_are_other_windows_in_each_split(view: View) -> None:
    case = planted("fmri", n_classes=2, of_subject=True)
    source = case.sources[0]
    recording = np.array([f"r{k % 10}" for k in range(len(source.y))])
    table = look(changed(case, recording=recording, y=np.arange(len(recording)) % 2.0).data, view)
    alone = np.array([f"{split}-{name}" for split, name in zip(source.split, recording, strict=True)])
    apart = look(changed(case, recording=alone, y=np.arange(len(recording)) % 2.0).data, view)
    assert not np.isclose(table.x["train"], table.x["test"]).any()
    for split in SPLITS:
        np.testing.assert_array_equal(table.x[split], apart.x[split])


def test_of_noise_nothing_is_found_in_people_whose_recordings_are_cut_in_time(tmp_path: Path) -> None:
    """As many features as people: who was trained on is known by heart, unless the windows are new."""
    case = planted("fmri", n_classes=2, of_subject=True)
    n, rng = len(case.sources[0].y), np.random.default_rng(3)
    recording = np.array([f"r{k % 10}" for k in range(n)])
    noise = changed(case, values=[rng.normal(size=(60, 5)) for _ in range(n)], recording=recording, y=np.arange(n) % 2.0)
    assert LABEL_BASELINES["fc_logistic"](noise, CFG, tmp_path).value < 0.8


# ---------------------------------------------------------------- channels that are not everywhere
def two_sessions(modality: str) -> LabelCase:
    """Windows of two caps by turns: the second lacks channel c1 and has another one."""
    case = planted(modality)
    session = np.where(np.arange(len(case.sources[0].y)) % 2, "t", "s")
    names = {"s": ("c0", "c1", "c2", "c3", "c4"), "t": ("c4", "c3", "c2", "c0", "new")}
    order = [4, 3, 2, 0, 1]
    values = [v[:, order] if s == "t" else v for v, s in zip(case.sources[0].values, session, strict=True)]
    return changed(case, values=values, session=session, names=names)


def test_channels_stand_in_a_column_each_whatever_their_order() -> None:
    case, whole = two_sessions("fmri"), planted("fmri")
    found, every = look(case.data, COURSES[0]).x["train"], look(whole.data, COURSES[0]).x["train"]
    assert found.shape == (60, 6)
    assert (found[1::2, 1] == 0).all()
    assert (found[::2, 5] == 0).all()
    np.testing.assert_allclose(found[:, [0, 2, 3, 4]], every[:, [0, 2, 3, 4]])


def test_pairs_are_of_channels_that_all_windows_have() -> None:
    case, whole = two_sessions("fmri"), planted("fmri")
    assert shared_channels(case.data) == ["x/c0", "x/c2", "x/c3", "x/c4"]
    four = changed(whole, values=[v[:, [0, 2, 3, 4]] for v in whole.sources[0].values], names={"s": ("c0", "c2", "c3", "c4")})
    for view in (PAIRS[0], CONNECTIVITY[0]):
        np.testing.assert_allclose(look(case.data, view).x["test"], look(four.data, view).x["test"], atol=1e-9)


def test_people_of_sessions_with_other_numbers_of_channels_stand_side_by_side() -> None:
    case = planted("fmri", n_classes=2, of_subject=True)
    source = case.sources[0]
    session = np.where(np.arange(len(source.y)) // 2 % 2, "t", "s")
    names = {"s": ("c0", "c1", "c2"), "t": ("c2", "c0")}
    values = [v[:, [0, 1, 2] if s == "s" else [2, 0]] for v, s in zip(source.values, session, strict=True)]
    cut = changed(case, values=values, session=session, names=names)
    whole = changed(case, values=[v[:, :3] for v in source.values], names={"s": names["s"]})
    lack = session[np.unique(source.recording[source.split == "train"], return_index=True)[1]] == "t"
    for view in COURSES:
        found, every = (look(one.data, view).x["train"].reshape(30, 3, -1) for one in (cut, whole))
        np.testing.assert_allclose(found[:, [0, 2]], every[:, [0, 2]])
        assert (found[lack, 1] == 0).all()
        assert (found[~lack, 1] != 0).all()
    both = changed(case, values=[v[:, [0, 2]] for v in source.values], names={"s": ("c0", "c2")})
    np.testing.assert_allclose(look(cut.data, PAIRS[0]).x["test"], look(both.data, PAIRS[0]).x["test"])


def test_units_belong_to_their_session() -> None:
    case = two_sessions("spikes")
    assert look(case.data, COURSES[0]).x["train"].shape == (60, 10)
    held_out = changed(case, session=np.where(case.sources[0].split == "test", "t", "s"))
    assert are_known(case.data)
    assert not are_known(held_out.data)
    assert not LABEL_BASELINES["course_linear"].applies(held_out)
    assert LABEL_BASELINES["population_linear"].applies(held_out)


def test_correlations_with_an_empty_parcel_are_those_of_the_others_in_the_mean() -> None:
    case = planted("fmri")
    values = [v.copy() for v in case.sources[0].values]
    values[0][:, 0] = 7.0
    found = look(changed(case, values=values).data, PAIRS[0]).x["train"]
    assert (found[0, :4] == 0).all()
    assert (found[0, 4:] != 0).all()
    np.testing.assert_allclose(found[:, 4:].mean(0), 0, atol=1e-12)


def test_people_with_other_windows_are_averaged_where_they_are_known() -> None:
    case = planted("fmri", of_subject=True, n_classes=2)
    values = [v.copy() for v in case.sources[0].values]
    values[0][:] = np.nan
    means = look(changed(case, values=values).data, COURSES[0]).x["train"]
    alone = look(changed(case, values=[values[1], *values[1:]]).data, COURSES[0]).x["train"]
    np.testing.assert_allclose(means, alone)
