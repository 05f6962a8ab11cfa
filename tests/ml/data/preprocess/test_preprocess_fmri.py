"""Motion planted and found, confounds removed as nilearn does, spaces as nibabel does."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurofm_ml.data.preprocess import UnifiedPreprocessor
from neurofm_ml.data.preprocess.fmri import (
    correct_motion,
    dvars,
    estimate_motion,
    framewise_displacement,
    normalise,
    remove_confounds,
    resample_volume,
    rigid,
)
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, SplitSpec, StepSpec
from neurofm_ml.types import Recording, Signal, Subject

VOXEL = np.array([3.0, 3.0, 4.0])
TR = 2.0


# ---------------------------------------------------------------- indices
def test_framewise_displacement_by_hand() -> None:
    motion = np.zeros((4, 6))
    motion[1] = [0.1, -0.2, 0.3, 0.01, 0, -0.02]
    motion[2] = motion[1]
    np.testing.assert_allclose(framewise_displacement(motion), [np.nan, 0.6 + 50 * 0.03, 0, 0.6 + 50 * 0.03])


def test_dvars_by_hand() -> None:
    values = np.array([[0.0, 0], [3, 4], [3, 4], [2, 4]])
    np.testing.assert_allclose(dvars(values), [np.nan, np.sqrt(12.5), 0, np.sqrt(0.5)])


REAL = pytest.mark.skipif("NEUROFM_DATA" not in os.environ, reason="NEUROFM_DATA is not set")


@REAL
def test_dvars_rise_where_a_real_head_moved() -> None:
    import nibabel

    runs = sorted((Path(os.environ["NEUROFM_DATA"]) / "fmri/haxby_pymvpa/haxby2001/sub001/BOLD").glob("task001_run*"))
    together = []
    for run in runs:
        # FSL writes rotations first.
        moved = framewise_displacement(np.roll(np.loadtxt(run / "bold_moest.txt"), 3, axis=1))
        volumes = nibabel.load(run / "bold_1slice.nii.gz").get_fdata()  # type: ignore[attr-defined]
        changed = dvars(volumes[volumes.mean(axis=-1) > 0.4 * volumes.max()].T)
        assert 0.05 < np.nanmean(moved) < 0.2
        together.append(np.corrcoef(moved[1:], changed[1:])[0, 1])
    assert len(runs) == 12
    assert min(together) > 0.1
    assert np.mean(together) > 0.3


# ---------------------------------------------------------------- motion
def _head(shape: tuple[int, int, int] = (20, 22, 16)) -> np.ndarray:
    """Smooth blobs inside the box, in voxels."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    blobs = np.zeros(shape)
    inner = tuple(slice(4, n - 4) for n in shape)
    blobs[inner] = rng.uniform(0, 1, blobs[inner].shape) * 100
    return gaussian_filter(blobs, 1.5) * 10


PLANTED = np.array(
    [
        [0, 0, 0, 0, 0, 0],
        [0.5, -0.3, 0.8, 0.01, -0.02, 0.015],
        [-1.2, 0.9, 0.1, -0.03, 0.01, 0.04],
        [2.0, 1.0, -1.5, 0.05, 0.03, -0.02],
    ]
)


@pytest.fixture(scope="module")
def moved() -> np.ndarray:
    """The head at each planted pose: what was at x in the first volume is at rigid(x)."""
    head = _head()
    scale, centre = np.diag([*VOXEL, 1.0]), (np.array(head.shape) - 1) / 2 * VOXEL
    back = [np.linalg.inv(scale) @ np.linalg.inv(rigid(m, centre)) @ scale for m in PLANTED]
    return np.nan_to_num(np.stack([resample_volume(head, b, head.shape) for b in back], axis=3))


def test_planted_motion_is_found(moved: np.ndarray) -> None:
    found = estimate_motion(moved, VOXEL)
    np.testing.assert_allclose(found[:, :3], PLANTED[:, :3], atol=0.03)
    np.testing.assert_allclose(found[:, 3:], PLANTED[:, 3:], atol=1e-3)


def test_planted_motion_is_found_in_noise(moved: np.ndarray) -> None:
    noisy = moved + np.random.default_rng(1).normal(size=moved.shape) * 0.03 * moved.max()
    found = estimate_motion(noisy, VOXEL)
    np.testing.assert_allclose(found[:, :3], PLANTED[:, :3], atol=0.2)
    np.testing.assert_allclose(found[:, 3:], PLANTED[:, 3:], atol=0.01)


def test_corrected_volumes_lie_as_the_first(moved: np.ndarray) -> None:
    corrected = correct_motion(moved, VOXEL, estimate_motion(moved, VOXEL))
    seen = np.isfinite(corrected).all(axis=3)
    before, after = (np.abs(v[seen] - v[seen][:, :1]).mean() for v in (moved, corrected))
    assert after < 0.03 * before
    assert seen.mean() > 0.5


def test_motion_does_not_depend_on_brightness(moved: np.ndarray) -> None:
    found = estimate_motion(moved * np.array([1.5, 1, 1, 0.9]), VOXEL)
    np.testing.assert_allclose(found[:, :3], PLANTED[:, :3], atol=0.03)


@REAL
def test_motion_planted_in_a_real_head_is_found() -> None:
    import nibabel

    image = nibabel.load(Path(os.environ["NEUROFM_DATA"]) / "fmri/small_bold_nifti/example4d.nii.gz")
    head = image.get_fdata()[::2, ::2, :, 0]  # type: ignore[attr-defined]
    size = np.array([4.0, 4.0, 2.2])
    scale, centre = np.diag([*size, 1.0]), (np.array(head.shape) - 1) / 2 * size
    poses = [np.linalg.inv(scale) @ np.linalg.inv(rigid(m, centre)) @ scale for m in PLANTED[:3]]
    volumes = np.stack([resample_volume(head, pose, head.shape) for pose in poses], axis=3)
    # What came from out of view is cut off on all sides.
    seen = volumes[3:-3, 3:-3, 3:-3]
    assert np.isfinite(seen).all()
    found = estimate_motion(seen, size)
    np.testing.assert_allclose(found[:, :3], PLANTED[:3, :3], atol=0.1)
    np.testing.assert_allclose(found[:, 3:], PLANTED[:3, 3:], atol=3e-3)


def test_what_is_no_head_is_refused() -> None:
    volumes = np.random.default_rng(0).uniform(size=(8, 8, 8, 2))
    with pytest.raises(ValueError, match="could not be registered to the first in 100 steps"):
        estimate_motion(volumes, VOXEL)


def test_a_rigid_motion_turns_about_the_centre() -> None:
    centre = np.array([10.0, 20, 30])
    matrix = rigid(np.array([1, 2, 3, 0, 0, np.pi / 2]), centre)
    np.testing.assert_allclose(matrix @ [*centre, 1], [11, 22, 33, 1])
    np.testing.assert_allclose(matrix @ [11, 20, 30, 1], [11, 23, 33, 1])


@pytest.mark.parametrize(
    ("volumes", "match"),
    [
        (np.zeros((5, 5, 5)), r"motion needs \(X, Y, Z, T\)"),
        (np.zeros((9, 9, 1, 3)), "at least 4 voxels"),
        (np.full((5, 5, 5, 2), np.nan), "outside the brain to 0"),
    ],
)
def test_volumes_without_motion_are_refused(volumes: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        estimate_motion(volumes, VOXEL)


# ---------------------------------------------------------------- spaces
def test_normalising_is_that_of_nibabel() -> None:
    import nibabel
    from nibabel.processing import resample_from_to

    head = _head()
    affine = np.array([[-3, 0.1, 0, 30], [0, 3, 0.2, -30], [0, 0, 4, -30], [0, 0, 0, 1.0]])
    target = np.diag([2.0, 2.0, 2.0, 1]) + np.array([[0, 0, 0, -30.0], [0, 0, 0, -32], [0, 0, 0, -34], [0, 0, 0, 0]])
    shape = (30, 32, 34)
    warp = np.eye(4) + np.array([[0.02, 0, 0.01, 3], [0, -0.03, 0, 2], [0, 0, 0, -1], [0, 0, 0, 0]])
    # nibabel is told that the subject's voxels lie where the warp brings them.
    image = nibabel.Nifti1Image(head, np.linalg.inv(warp) @ affine)
    theirs = resample_from_to(image, (shape, target), order=1, cval=np.nan).get_fdata()
    ours = normalise(head, affine, target, shape, warp, order=1)
    np.testing.assert_allclose(ours, theirs, atol=1e-8)
    assert 0.2 < np.isfinite(ours).mean() < 1
    by_function = normalise(head, affine, target, shape, lambda mm: mm @ warp[:3, :3].T + warp[:3, 3], order=1)
    np.testing.assert_array_equal(by_function, ours)


# ---------------------------------------------------------------- confounds
@pytest.fixture(scope="module")
def series() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parcels (300, 10) of a planted signal in the band, plus confounds (300, 6) and a trend; the planted signal."""
    rng = np.random.default_rng(0)
    t = np.arange(300) * TR
    signal = np.sin(2 * np.pi * 0.04 * t[:, None] + rng.uniform(0, 6, 10))
    confounds = np.cumsum(rng.normal(size=(300, 6)), axis=0)
    mixed = signal + confounds @ rng.normal(size=(6, 10)) + 0.02 * t[:, None] + 100
    return mixed, confounds, signal


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.filterwarnings("ignore:From release 0.14.0")
def test_cleaning_is_that_of_nilearn(series: tuple[np.ndarray, ...], filtered: bool) -> None:
    from nilearn.signal import clean

    mixed, confounds, _ = series
    low, high = (0.01, 0.1) if filtered else (None, None)
    theirs = clean(mixed, confounds=confounds, t_r=TR, high_pass=low, low_pass=high, detrend=True, standardize=None)
    ours = remove_confounds(mixed, confounds, 1 / TR, low, high)
    if not filtered:
        np.testing.assert_allclose(ours, theirs, atol=1e-8)
    # Other order and other ends of the filter.
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(ours[50:-50].T, theirs[50:-50].T, strict=True)) > 0.98


def test_cleaning_leaves_the_planted_signal_and_nothing_of_the_confounds(series: tuple[np.ndarray, ...]) -> None:
    from scipy.signal import detrend

    from neurofm_ml.data.preprocess.filters import band_pass

    mixed, confounds, signal = series
    cleaned = remove_confounds(mixed, confounds, 1 / TR, 0.01, 0.1)
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(cleaned[30:-30].T, signal[30:-30].T, strict=True)) > 0.95
    nuisance = band_pass(detrend(confounds, axis=0), 1 / TR, 0.01, 0.1)
    overlap = nuisance.T @ cleaned / (np.linalg.norm(nuisance, axis=0)[:, None] * np.linalg.norm(cleaned, axis=0))
    assert np.abs(overlap).max() < 1e-10


# ---------------------------------------------------------------- in a card
def _card(step: str, **parameters: Any) -> DatasetCard:
    signals = {name: SignalSpec(modality=m) for name, m in (("fmri", "fmri"), ("motion", "physio"), ("fd", "physio"))}
    return DatasetCard(
        name="scans",
        title="Scans",
        species="Homo sapiens",
        licence="none",
        source="here",
        reader="arrays",
        signals=signals,
        preprocess=(StepSpec(step=step, parameters=parameters),),
        grid_hz=0.5,
        window_s=10,
        stride_s=10,
        split=SplitSpec(kind="subject"),
    )


def _recording(series: tuple[np.ndarray, ...], rows: int = 300) -> Recording:
    mixed, confounds, _ = series
    names = ("x", "y", "z", "rx", "ry", "rz")
    signals = {
        "fmri": Signal(mixed.astype(np.float32), 1 / TR, "fmri"),
        "motion": Signal(confounds[:rows], 1 / TR, "physio", ch_names=names),
    }
    return Recording("r", "scans", Subject("s"), "s", "Homo sapiens", "none", signals)


def test_the_steps_give_what_the_functions_give(series: tuple[np.ndarray, ...]) -> None:
    mixed, confounds, _ = series
    done = UnifiedPreprocessor(_card("remove_confounds", confounds="motion", columns=["x", "rz"], low_hz=0.01))(_recording(series))
    cleaned = done.signals["fmri"]
    assert isinstance(cleaned, Signal)
    np.testing.assert_allclose(cleaned.values, remove_confounds(mixed, confounds[:, [0, 5]], 1 / TR, 0.01), atol=1e-3)
    made = UnifiedPreprocessor(_card("framewise_displacement", into="fd", order="rotations first"))(_recording(series)).signals["fd"]
    assert isinstance(made, Signal)
    np.testing.assert_allclose(made.values[:, 0], framewise_displacement(np.roll(confounds, 3, axis=1)), rtol=1e-5)
    assert (made.ch_names, made.unit, made.modality) == (("framewise_displacement",), "mm", "physio")
    made = UnifiedPreprocessor(_card("dvars", into="fd"))(_recording(series)).signals["fd"]
    assert isinstance(made, Signal)
    assert made.modality == "physio"


@pytest.mark.parametrize(
    ("step", "parameters", "match"),
    [
        ("remove_confounds", {"confounds": "rp"}, "confounds is 'rp'; the signals are fmri, motion"),
        ("remove_confounds", {"confounds": "motion", "columns": ["w"]}, "columns names w; the channels are x"),
        ("framewise_displacement", {"into": "fd", "columns": ["x", "y"]}, "motion has 2 channels"),
        ("framewise_displacement", {"into": "moved"}, "name it among the card's signals too"),
        ("dvars", {"into": "motion"}, "into is 'motion', which is there already"),
    ],
)
def test_wrong_parameters_are_refused(series: tuple[np.ndarray, ...], step: str, parameters: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        UnifiedPreprocessor(_card(step, **parameters))(_recording(series))


def test_confounds_of_other_length_or_with_holes_are_refused(series: tuple[np.ndarray, ...]) -> None:
    preprocessor = UnifiedPreprocessor(_card("remove_confounds", confounds="motion"))
    with pytest.raises(ValueError, match=r"fmri has 300 rows at 0.5 Hz, motion 290 at 0.5 Hz; cut them to the same volumes"):
        preprocessor(_recording(series, rows=290))
    whole = _recording(series)
    holed = np.array(whole.signals["motion"].values)
    holed[0] = np.nan
    motion = dataclasses.replace(whole.signals["motion"], values=holed)
    with pytest.raises(ValueError, match="6 of 4800 values are NaN"):
        preprocessor(whole.with_signals({**whole.signals, "motion": motion}, "n/a in the first row"))
