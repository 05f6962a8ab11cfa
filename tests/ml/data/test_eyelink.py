"""EyeLink: samples keep their own times, losses are NaN, events end after their last sample; against MNE on a real file."""

import os
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.data import read
from neurofm_ml.data.readers.eyelink import read_file
from neurofm_ml.types import Recording, Samples, Signal

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
real = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")
FOLDER = DATA / "ephys/eyetracking/saccades_luketudge"

HEAD = "** CONVERTED FROM a.edf\n** VERSION: EYELINK II 1\nMSG 900 TRIALID 1\n"
BOTH = """START 1000 LEFT RIGHT SAMPLES EVENTS
PRESCALER 1
PUPIL DIAMETER
EVENTS GAZE LEFT RIGHT RATE 500.00
SAMPLES GAZE LEFT RIGHT VEL RATE 500.00 TRACKING CR FILTER 2
SFIX L 1000
1000 10.0 20.0 900.0 11.0 21.0 800.0 0.1 0.2 0.3 0.4 .....
MSG 1001 GO  now
1002 . . 0.0 12.0 22.0 801.0 . . 0.3 0.4 .C...
SBLINK L 1002
EFIX L 1000 1000 2 10.0 20.0 900
SSACC R 1000
ESACC R 1000 1002 4 11.0 21.0 12.0 22.0 1.50 300
BUTTON 1003 1 1
END 1004 SAMPLES EVENTS RES 30.0 30.0
"""
RIGHT = """START 2000 RIGHT SAMPLES EVENTS
SAMPLES GAZE RIGHT RATE 500.00
2000 13.0 23.0 802.0
2002 14.0 24.0 803.0
SBLINK R 1998
EBLINK R 1998 2000 4
END 2004 SAMPLES EVENTS RES 30.0 30.0
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_both_eyes_then_one(tmp_path: Path) -> None:
    found = read_file(write(tmp_path / "a.asc", HEAD + BOTH + RIGHT))
    gaze, pupil = found.signals["gaze"], found.signals["pupil"]
    assert isinstance(gaze, Samples)
    assert isinstance(pupil, Samples)
    assert (gaze.ch_names, gaze.unit, gaze.modality) == (("x_left", "y_left", "x_right", "y_right"), "px", "eye")
    assert (pupil.ch_names, pupil.unit) == (("pupil_left", "pupil_right"), "diameter")
    np.testing.assert_allclose(gaze.times, [1, 1.002, 2, 2.002])
    nan = np.nan
    np.testing.assert_array_equal(gaze.values, [[10, 20, 11, 21], [nan, nan, 12, 22], [nan, nan, 13, 23], [nan, nan, 14, 24]])
    np.testing.assert_array_equal(pupil.values, [[900, 800], [nan, 801], [nan, 802], [nan, 803]])


def test_events_and_messages(tmp_path: Path) -> None:
    found = read_file(write(tmp_path / "a.asc", HEAD + BOTH + RIGHT))
    messages, fixations, saccades, blinks = (found.intervals[k] for k in ("messages", "fixations", "saccades", "blinks"))
    assert messages.labels == ("TRIALID 1", "GO now")
    assert messages.start.tolist() == messages.end.tolist() == [0.9, 1.001]
    assert (fixations.labels, fixations.start.tolist(), fixations.end.tolist()) == (("left",), [1.0], [1.002])
    assert {name: column.tolist() for name, column in fixations.columns.items()} == {"x": [10], "y": [20], "pupil": [900]}
    assert saccades.end.tolist() == [1.004], "a saccade lasts until after its last sample"
    assert saccades.columns["amplitude_deg"].tolist() == [1.5]
    assert saccades.columns["peak_velocity_deg_s"].tolist() == [300]
    assert (blinks.labels, blinks.start.tolist()) == (("right",), [1.998])
    assert found.history == (
        "read (eyelink)",
        "2 blocks of recording, nothing between them",
        "left out blinks (1) that had not ended when the block did",
        "left out 1 lines BUTTON",
    )


def test_one_block_without_losses_is_regular(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.txt", HEAD + RIGHT))
    assert isinstance(found, Recording)
    gaze = found.signals["gaze"]
    assert isinstance(gaze, Signal)
    assert (gaze.sfreq, gaze.t0) == (500, 2)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (HEAD, "it holds no samples of an EyeLink"),
        ("1000 10.0 20.0 900.0\n", "line 1 is no line of an EyeLink file: '1000 10.0 20.0 900.0'"),
        (HEAD + RIGHT.replace("2002 14.0 24.0 803.0", "2002 14.0 24"), "line 7 is no line of an EyeLink file: '2002 14.0 24'; it is cut"),
        (HEAD + RIGHT.replace("2002 14.0", "2002 x14"), "line 7 is no line"),
        (HEAD + BOTH.replace(" 1.50 300", ""), "line 16 is no line of an EyeLink file: 'ESACC"),
        (HEAD + RIGHT.replace("SAMPLES GAZE", "SAMPLES GAS"), "line 5 is no line of an EyeLink file: 'SAMPLES GAS RIGHT"),
        (HEAD + RIGHT.split("END")[0], "the recording that starts in line 4 has no END; the file is cut short"),
        (HEAD + BOTH + RIGHT.replace("GAZE", "HREF"), "coordinates in href and px; split the file there"),
        (HEAD + RIGHT.replace("2002 14", "1002 14"), r"times is not sorted: entry 1 is 1.002 after 2"),
    ],
)
def test_what_is_no_eyelink_file_is_refused(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        read_file(write(tmp_path / "a.asc", text))


# ---------------------------------------------------------------- the real file
@real
def test_real_saccades() -> None:
    (found,) = read_set("eyelink_saccades")
    gaze = found.signals["gaze"]
    assert isinstance(gaze, Samples)
    assert (gaze.values.shape, gaze.ch_names, list(found.signals)) == ((29578, 2), ("x_right", "y_right"), ["gaze"])
    assert {name: len(events.start) for name, events in found.intervals.items()} == {
        "messages": 253,
        "fixations": 266,
        "saccades": 213,
        "blinks": 23,
    }
    assert sum("TRIALID" in label for label in found.intervals["messages"].labels) == 84
    assert "left out blinks (1) that had not ended when the block did" in found.history


def read_set(name: str) -> list[Recording]:
    recordings = read(name)
    assert isinstance(recordings, list)
    return recordings


@real
def test_the_empty_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"empty.txt is empty; get it again"):
        read(FOLDER / "empty.txt")


@real
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_against_mne(tmp_path: Path) -> None:
    """The same samples and the same events. MNE counts samples from the first one, events from the line START."""
    import mne

    text = (FOLDER / "example_eyelink_events.txt").read_text()
    raw = mne.io.read_raw_eyelink(write(tmp_path / "a.asc", text), verbose="error")
    ours = read_file(tmp_path / "a.asc")
    gaze = ours.signals["gaze"]
    assert isinstance(gaze, Samples)
    at = np.round((gaze.times - gaze.times[0]) * raw.info["sfreq"]).astype(int)
    theirs = raw.get_data(["xpos_right", "ypos_right"]).T
    np.testing.assert_allclose(gaze.values, theirs[at], rtol=1e-6)
    assert np.isnan(np.delete(theirs, at, axis=0)).all(), "MNE fills the time between blocks"
    start = 257.716
    assert gaze.times[0] == start + 0.004
    for name, description in (("fixations", "fixation"), ("saccades", "saccade"), ("blinks", "BAD_blink")):
        notes = raw.annotations[[d == description for d in raw.annotations.description]]
        np.testing.assert_allclose(ours.intervals[name].start - start, notes.onset, atol=1e-9)
        np.testing.assert_allclose(ours.intervals[name].end - ours.intervals[name].start, notes.duration, atol=1e-9)
