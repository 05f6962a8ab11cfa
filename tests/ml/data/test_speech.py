"""Aligned speech: every layout of TextGrid gives the same tiers, TIMIT's samples are seconds, features against a loop."""

import os
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.data import read
from neurofm_ml.data.readers.speech import SILENCE, read_tiers, tier_features
from neurofm_ml.knowledge.cards import SignalSpec
from neurofm_ml.types import Intervals, Recording, Signal

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
real = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")
NAPLIB = DATA / "ephys/language/naplib_speech_alignment/tests/features"

LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 1.25
            text = "he said ""ça"""
        intervals [2]:
            xmin = 1.25
            xmax = 2.5
            text = ""
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 1.5e-1
            mark = "click 7"
'''
SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
2
"IntervalTier"
"words"
0
2.5
2
0
1.25
"he said ""ça"""
1.25
2.5
""
"TextTier"
"clicks"
0
2.5
1
0.15
"click 7"
'''


@pytest.mark.parametrize("text", [LONG, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_textgrids(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "a.TextGrid"
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    path.write_bytes(mark + text.encode(encoding))
    tiers = read_tiers(path)
    assert list(tiers) == ["words", "clicks"]
    words, clicks = tiers.values()
    assert (words.labels, words.start.tolist(), words.end.tolist()) == (('he said "ça"', ""), [0, 1.25], [1.25, 2.5])
    assert (clicks.labels, clicks.start.tolist(), clicks.end.tolist()) == (("click 7",), [0.15], [0.15])


@pytest.mark.parametrize("text", ["0 8000 h#\n8000 12000 she\n", "0.0 0.5 h#\n0.5 0.75 she\n"], ids=["samples", "seconds"])
def test_timit(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.wrd").write_text(text)
    (tier,) = read_tiers(tmp_path / "a.wrd").items()
    assert (tier[0], tier[1].labels, tier[1].end.tolist()) == ("words", ("h#", "she"), [0.5, 0.75])


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.TextGrid", SHORT[:150].encode(), "ends before its last tier does; it is cut short or empty"),
        ("a.TextGrid", b"", "is empty; get it again"),
        ("a.TextGrid", b'File type = "ooTextFile" Object class = "Pitch 1" 0 1 2', "is no TextGrid in Praat's long or short text format"),
        ("a.TextGrid", LONG.replace('"clicks"', '"words"').encode(), "has the tiers words, words; it needs some, each with its own name"),
        ("a.TextGrid", b'"ooTextFile" "TextGrid" 0 1 <absent> 0', "has the tiers none; it needs some"),
        ("a.TextGrid", LONG.encode("latin-1"), "is neither UTF-8 nor UTF-16"),
        ("a.wrd", b"0 8000 h#\n8000 she\n", "line 2 is not 'start end label': '8000 she'"),
        ("a.phn", b"0 8000 h#\n8000 x she\n", "line 2 is not 'start end label'"),
        ("a.phn", b"0.5 0.1 h#\n", "interval 0 ends at 0.1 before it starts at 0.5"),
    ],
)
def test_what_is_no_alignment_is_refused(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=match):
        read(tmp_path / name)


def test_a_tier_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.TextGrid").write_text(LONG)
    with pytest.raises(ValueError, match="has no tier 'phones'; it has words, clicks"):
        read(tmp_path / "a.TextGrid", SignalSpec(modality="language", variable="phones", sfreq=100))
    with pytest.raises(ValueError, match="gives no sfreq, at which the features of a stimulus are taken"):
        read(tmp_path / "a.TextGrid", SignalSpec(modality="language", variable="words"))


# ---------------------------------------------------------------- features
def loop_over_words(tier: Intervals, sfreq: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The slow twin: every sample looks at every word."""
    words = [w for w in zip(tier.start, tier.end, tier.labels, strict=True) if w[2].lower() not in SILENCE]
    out = np.zeros((round(tier.end[-1] * sfreq), 3))
    for k in range(len(out)):
        t = k / sfreq
        out[k, 0] = sum(t <= start < t + 1 / sfreq for start, _, _ in words)
        out[k, 1] = sum(t - 0.5 <= start < t + 0.5 for start, _, _ in words)
        out[k, 2] = sum(len(label) for start, end, label in words if start <= t < end)
    return out


def test_features_against_a_loop() -> None:
    edges = np.sort(np.random.default_rng(0).uniform(0, 8, 40))
    labels = tuple("sil" if k % 5 == 0 else "w" * (1 + k % 7) for k in range(39))
    tier = Intervals(edges[:-1], edges[1:], labels)
    tier = Intervals(tier.start, np.append(tier.end[:-1], 8.0), labels)
    np.testing.assert_array_equal(tier_features(tier, 64.0).values, loop_over_words(tier, 64.0))


def test_a_tier_without_entries_has_no_features(tmp_path: Path) -> None:
    (tmp_path / "a.TextGrid").write_text(SHORT.replace('2.5\n1\n0.15\n"click 7"\n', "2.5\n0\n"))
    recording = read(tmp_path / "a.TextGrid")
    assert isinstance(recording, Recording)
    assert (list(recording.signals), list(recording.intervals)) == (["words"], ["words", "clicks"])


def test_words_that_begin_on_a_sample_are_in_that_sample() -> None:
    tier = Intervals(np.array([0.07, 0.29]), np.array([0.29, 0.58]), ("he", "said"))
    onset, _, length = tier_features(tier, 100.0).values.T
    assert np.flatnonzero(onset).tolist() == [7, 29]
    assert length.tolist() == [0] * 7 + [2] * 22 + [4] * 29


# ---------------------------------------------------------------- real files
@real
def test_real_speech() -> None:
    recordings = read("speech_naplib")
    assert isinstance(recordings, list)
    (speech,) = recordings
    sound, words = speech.signals["sound"], speech.signals["words"]
    assert isinstance(sound, Signal)
    assert isinstance(words, Signal)
    assert (sound.values.shape, words.values.shape) == ((530, 33), (528, 3))
    assert speech.intervals["words"].labels == ("STOMACH", "SHOULDER", "HIP", "WAIST")
    assert len(speech.intervals["phones"].labels) == 18
    assert words.values[:, 0].sum() == 4
    spoken = words.values[:, 2] > 0
    envelope = sound.values[: len(spoken), 0]
    assert envelope[spoken].mean() > 5 * envelope[~spoken].mean(), "there is sound where the words are"


@real
def test_real_alignments_agree() -> None:
    """naplib writes .phn and .wrd from the TextGrid without its silences at the ends."""
    grid = read(NAPLIB / "aligner_output1/test1.TextGrid")
    assert isinstance(grid, Recording)
    for kind, suffix in (("phones", "phn"), ("words", "wrd")):
        (tier,) = read_tiers(NAPLIB / f"aligner_output1/test1.{suffix}").values()
        whole = grid.intervals[kind]
        inside = slice(1, 1 + len(tier.labels))
        assert tuple(label or "sp" for label in whole.labels[inside]) == tier.labels
        np.testing.assert_allclose(whole.start[inside], tier.start)
