"""The files of a dataset's card: which recordings there are, and where the files of each lie.

Patterns start from the card's root and stay in it; links in it are followed, as people lay out data by them.
"""

import glob
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from neurofm_ml.knowledge.cards import PLACES, DatasetCard, IntervalSpec, RecordingSpec, SignalSpec
from neurofm_ml.knowledge.roots import check_inside, data_root
from neurofm_ml.types import Subject

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def find_recordings(card: DatasetCard) -> tuple[RecordingSpec, ...]:
    """The recordings listed in the card, or those whose files match its pattern without those left out, sorted by id."""
    root, expression = data_root(card), _as_expression(card.pattern)
    if card.recordings or not card.pattern or root is None:
        return card.recordings
    matches = (expression.fullmatch(p.relative_to(root).as_posix()) for p in root.glob(_PLACEHOLDER.sub("*", card.pattern)))
    found = {tuple(m.groupdict().items()): m.groupdict() for m in matches if m}
    specs = [RecordingSpec(id=values.pop("id", None) or "_".join(values.values()), values=values) for values in found.values()]
    return tuple(sorted((_with_subject(s) for s in specs if s.id not in card.leave_out), key=lambda s: s.id))


def _with_subject(spec: RecordingSpec) -> RecordingSpec:
    return replace(spec, subject=Subject(spec.values["subject"])) if "subject" in spec.values else spec


def _as_expression(pattern: str) -> re.Pattern[str]:
    """``{id}`` captures, a repeated ``{id}`` must agree, ``*`` matches within one name."""
    seen: set[str] = set()
    expression = ""
    for piece in re.split(r"(\{\w+\}|\*)", pattern):
        if match := _PLACEHOLDER.fullmatch(piece):
            name = match[1]
            expression += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)"
            seen.add(name)
        else:
            expression += "[^/]*" if piece == "*" else re.escape(piece)
    return re.compile(expression)


def fill(template: str, spec: RecordingSpec, quote: Callable[[str], str] = str) -> str:
    """`template` with its ``{names}`` replaced by those of one recording, each through `quote`."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in spec.names:
            raise ValueError(
                f"{template!r} names {{{match[1]}}}, which recording {spec.id!r} does not have; it has {', '.join(spec.names)}."
            )
        return quote(spec.names[match[1]])

    return _PLACEHOLDER.sub(value, template)


def path_of(card: DatasetCard, template: str, spec: RecordingSpec) -> Path:
    """The file under the card's root that `template` names for one recording. Raises ValueError where a name leads out of it."""
    return (data_root(card) or Path()) / _inside(fill(template, spec), spec)


def _inside(path: str, spec: RecordingSpec) -> str:
    check_inside(f"the file of recording {spec.id!r}", path)
    return path


def _matching(root: Path, pattern: str, spec: RecordingSpec) -> list[Path]:
    """Files of one recording under `root`; a ``*`` or ``[`` in its names stands for itself."""
    return sorted(root.glob(_inside(fill(pattern, spec, glob.escape), spec)))


def recording_files(card: DatasetCard, spec: RecordingSpec, pattern: str) -> list[Path]:
    """Files of one recording that match `pattern`, sorted. Raises ValueError when there are none."""
    root = data_root(card)
    if root is None:
        raise ValueError(f"{card.name}/{spec.id}: NEUROFM_DATA is unset; point it at the folder that holds {card.root}.")
    if not (files := _matching(root, pattern, spec)):
        raise ValueError(
            f"{card.name}/{spec.id}: no file matches {root / fill(pattern, spec)}; get it from {card.source}, or correct the pattern."
        )
    return files


def raw_files(card: DatasetCard) -> list[Path]:
    """Every raw file of the card that is here, sorted; [] when none is."""
    found = {file for spec in find_recordings(card) for file in files_of(card, spec)}
    root, shared = data_root(card), [*([card.subjects.file] if card.subjects else []), *atlases(card)]
    return sorted(found.union(root / name for name in shared if (root / name).exists())) if root and found else []


def files_of(card: DatasetCard, spec: RecordingSpec) -> list[Path]:
    """The files of one recording that are here, sorted."""
    root = data_root(card)
    described: list[SignalSpec | IntervalSpec] = [*card.signals.values(), *card.intervals.values()]
    own = [d for d in described if not d.recordings or spec.id in d.recordings]
    patterns = {p for d in own if (p := d.file or card.pattern)}
    return sorted({file for pattern in patterns for file in _matching(root, pattern, spec)}) if root else []


def atlases(card: DatasetCard) -> list[str]:
    """Files under the card's root that say where channels are: atlases, masks, tables of coordinates."""
    placed = {s.positions for s in card.signals.values() if s.positions.endswith(PLACES)}
    return sorted(placed | {s.mask for s in card.signals.values() if s.mask})


def is_here(card: DatasetCard) -> bool:
    """Whether the card can be read: its files are here, or it needs none."""
    return not (card.pattern or any(s.file for s in card.signals.values())) or bool(raw_files(card))
