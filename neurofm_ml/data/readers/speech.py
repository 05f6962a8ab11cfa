"""Words and phones aligned to sound: Praat TextGrid (long and short text), TIMIT's ``.phn`` and ``.wrd``.

A tier is a table of intervals, its columns the variables ``<tier>/start``, ``<tier>/end`` (seconds) and ``<tier>/label``;
as a series of features, a tier says when words begin, how many a second, and how long the present one is.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neurofm_ml.types import Array, Intervals, Signal

SUFFIXES = (".textgrid", ".phn", ".wrd")
#: Sampling rate of TIMIT, in whose samples its alignments count.
TIMIT_HZ = 16000
#: Labels of aligners for what is no word: silence, short pause, noise.
SILENCE = frozenset({"", "sil", "sp", "spn", "h#", "pau", "epi", "<eps>"})

#: Praat's free-standing strings, numbers and flags; names of fields and numbers in brackets are for the reader's eye.
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<!\S)([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?!\S)|<(exists|absent)>')


def read_tiers(path: Path) -> dict[str, Intervals]:
    """Tiers by name; points are instants. Raises ValueError for a file that is cut short or of another layout."""
    if path.suffix.lower() == ".textgrid":
        return _textgrid(path)
    return {{".phn": "phones", ".wrd": "words"}[path.suffix.lower()]: _lines(path)}


def load_tiers(path: Path) -> dict[str, Array]:
    """The tiers as variables: ``<tier>/start``, ``<tier>/end`` and ``<tier>/label``."""
    return {
        f"{name}/{column}": values
        for name, tier in read_tiers(path).items()
        for column, values in (("start", tier.start), ("end", tier.end), ("label", np.array(tier.labels, dtype=str)))
    }


# ---------------------------------------------------------------- TextGrid
def _textgrid(path: Path) -> dict[str, Intervals]:
    tokens = _tokens(_text(path))
    try:
        if (next(tokens), next(tokens)) != ("ooTextFile", "TextGrid"):
            raise ValueError("it does not begin like one")
        _span, has_tiers = (next(tokens), next(tokens)), next(tokens)
        tiers = [_tier(tokens) for _ in range(int(next(tokens)) if has_tiers == "exists" else 0)]
    except StopIteration:
        raise ValueError(f"{path} ends before its last tier does; it is cut short or empty, get it again.") from None
    except ValueError as error:
        raise ValueError(f"{path} is no TextGrid in Praat's long or short text format ({error}); save it as one of these.") from None
    if len({name for name, _ in tiers}) < len(tiers) or not tiers:
        raise ValueError(f"{path} has the tiers {', '.join(name for name, _ in tiers) or 'none'}; it needs some, each with its own name.")
    return dict(tiers)


def _text(path: Path) -> str:
    """Praat writes UTF-8, or UTF-16 with a mark of its byte order."""
    raw = path.read_bytes()
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is neither UTF-8 nor UTF-16 ({error}); save it as UTF-8 with Praat.") from None


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(text):
        string, number, flag = match.groups()
        yield string.replace('""', '"') if string is not None else number or flag


def _tier(tokens: Iterator[str]) -> tuple[str, Intervals]:
    """Class, name, start, end, number of entries, then start (end) and text of each."""
    kind, name, _, _, n = [next(tokens) for _ in range(5)]
    width = 3 if kind == "IntervalTier" else 2
    rows = [[next(tokens) for _ in range(width)] for _ in range(int(n))]
    start, end = (np.array([float(row[k]) for row in rows], np.float64) for k in (0, width - 2))
    return name, Intervals(start, end, tuple(row[-1] for row in rows))


# ---------------------------------------------------------------- TIMIT
def _lines(path: Path) -> Intervals:
    """``start end label`` in each line: whole numbers are samples at 16 kHz, numbers with a decimal point seconds."""
    lines = [(number, line.split(None, 2)) for number, line in enumerate(_text(path).splitlines(), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty; get it again.")
    for number, words in lines:
        if len(words) != 3 or not all(re.fullmatch(r"\d+(\.\d*)?", word) for word in words[:2]):
            raise ValueError(f"{path}, line {number} is not 'start end label': {' '.join(words)!r}; correct it or get it again.")
    scale = 1.0 if any("." in word for _, words in lines for word in words[:2]) else 1 / TIMIT_HZ
    start, end = (np.array([float(words[k]) for _, words in lines]) * scale for k in (0, 1))
    return Intervals(start, end, tuple(words[2].strip() for _, words in lines))


# ---------------------------------------------------------------- features
def tier_features(tier: Intervals, sfreq: float) -> Signal:
    """Series (n_times, 3) at `sfreq` Hz from 0 to the end of the tier, of its words (labels that are not SILENCE).

    onset   words that begin in this sample
    rate    words that begin within half a second to either side, that is words per second
    length  letters of the word that is spoken, 0 between words
    """
    spoken = np.array([label.strip().casefold() not in SILENCE for label in tier.labels], bool)
    start, end = tier.start[spoken], tier.end[spoken]
    times = np.arange(int(np.floor(tier.end.max(initial=0.0) * sfreq + 1e-6))) / sfreq
    edges = np.append(times, len(times) / sfreq) - 1e-9
    onset = np.diff(np.searchsorted(start, edges))
    rate = np.searchsorted(start, times + 0.5) - np.searchsorted(start, times - 0.5)
    length = np.zeros(len(times))
    for label, lo, hi in zip(
        np.array(tier.labels)[spoken], np.searchsorted(times, start - 1e-9), np.searchsorted(times, end - 1e-9), strict=True
    ):
        length[lo:hi] = len(label.strip())
    values = np.stack([onset, rate, length], axis=1).astype(np.float32)
    return Signal(values, sfreq, "language", 0.0, ("onset", "rate", "length"))
