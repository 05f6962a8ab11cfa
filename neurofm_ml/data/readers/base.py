"""What the readers share: who was recorded, series from time stamps, errors that name the file."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from neurofm_ml.data.readers.intervals import filled, outside, read_intervals, stated
from neurofm_ml.data.readers.subjects import subject_of
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SignalSpec
from neurofm_ml.knowledge.files import fill, find_recordings, recording_files
from neurofm_ml.types import Array, Intervals, Recording, Samples, Series, Signal, Subject

#: A reader gives the recordings of a card, one at a time.
Reader = Callable[[DatasetCard], Iterable[Recording]]

#: Times are seconds from the start of the session; three years is beyond any session.
_LATEST_S = 1e8
#: A clock is regular when no time stamp is further from it than this share of a step.
_JITTER = 0.1


def each(read_one: Callable[[DatasetCard, RecordingSpec], Recording], looks_at: Collection[str] = ()) -> Reader:
    """Reader of a card from a function that reads one of its recordings; `looks_at` are the fields of a signal that it heeds
    (default: all). A card that states another raises ValueError: what it asks for would not be done."""

    def read(card: DatasetCard) -> Iterator[Recording]:
        for name, signal in card.measured.items() if looks_at else ():
            _check_heeded(card, name, signal, looks_at)
        return (read_one(_own(card, spec), spec) for spec in find_recordings(card))

    return read


def _check_heeded(card: DatasetCard, name: str, signal: SignalSpec, looks_at: Collection[str]) -> None:
    plain = SignalSpec(modality=signal.modality)
    stated = [f.name for f in fields(signal) if getattr(signal, f.name) != getattr(plain, f.name)]
    if unheeded := [field for field in stated if field not in looks_at]:
        raise ValueError(
            f"{card.name}, signal {name!r}: the reader {card.reader!r} does not look at {', '.join(unheeded)}; leave it out. It looks at "
            f"{', '.join(looks_at)}."
        )


def _own(card: DatasetCard, spec: RecordingSpec) -> DatasetCard:
    """`card` with the signals that the files of one recording hold."""
    signals = {name: s for name, s in card.measured.items() if not s.recordings or spec.id in s.recordings}
    return replace(card, signals=signals, tasks=())


@contextmanager
def naming(what: object) -> Iterator[None]:
    """What goes wrong inside is a ValueError that begins with `what`, once: the file and the field at fault."""
    try:
        yield
    except (ValueError, OSError) as error:
        said = str(error)
        raise ValueError(said if said.startswith(str(what)) else f"{what}: {said}") from None


def name_of(path: Path) -> str:
    """What a recording read from a file of its own is called: the file's name without its ending. Dots before it stay,
    since files of one day often differ behind them only."""
    if path.suffix == ".zarr":
        return path.stem.removesuffix(".nwb")
    return Path(path.name.removesuffix(".gz")).stem


def alone(
    path: Path,
    reader: str,
    signals: Mapping[str, Series],
    intervals: Mapping[str, Intervals] | None = None,
    notes: Iterable[str] = (),
    span: tuple[float, float] | None = None,
) -> Recording:
    """The recording of a file that no card speaks of: named after it, of nobody known."""
    name = name_of(path)
    return Recording(
        id=name,
        dataset="file",
        subject=Subject(name),
        session=name,
        species="unknown",
        licence="unknown",
        signals=signals,
        intervals=intervals or {},
        span=span,
        history=(f"read ({reader})", *notes),
    )


def build(
    card: DatasetCard,
    spec: RecordingSpec,
    signals: Mapping[str, Series],
    intervals: Mapping[str, Intervals] | None = None,
    notes: tuple[str, ...] = (),
) -> Recording:
    """Recording `spec` of `card` with these series and intervals and those that the card describes, cut to its span where
    it has one. Raises ValueError naming file and field."""
    described, said = _described(card, spec)
    if twice := sorted({*described} & {*(intervals or {})}):
        raise ValueError(f"{card.name}/{spec.id}: the file holds intervals {', '.join(twice)} too; name the card's otherwise.")
    recording = Recording(
        id=spec.id,
        dataset=card.name,
        subject=subject_of(card, spec),
        session=fill(card.session, spec),
        species=card.species,
        licence=card.licence,
        signals=signals,
        intervals={**(intervals or {}), **described},
        history=(f"read ({card.reader})", *notes, *said),
    )
    recording = replace(recording, history=(*recording.history, *outside(recording)))
    return recording if spec.span is None else recording.slice(*spec.span)


def _described(card: DatasetCard, spec: RecordingSpec) -> tuple[dict[str, Intervals], list[str]]:
    """The intervals that the card describes or states for one recording, and notes on them."""
    found, notes = stated(spec), []
    for name, described in card.intervals.items():
        if described.recordings and spec.id not in described.recordings:
            continue
        files = recording_files(card, spec, described.file or card.pattern)
        if len(files) > 1:
            raise ValueError(f"{card.name}/{spec.id}, intervals {name!r}: {len(files)} files match, first {files[0]}; narrow the pattern.")
        with naming(f"{card.name}/{spec.id}, intervals {name!r}"), naming(files[0]):
            found[name], said = read_intervals(files[0], filled(described, spec))
            check_times(found[name].start)
        notes += [f"intervals {name!r}: {note}" for note in said]
    return found, notes


def check_times(times: Array) -> Array:
    """`times` (n,) as float64 seconds. Raises ValueError where they cannot be seconds from a session's start."""
    times = np.asarray(times, dtype=np.float64)
    if (bad := np.flatnonzero(~(np.abs(times) < _LATEST_S))).size:
        raise ValueError(
            f"entry {bad[0]} is {times[bad[0]]:g} s, which is no time since the session began; repair that entry or write times "
            "relative to the session's start."
        )
    return times


def series_from_times(times: Array, values: Array, modality: str, ch_names: tuple[str, ...], unit: str) -> Signal | Samples:
    """A Signal where the time stamps (n,) tick regularly, Samples where they do not. values (n, n_chans)."""
    times = check_times(times)
    if len(times) != len(values):
        raise ValueError(f"{len(times)} time stamps for {len(values)} rows; they must agree.")
    if len(times) > 1 and times[-1] > times[0]:
        sfreq = (len(times) - 1) / (times[-1] - times[0])
        if np.abs(times - times[0] - np.arange(len(times)) / sfreq).max() * sfreq < _JITTER:
            return Signal(values, float(f"{sfreq:.9g}"), modality, float(times[0]), ch_names, unit=unit)
    return Samples(times, values, modality, ch_names, unit)


def as_columns(values: Array) -> Array:
    """(n_times,) or (n_times, n_chans) -> (n_times, n_chans) float32. Raises ValueError for anything else."""
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        what = "structs, cells or words" if values.dtype.kind in "OUS" else str(values.dtype)
        raise ValueError(f"it holds {what}, not real numbers; name a variable that does.")
    if values.ndim not in (1, 2):
        raise ValueError(f"its shape is {values.shape}; a series needs (n_times,) or (n_times, n_chans).")
    return (values if values.ndim == 2 else values[:, None]).astype(np.float32)
