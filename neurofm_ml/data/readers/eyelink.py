"""EyeLink's text export (ASC): gaze and pupil samples, the tracker's fixations, saccades and blinks, messages.

MNE reads this format too, but drops the messages between two recording blocks, where experiments write what the trial
is, fills the time between blocks, and counts events from another zero than samples; here all keep the tracker's times.
Layout after SR Research's EyeLink user manual.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neurofm_ml.data.readers.adopt import adopt
from neurofm_ml.data.readers.base import alone, naming, series_from_times
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec
from neurofm_ml.knowledge.files import recording_files
from neurofm_ml.types import Array, Intervals, Recording, Series

#: Event -> (name of its intervals, columns after eye, start, end and duration).
_EVENTS = {
    "FIX": ("fixations", ("x", "y", "pupil")),
    "SACC": ("saccades", ("start_x", "start_y", "end_x", "end_y", "amplitude_deg", "peak_velocity_deg_s")),
    "BLINK": ("blinks", ()),
}
_EYES = {"L": "left", "R": "right"}
_UNITS = {"GAZE": "px", "HREF": "href", "PUPIL": "raw"}
#: Lines that say nothing that is not read elsewhere.
_KNOWN = {"PRESCALER", "VPRESCALER", "EVENTS", "**"}


@dataclass
class _Block:
    """One stretch of recording: eyes in the order of their columns, coordinates, and [ms, x, y, pupil, ...] of each sample,
    one behind the other."""

    line: int
    eyes: tuple[str, ...] = ()
    unit: str = ""
    samples: "array[float]" = field(default_factory=lambda: array("d"))
    ended: bool = False

    @property
    def rows(self) -> Array:
        """(n_samples, 1 + 3 n_eyes)."""
        return np.array(self.samples).reshape(-1, 1 + 3 * len(self.eyes))


@dataclass
class _File:
    """What the lines hold. Events and messages are (start_ms, end_ms, label, further numbers)."""

    blocks: list[_Block] = field(default_factory=list)
    events: dict[str, list[tuple[float, float, str, list[float]]]] = field(default_factory=lambda: {k: [] for k in _EVENTS})
    messages: list[tuple[float, float, str, list[float]]] = field(default_factory=list)
    pupil: str = ""
    begun: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """One recording of a card, with the signals `gaze` and `pupil` that the card names."""
    path = recording_files(card, spec, card.pattern)[0]
    return adopt(read_file(path), card, spec, path)


def read_file(path: Path) -> Recording:
    """One file. Raises ValueError for a file that is empty, cut short or not EyeLink's, naming the line.

    `gaze` is in pixels of the screen, `pupil` in the tracker's own unit; what the tracker lost is NaN. Times are
    seconds of the tracker's clock.
    """
    with path.open(encoding="utf-8", errors="replace") as lines, naming(path):
        found = _parse(lines)
        _check_whole(found.blocks)
        signals = _signals(found)
        intervals = {name: _intervals(found.events[kind], columns) for kind, (name, columns) in _EVENTS.items()}
    return alone(path, "eyelink", signals, {"messages": _intervals(found.messages, ()), **intervals}, _notes(found))


def _parse(lines: Iterable[str]) -> _File:
    found = _File()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            _take(found, words, number)
        except (ValueError, LookupError):
            raise ValueError(f"line {number} is no line of an EyeLink file: {line.strip()[:60]!r}; it is cut short or damaged.") from None
    return found


def _take(found: _File, words: list[str], number: int) -> None:
    """Put one line where it belongs."""
    word = words[0]
    if word[0].isdigit():
        found.blocks[-1].samples.extend(_sample(words, found.blocks[-1]))
    elif word == "START":
        found.blocks.append(_Block(number))
    elif word == "END":
        found.blocks[-1].ended = True
    elif word == "SAMPLES":
        found.blocks[-1].eyes = tuple(eye for eye in _EYES.values() if eye.upper() in words)
        found.blocks[-1].unit = _UNITS[words[1]]
    elif word == "PUPIL":
        found.pupil = words[1].lower()
    elif word == "MSG":
        found.messages.append((float(words[1]), float(words[1]), " ".join(words[2:]), []))
    elif match := re.fullmatch("([SE])(FIX|SACC|BLINK)", word):
        found.begun[match[2]] += 1 if match[1] == "S" else -1
        if match[1] == "E":
            found.events[match[2]].append(_event(words, len(_EVENTS[match[2]][1])))
    elif word not in _KNOWN:
        found.left_out[word] += 1


def _sample(words: list[str], block: _Block) -> list[float]:
    """[ms, then x, y, pupil of each eye]; a pupil of size 0 is one that was not found."""
    n = 3 * len(block.eyes)
    row = [_number(word) for word in words[: n + 1]]
    if len(row) != n + 1:
        raise ValueError
    return [np.nan if value == 0 and k % 3 == 0 and k else value for k, value in enumerate(row)]


def _event(words: list[str], n_numbers: int) -> tuple[float, float, str, list[float]]:
    """The duration, which counts the last sample, says where an event ends."""
    start, duration = float(words[2]), float(words[4])
    numbers = [_number(word) for word in words[5 : 5 + n_numbers]]
    if len(numbers) != n_numbers:
        raise ValueError
    return start, start + duration, _EYES[words[1]], numbers


def _number(word: str) -> float:
    return np.nan if word == "." else float(word)


def _check_whole(blocks: list[_Block]) -> None:
    if not any(block.samples for block in blocks):
        raise ValueError(
            "it holds no samples of an EyeLink (lines START, SAMPLES and numbers); it is empty or another format, get it again."
        )
    if open_ended := [block.line for block in blocks if not block.ended]:
        raise ValueError(f"the recording that starts in line {open_ended[0]} has no END; the file is cut short, get it again.")
    if len(units := {block.unit for block in blocks if block.samples}) > 1:
        raise ValueError(f"its blocks hold coordinates in {' and '.join(sorted(units))}; split the file there.")


def _signals(found: _File) -> dict[str, Series]:
    """gaze (n, 2 per eye) and pupil (n, 1 per eye); an eye that was not recorded in a block is NaN there."""
    blocks = [block for block in found.blocks if block.samples]
    eyes = [eye for eye in _EYES.values() if any(eye in block.eyes for block in blocks)]
    times = np.concatenate([block.rows[:, 0] for block in blocks]) / 1000
    values = np.concatenate([_of_eyes(block, eyes) for block in blocks]).astype(np.float32)
    gaze = tuple(f"{axis}_{eye}" for eye in eyes for axis in "xy")
    return {
        "gaze": series_from_times(times, values[:, :, :2].reshape(len(times), -1), "eye", gaze, blocks[0].unit),
        "pupil": series_from_times(times, values[:, :, 2], "eye", tuple(f"pupil_{eye}" for eye in eyes), found.pupil),
    }


def _of_eyes(block: _Block, eyes: Sequence[str]) -> Array:
    """(n, n_eyes, 3)."""
    rows = block.rows
    values = np.full((len(rows), len(eyes), 3), np.nan)
    for k, eye in enumerate(block.eyes):
        values[:, eyes.index(eye)] = rows[:, 1 + 3 * k : 4 + 3 * k]
    return values


def _intervals(events: list[tuple[float, float, str, list[float]]], columns: tuple[str, ...]) -> Intervals:
    ordered = sorted(events, key=lambda event: event[0])
    start, end = (np.array([event[side] for event in ordered], np.float64) / 1000 for side in (0, 1))
    numbers = {name: np.array([event[3][i] for event in ordered]) for i, name in enumerate(columns)}
    return Intervals(start, end, tuple(event[2] for event in ordered), numbers)


def _notes(found: _File) -> tuple[str, ...]:
    """What was left out, and of how many blocks the recording is."""
    unended = [f"{_EVENTS[kind][0]} ({n})" for kind, n in found.begun.items() if n > 0]
    return (
        f"{len(found.blocks)} blocks of recording, nothing between them",
        *([f"left out {', '.join(unended)} that had not ended when the block did"] if unended else []),
        *(f"left out {n} lines {word}" for word, n in found.left_out.items()),
    )
