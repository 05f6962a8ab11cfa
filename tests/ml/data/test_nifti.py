"""fMRI in NIfTI: parcels and voxels against nilearn and written truth, the header against the card, what is no run refused."""

import dataclasses
import gzip
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from neurofm_ml.data import read
from neurofm_ml.data.readers import nifti
from neurofm_ml.data.readers.nifti import on_grid, read_bold
from neurofm_ml.data.readers.positions import centroids, positions_of, read_atlas
from neurofm_ml.knowledge.cards import DatasetCard, IntervalSpec, RecordingSpec, SignalSpec
from neurofm_ml.types import Array, Recording, Signal

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
FMRI = DATA / "fmri"
real = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")

SHAPE = (6, 5, 4)
AFFINE = np.array([[-3.0, 0, 0, 9], [0, 3.0, 0, -6], [0, 0, 3.5, 1], [0, 0, 0, 1]])
RNG = np.random.default_rng(0)
RUN = RNG.normal(100, 10, (*SHAPE, 12)).astype(np.float32)
LABELS = RNG.integers(0, 4, SHAPE).astype(np.int16) * 5


def write(path: Path, values: Array, *, tr: float = 2.0, unit: str = "sec", affine: Array = AFFINE) -> Path:
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = tr
    nibabel.save(image, path)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write(tmp_path / "run.nii.gz", RUN)


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    return write(tmp_path / "atlas.nii.gz", LABELS)


# ---------------------------------------------------------------- what is read
def test_parcels_are_means_of_their_voxels(run: Path, atlas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bold, notes = read_bold(run, atlas)
    assert (bold.ch_names, bold.sfreq, bold.values.dtype) == (("5", "10", "15"), 0.5, np.float32)
    np.testing.assert_allclose(bold.values, np.stack([RUN[label == LABELS].mean(axis=0) for label in (5, 10, 15)], axis=1), rtol=1e-6)
    assert notes == ()
    assert bold.positions is not None
    np.testing.assert_allclose(bold.positions[1], nibabel.affines.apply_affine(AFFINE, np.argwhere(LABELS == 10)).mean(axis=0))
    monkeypatch.setattr(nifti, "BLOCK_BYTES", 5 * 8 * LABELS.size)
    np.testing.assert_array_equal(read_bold(run, atlas)[0].values, bold.values, err_msg="blocks of 5 volumes")


def test_voxels_of_a_mask(run: Path, atlas: Path) -> None:
    bold, _ = read_bold(run, mask=atlas)
    assert len(bold.ch_names) == (LABELS > 0).sum()
    for channel in (0, 7):
        i, j, k = map(int, bold.ch_names[channel].split("-"))
        np.testing.assert_array_equal(bold.values[:, channel], RUN[i, j, k])
        assert bold.positions is not None
        np.testing.assert_allclose(bold.positions[channel], AFFINE[:3, :3] @ (i, j, k) + AFFINE[:3, 3])
    assert len(read_bold(run)[0].ch_names) == LABELS.size


def test_an_atlas_on_another_grid_gives_the_nearest_voxel(run: Path, tmp_path: Path) -> None:
    """Every voxel of the run, mapped by hand."""
    fine = np.diag([1.5, 1.5, 2.0, 1.0])
    fine[:3, 3] = (-9.2, -8.1, -1.3)
    path = write(tmp_path / "fine.nii.gz", RNG.integers(0, 9, (12, 14, 8)).astype(np.int16), affine=fine)
    got = on_grid(read_atlas(path), SHAPE, AFFINE)
    labels = np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
    for voxel in np.ndindex(SHAPE):
        mm = AFFINE[:3, :3] @ voxel + AFFINE[:3, 3]
        near = np.round((mm - fine[:3, 3]) / np.diag(fine)[:3]).astype(int)
        inside = ((near >= 0) & (near < labels.shape)).all()
        assert got[voxel] == (labels[tuple(near)] if inside else 0)
    assert "fine.nii.gz brought to the run's grid (nearest neighbour)" in read_bold(run, path)[1]


def test_parcels_outside_the_view_are_left_out_by_name_and_empty_ones_kept(tmp_path: Path) -> None:
    labels = np.zeros((9, *SHAPE[1:]), np.int16)
    labels[0], labels[2], labels[8] = 1, 2, 3
    values = RUN.copy()
    values[2] = 0
    path = write(tmp_path / "run.nii", values)
    bold, notes = read_bold(path, write(tmp_path / "wide.nii", labels))
    assert bold.ch_names == ("1", "2")
    assert notes[1:] == ("parcels of wide.nii outside the field of view, left out: 3", "parcels that are all zero: 2")


def test_a_run_beside_its_confounds(run: Path, atlas: Path, tmp_path: Path) -> None:
    rows = RNG.normal(size=(12, 3))
    text = "trans_x\ttrans_y\tcsf\n" + "\n".join("\t".join(f"{v:.6f}" for v in row) for row in rows)
    (tmp_path / "run_desc-confounds_timeseries.tsv").write_text(text.replace(f"{rows[0, 2]:.6f}", "n/a"))
    (tmp_path / "run_events.tsv").write_text("onset\tduration\ttrial_type\n2\t4\tface\n10.0\t4\thouse\n")
    confounds = SignalSpec(modality="physio", file="{id}_desc-confounds_timeseries.tsv", variable=("csf", "trans_x"))
    card = make_card(tmp_path, {"bold": SignalSpec(modality="fmri", positions="atlas.nii.gz"), "confounds": confounds})
    events = IntervalSpec(file="{id}_events.tsv", duration="duration", label="trial_type")
    card = dataclasses.replace(card, intervals={"events": events})
    (recording,) = read_all(card)
    assert (recording.intervals["events"].labels, recording.intervals["events"].end.tolist()) == (("face", "house"), [6, 14])
    beside = recording.signals["confounds"]
    assert isinstance(beside, Signal)
    assert (beside.sfreq, beside.ch_names) == (0.5, ("csf", "trans_x"))
    np.testing.assert_allclose(beside.values[:, 1], rows[:, 0], atol=1e-6)
    assert np.isnan(beside.values[0, 0])
    (tmp_path / "run_desc-confounds_timeseries.tsv").write_text(text + "\n0\t0\t0")
    with pytest.raises(
        ValueError, match=r"has 13 rows for 12 volumes. Where rows of discarded volumes come first, state sfreq: 0.5 and t0"
    ):
        read_all(card)


def make_card(root: Path, signals: dict[str, SignalSpec]) -> DatasetCard:
    common = {"title": "t", "species": "s", "licence": "l", "source": "me", "grid_hz": 0.5, "window_s": 8, "stride_s": 4}
    return DatasetCard(
        name="d", reader="nifti", root=str(root), pattern="{id}.nii.gz", signals=signals, recordings=(RecordingSpec(id="run"),), **common
    )  # type: ignore[arg-type]


def read_all(card: DatasetCard) -> list[Recording]:
    recordings = read(card)
    assert isinstance(recordings, list)
    return recordings


def test_positions_from_a_table(tmp_path: Path) -> None:
    (tmp_path / "places.csv").write_text("name,x,y,z\na,1,2,3\nb,-4,5,6.5\n")
    spec = SignalSpec(modality="fmri", positions="places.csv")
    card = make_card(tmp_path, {"bold": spec})
    np.testing.assert_array_equal(positions_of(card, spec, ("0", "1")), [[1, 2, 3], [-4, 5, 6.5]])
    with pytest.raises(ValueError, match=r"places.csv has 2 rows for 3 channels; they must agree"):
        positions_of(card, spec, ("0", "1", "2"))
    (tmp_path / "places.csv").write_text("name,x,y\na,1,2\n")
    with pytest.raises(ValueError, match=r"places.csv has no column z"):
        positions_of(card, spec, ("0",))


def test_memory_holds_a_block_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.zeros((20, 20, 20, 300), np.int16)
    path = write(tmp_path / "long.nii.gz", values)
    mask = write(tmp_path / "mask.nii", np.ones((20, 20, 20), np.int16) * (np.arange(20) < 1))
    monkeypatch.setattr(nifti, "BLOCK_BYTES", 500_000)
    read_bold(path, mask)
    tracemalloc.start()
    read_bold(path, mask)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.size * 8 / 5, "float64 of the whole run would be 19 MB"


# ---------------------------------------------------------------- the clock
@pytest.mark.parametrize(
    ("tr", "unit", "sfreq"), [(2.0, "sec", 0.5), (800, "msec", 1.25), (1.35, "sec", 0.740740741), (720_000, "usec", 1.388888889)]
)
def test_the_rate_is_the_header_s(tmp_path: Path, tr: float, unit: str, sfreq: float) -> None:
    assert read_bold(write(tmp_path / "a.nii", RUN, tr=tr, unit=unit))[0].sfreq == pytest.approx(sfreq, rel=1e-9)


def test_the_card_overrides_the_header_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", RUN, tr=2000)
    bold, notes = read_bold(path, sfreq=0.5)
    assert bold.sfreq == 0.5
    assert notes == ("0.5 Hz stated; the file's repetition time is 2000 in the unit 'sec'",)
    assert read_bold(write(tmp_path / "b.nii", RUN), sfreq=0.5)[1] == ()
    recording = read(path, SignalSpec(modality="fmri", sfreq=0.5))
    assert isinstance(recording, Recording)
    assert recording.signals["fmri"].span == (0, 24)


# ---------------------------------------------------------------- what is no run
def five_d(path: Path) -> None:
    write(path, RUN.reshape(*SHAPE, 4, 3))


def three_d(path: Path) -> None:
    write(path, RUN[..., 0])


def nan_map(path: Path) -> None:
    write(path, np.where(LABELS == 5, np.nan, RUN[..., 0]).astype(np.float32))


def no_affine(path: Path) -> None:
    image = nibabel.Nifti1Image(RUN, None)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2
    nibabel.save(image, path)


def not_finite(path: Path) -> None:
    write(path, np.where(np.arange(12) == 3, np.nan, RUN).astype(np.float32))


def cut_short(path: Path) -> None:
    write(path, RUN)
    path.write_bytes(path.read_bytes()[:-2000])


def no_nifti(path: Path) -> None:
    path.write_bytes(gzip.compress(b"some words " * 100))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (five_d, r"a.nii.gz has 5 dimensions \(6, 5, 4, 4, 3\); a run has four"),
        (three_d, r"a.nii.gz is one volume \(6, 5, 4\): a map, mask or anatomy. A recording needs volumes over time"),
        (nan_map, r"is one volume \(6, 5, 4\), \d+.\d% of it NaN"),
        (no_affine, "has no affine .sform and qform codes are 0."),
        (not_finite, "120 channels hold values that are not finite, first 0-0-0 at volume 3; repair the run"),
        (cut_short, "a.nii.gz: it is cut short or damaged at volume 0 of 12"),
        (no_nifti, "a.nii.gz is damaged or no NIfTI"),
        (lambda path: write(path, RUN, tr=2000), "its repetition time is 2000 in the unit 'sec', which no scanner has .*sfreq in the card"),
        (lambda path: write(path, RUN, tr=0), "its repetition time is 0 in the unit 'sec'"),
        (lambda path: write(path, RUN, unit="unknown"), "its repetition time is 2 in the unit 'unknown'"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, make: Callable[[Path], None], match: str) -> None:
    make(tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match=match):
        read(tmp_path / "a.nii.gz")


def test_a_surface_series_is_no_run(tmp_path: Path) -> None:
    axes = nibabel.cifti2.SeriesAxis(0, 0.72, 5), nibabel.cifti2.ScalarAxis(["a", "b"])
    nibabel.save(nibabel.Cifti2Image(np.zeros((5, 2), np.float32), axes), tmp_path / "a.dtseries.nii")
    with pytest.raises(ValueError, match=r"a.dtseries.nii is Cifti2Image \(5, 2\), no volumes: bring surfaces to parcels"):
        read(tmp_path / "a.dtseries.nii")


def test_bad_atlases_and_masks_are_refused(run: Path, tmp_path: Path) -> None:
    for values, match in (
        (LABELS / 2, "is no atlas of labels: voxels need whole numbers"),
        (LABELS * 0, "is no atlas of labels"),
        (RUN, r"has the shape \(6, 5, 4, 12\); an atlas of labels is one volume"),
    ):
        path = write(tmp_path / f"{len(match)}.nii", values.astype(np.float32))
        with pytest.raises(ValueError, match=match):
            read_bold(run, path)
    elsewhere = AFFINE.copy()
    elsewhere[:3, 3] = 500
    away = write(tmp_path / "away.nii", LABELS, affine=elsewhere)
    with pytest.raises(ValueError, match=r"no parcel of .*away.nii lies in its field of view; bring both to the same space"):
        read_bold(run, away)
    with pytest.raises(ValueError, match="0 voxels would be channels"):
        read_bold(run, mask=away)
    big = write(tmp_path / "big.nii", np.zeros((40, 40, 40, 2), np.int16))
    with pytest.raises(ValueError, match="64000 voxels would be channels; name an atlas"):
        read_bold(big)


# ---------------------------------------------------------------- real files
@real
def test_parcels_agree_with_nilearn() -> None:
    """A424 on 2 mm voxels against a run of 4 x 4 x 8 mm: the labels in view and their series."""
    from nilearn.maskers import NiftiLabelsMasker

    run, atlas = FMRI / "small_bold_nifti/functional.nii", FMRI / "atlases_gradients/brainlm_A424/A424.nii.gz"
    ours, notes = read_bold(run, atlas)
    masker = NiftiLabelsMasker(str(atlas), resampling_target="data", keep_masked_labels=False, standardize=None)
    with pytest.warns(UserWarning, match="."):
        theirs = masker.fit_transform(str(run))
    assert ours.ch_names == tuple(str(int(label)) for key, label in masker.region_ids_.items() if key != "background")
    np.testing.assert_allclose(ours.values, theirs, rtol=1e-6)
    assert len(ours.ch_names) == 50
    assert "left out: 1, 2, 3" in notes[1]


@real
def test_the_atlas_that_lacks_a_parcel() -> None:
    folder = FMRI / "atlases_gradients/brainlm_A424"
    whole = {str(label) for label in range(1, 425)}
    assert whole - set(centroids(folder / "A424.nii.gz")) == {"120"}
    assert set(centroids(folder / "A424+2mm.nii.gz")) == whole


@real
@pytest.mark.parametrize(
    ("file", "match"),
    [
        ("small_bold_nifti/example4d.nii.gz", "its repetition time is 2000 in the unit 'sec'"),
        ("small_bold_nifti/anatomical.nii", r"is one volume \(33, 41, 25\)"),
        ("stat_maps/motor_lips_nan.nii.gz", r"is one volume \(91, 109, 91\), 4.6% of it NaN: a map"),
        ("stat_maps/image_10426.nii.gz", r"is one volume \(53, 63, 46\): a map"),
        ("nimare_pain21/cropped_images/mask.nii.gz", r"is one volume \(10, 10, 10, 1\)"),
    ],
)
def test_real_files_that_are_no_run(file: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        read(FMRI / file)


@real
def test_a_real_run_whose_time_is_in_milliseconds_reads_with_a_stated_rate() -> None:
    recording = read(FMRI / "small_bold_nifti/fmri1.nii.gz")
    assert isinstance(recording, Recording)
    assert recording.signals["fmri"].span == pytest.approx((0, 54))
    atlas = FMRI / "atlases_gradients/pcp_rois/CC200.nii.gz"
    bold, notes = read_bold(FMRI / "small_bold_nifti/example4d.nii.gz", atlas, sfreq=0.5)
    assert bold.values.shape == (2, len(bold.ch_names))
    assert "2000" in notes[0]


@real
def test_a_real_run_folded_to_five_dimensions_is_refused(tmp_path: Path) -> None:
    image = nibabel.load(FMRI / "small_bold_nifti/fmri1.nii.gz")  # type: ignore[attr-defined]
    write(tmp_path / "a.nii", np.asarray(image.dataobj).reshape(10, 10, 18, 20, 2), affine=image.affine)
    with pytest.raises(ValueError, match=r"has 5 dimensions \(10, 10, 18, 20, 2\)"):
        read(tmp_path / "a.nii")
