"""BIDS folders: which tables hold for a recording, and what they say of its channels, electrodes, events and person."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_electrophysiology import write_edf

from neurofm_ml.data import read
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec
from neurofm_ml.types import Recording, Signal, Subject

CHANNELS = "name\ttype\tunits\tstatus\nA1\tECOG\tµV\tgood\nA2\tECOG\tµV\tbad\nG\tMISC\tµV\tgood\nE\tVEOG\tµV\tn/a\n"
EVENTS = "onset\tduration\ttrial_type\tvalue\tresponse_time\n1.5\t0.25\tstop\t2\tn/a\n0.5\tn/a\tgo\t1\t0.3\n"
ELECTRODES = "name\tx\ty\tz\nA1\t10\t20\t30\nA2\t11\t21\t31\nG\tn/a\tn/a\tn/a\n"


def write_dataset(root: Path) -> Path:
    """Two people; the second in two sessions, of which the second has events and electrodes of its own."""
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Grips", "BIDSVersion": "1.8.0", "License": "CC0"}))
    (root / "participants.tsv").write_text("participant_id\tage\tsex\tsite\nsub-01\tn/a\tn/a\tParis\nsub-02\t34\tF\tn/a\n", "utf-8-sig")
    (root / "task-grip_channels.tsv").write_text(CHANNELS)
    (root / "task-grip_events.tsv").write_text(EVENTS)
    for name in ("sub-01/ieeg/sub-01", "sub-02/ses-1/ieeg/sub-02_ses-1", "sub-02/ses-2/ieeg/sub-02_ses-2"):
        path = root / f"{name}_task-grip_ieeg.edf"
        path.parent.mkdir(parents=True)
        write_edf(path, ("A1", "A2", "G", "E"))
    last = root / "sub-02/ses-2/ieeg/sub-02_ses-2"
    Path(f"{last}_task-grip_events.tsv").write_text("onset\tduration\n1\t1\n")
    Path(f"{last}_space-MNI_electrodes.tsv").write_text(ELECTRODES)
    Path(f"{last}_space-MNI_coordsystem.json").write_text('{"iEEGCoordinateUnits": "mm"}')
    return root


def recordings(root: Path) -> list[Recording]:
    found = read(root)
    assert isinstance(found, list)
    return found


def signal(recording: Recording, name: str) -> Signal:
    series = recording.signals[name]
    assert isinstance(series, Signal)
    return series


def test_a_folder_is_a_dataset(tmp_path: Path) -> None:
    one, two, three = recordings(write_dataset(tmp_path))
    assert [r.id for r in (one, two, three)] == ["sub-01_task-grip", "sub-02_ses-1_task-grip", "sub-02_ses-2_task-grip"]
    assert [r.session for r in (one, two, three)] == ["sub-01", "sub-02_ses-1", "sub-02_ses-2"]
    assert (one.dataset, one.licence, one.species) == ("Grips", "CC0", "Homo sapiens")
    assert one.subject == Subject("01", site="Paris")
    assert two.subject == three.subject == Subject("02", age=34.0, sex="female")


def test_tables_say_what_channels_are(tmp_path: Path) -> None:
    one, *_ = recordings(write_dataset(tmp_path))
    assert {name: (s.modality, s.ch_names, s.unit) for name in one.signals if (s := signal(one, name))} == {
        "ecog": ("ecog", ("A1", "A2"), "V"), "misc": ("physio", ("G",), "V"), "eog": ("physio", ("E",), "V")
    }  # fmt: skip
    assert "marked as bad: A2" in one.history


def test_the_nearest_table_holds(tmp_path: Path) -> None:
    one, _, three = recordings(write_dataset(tmp_path))
    events = one.intervals["events"]
    assert (events.start.tolist(), events.end.tolist(), events.labels) == ([0.5, 1.5], [0.5, 1.75], ("go", "stop"))
    np.testing.assert_array_equal(events.columns["response_time"], [0.3, np.nan])
    assert any("task-grip_events.tsv: 1 of 2 have no duration and are instants" in note for note in one.history)
    assert (three.intervals["events"].start.tolist(), three.intervals["events"].labels) == ([1.0], ())


def test_electrodes_are_in_metres(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    *_, two, three = recordings(root)
    np.testing.assert_allclose(signal(three, "ecog").positions, [[0.01, 0.02, 0.03], [0.011, 0.021, 0.031]])
    assert signal(three, "misc").positions is None
    assert signal(two, "ecog").positions is None
    (root / "sub-02/ses-2/ieeg/sub-02_ses-2_space-MNI_coordsystem.json").write_text('{"iEEGCoordinateUnits": "pixels"}')
    *_, three = recordings(root)
    assert signal(three, "ecog").positions is None
    assert any("left out the positions of sub-02_ses-2_space-MNI_electrodes.tsv: their unit is pixels" in n for n in three.history)


def test_a_card_names_its_signals(tmp_path: Path) -> None:
    card = DatasetCard(
        name="grips", title="t", species="s", licence="l", source="s", reader="bids", root=str(write_dataset(tmp_path)),
        pattern="sub-{subject}/ses-{session}/ieeg/*_ieeg.*", session="{subject}-{session}", grid_hz=1, window_s=1, stride_s=1,
        signals={"cortex": SignalSpec(modality="ecog", variable="ecog", scale=1e6, unit="uV"), "grip": SignalSpec(modality="pose", variable="G")},
    )  # fmt: skip
    first, second = read(card)
    assert isinstance(first, Recording)
    assert isinstance(second, Recording)
    assert (first.id, second.session, first.subject) == ("02_1", "02-2", Subject("02", age=34.0, sex="female"))
    whole = recordings(tmp_path)[1]
    np.testing.assert_allclose(signal(first, "cortex").values, np.asarray(signal(whole, "ecog").values) * 1e6, rtol=1e-6)
    assert signal(first, "grip").modality == "pose"
    assert second.intervals["events"].start.tolist() == [1.0]


def test_a_dataset_without_recordings_says_so(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is a BIDS dataset without EEG, iEEG or MEG; read its scans and tables by a dataset card"):
        read(tmp_path)


def test_a_duration_that_is_a_word_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    (tmp_path / "task-grip_events.tsv").write_text("onset\tduration\n1\tlong\n")
    with pytest.raises(ValueError, match=r"task-grip_events.tsv: row 1 of 'duration' holds 'long', which is no time"):
        read(tmp_path)
