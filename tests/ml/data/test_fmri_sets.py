"""The fMRI sets of the bundle: numbers as described, events on the series' clock, and the traps among them caught."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.data import read
from neurofm_ml.data.quality import as_table, judge, measure
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, datasets
from neurofm_ml.presets import QualityConfig
from neurofm_ml.types import Array, Recording, Signal

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")


def read_set(source: str | DatasetCard) -> list[Recording]:
    recordings = read(source)
    assert isinstance(recordings, list)
    return recordings


def signal(recording: Recording, name: str = "bold") -> Signal:
    series = recording.signals[name]
    assert isinstance(series, Signal)
    return series


def correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def failed(recordings: list[Recording], card: DatasetCard) -> dict[str, str]:
    """Checks of quality that do not pass, and their notes."""
    table = as_table([row for recording in recordings for row in measure(recording, card)])
    return {check.name: check.note for check in judge(table, QualityConfig(dataset=card.name), card) if not check.passed}


# ---------------------------------------------------------------- a film
def test_adolescents_at_the_film() -> None:
    people = read_set("qtab_partlycloudy")
    assert len(people) == 59
    assert len({p.subject.family for p in people}) == 31
    ages = [p.subject.age for p in people if p.subject.age is not None]
    assert (len(ages), min(ages), max(ages)) == (59, 10, 16)
    assert {p.subject.sex for p in people} == {"male", "female"}
    assert {signal(p).values.shape for p in people} == {(380, 293)}
    assert min(float(signal(p).values.std(axis=0).min()) for p in people) > 0.9, "z-scored, none constant"
    positions = signal(people[0]).positions
    assert positions is not None
    assert (np.abs(positions).max(axis=0) < [75, 105, 75]).all(), "inside the MNI brain, millimetres"
    film = people[0].intervals["film"]
    assert (len(film.labels), film.start[0], film.end[-1]) == (19, 13, 292)
    assert set(film.labels) == {"control", "social", "pain", "mental"}
    assert film.columns["description"][2] == "Storks and clouds meeting"


def test_people_at_one_film_agree() -> None:
    """Each person against the mean of the others: the clock is one for all."""
    series = np.stack([signal(p).values for p in read_set("qtab_partlycloudy")])
    total = series.sum(axis=0)
    isc = [np.median([correlation(x[:, r], (total - x)[:, r]) for x in series]) for r in range(0, 293, 3)]
    assert np.max(isc) > 0.5
    shifted = np.roll(series[0], 40, axis=0)
    assert abs(np.median([correlation(shifted[:, r], (total - series[0])[:, r]) for r in range(293)])) < 0.1


def test_a_constant_region_in_one_person_is_named() -> None:
    people = read_set("qtab_partlycloudy")[:2]
    assert "no_channel_is_flat" not in failed(people, datasets()["qtab_partlycloudy"])
    bold = signal(people[1])
    still = dataclasses.replace(bold, values=np.where(np.arange(293) == 100, 0.25, bold.values).astype(np.float32))
    odd = dataclasses.replace(people[1], signals={"bold": still})
    note = failed([people[0], odd], datasets()["qtab_partlycloudy"])["no_channel_is_flat"]
    assert people[1].id in note
    assert people[0].id not in note


# ---------------------------------------------------------------- a story
def test_listeners() -> None:
    people = read_set("alice_listening")
    assert len(people) == 27
    assert "s33" not in {p.id for p in people}
    first = people[0]
    assert signal(first).values.shape == (362, 6)
    np.testing.assert_allclose(signal(first).values[0, :2], [72.152703, 88.942088], rtol=1e-6)
    words = first.intervals["words"]
    assert (len(words.labels), words.labels[:3]) == (2127, ("Alice", "was", "beginning"))
    assert words.end[-1] == pytest.approx(723.3351)


def test_the_ten_discarded_volumes_explain_372_rows_against_362() -> None:
    """On the card's clock the predictors for all meet those that were cut for each person; ten rows later or earlier they do not."""
    first = read_set("alice_listening")[0]
    predictors, motion = signal(first, "predictors"), signal(first, "motion")
    assert len(predictors.values) == len(motion.values) == 372
    assert predictors.t0 == motion.t0 == -20
    rate = predictors.slice(0, 724).values[:, 0]
    cut = np.loadtxt(DATA / "fmri/alice_brennan2016/alice_data_shared/s18-rate.txt")
    assert correlation(rate, cut) > 0.97
    assert abs(correlation(predictors.values[:362, 0], cut)) < 0.1


def test_series_of_different_length_on_one_clock_are_refused(tmp_path: Path) -> None:
    """The rows of discarded volumes, without a stated time: named by the reader of runs."""
    card = datasets()["haxby_wholebrain"]
    root = DATA / card.root
    (tmp_path / "haxby2001").symlink_to(root / "haxby2001")
    rows = np.loadtxt(root / "haxby2001/sub001/BOLD/task001_run001/bold_moest.txt")
    np.savetxt(tmp_path / "motion.txt", np.vstack([rows[:10], rows]))
    signals = {**card.signals, "motion": dataclasses.replace(card.signals["motion"], file="motion.txt")}
    only = (RecordingSpec(id="a", values={"subject": "sub001", "run": "run001"}),)
    with pytest.raises(ValueError, match=r"motion.txt has 131 rows for 121 volumes. .* state sfreq: 0.4 and t0"):
        read_set(dataclasses.replace(card, root=str(tmp_path), signals=signals, recordings=only))


def test_the_all_zero_subject_would_be_blocked() -> None:
    card = datasets()["alice_listening"]
    assert "channels_vary" not in failed(read_set("alice_listening")[:2], card)
    (odd,) = read_set(dataclasses.replace(card, recordings=(RecordingSpec(id="s33"),)))
    assert "s33/bold" in failed([odd], card)["channels_vary"]


# ---------------------------------------------------------------- eight categories
def test_haxby_voxels_are_the_runs_of_the_whole_file() -> None:
    import nibabel

    runs = read_set("haxby_slice")
    folder = DATA / "fmri/haxby_pymvpa"
    whole, mask = (np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj) for name in ("bold", "mask"))  # type: ignore[attr-defined]
    theirs = whole[mask > 0].T
    ours = np.concatenate([signal(run).values for run in runs])
    assert ours.shape == (1452, 530)
    np.testing.assert_array_equal(np.sort(ours, axis=1), np.sort(theirs, axis=1))
    assert {signal(run).sfreq for run in runs} == {0.4}
    assert len({run.session for run in runs}) == 1


def test_haxby_categories_lie_where_the_labels_of_volumes_do() -> None:
    """Our events against the label of every volume, which another person wrote."""
    words = [line.split() for line in (DATA / "fmri/haxby_pymvpa/attributes_literal.txt").read_text().splitlines()]
    runs = read_set("haxby_slice")
    agreed = total = 0
    for k, run in enumerate(runs):
        labels = [label for label, chunk in words if int(chunk) == k]
        shown = run.intervals["categories"]
        assert sorted(shown.labels) == sorted({label for label in labels if label != "rest"})
        for start, end, label in zip(shown.start, shown.end, shown.labels, strict=True):
            volumes = [v for v in range(121) if start <= 2.5 * v < end]
            agreed += sum(labels[v] == label for v in volumes)
            total += len(volumes)
    assert agreed / total > 0.95


def test_haxby_parcels_and_nitime_regions() -> None:
    runs = read_set("haxby_wholebrain")
    assert {signal(run).values.shape for run in runs} == {(121, 21)}
    assert signal(runs[0]).ch_names[:3] == ("1", "3", "4")
    (rest,) = read_set("nitime_rois")
    assert signal(rest).values.shape == (250, 31)
    assert signal(rest).ch_names[3] == "LCau"
    assert rest.duration == pytest.approx(472.5)
    left, right = (signal(rest).values[:, signal(rest).ch_names.index(name)] for name in ("LPut", "RPut"))
    assert correlation(left, right) > 0.4, "the two sides of one region"
