"""Dataset cards: what a dataset is, where its files lie, how they are read, cut, split and scored.

A card is one YAML file. The package's own cards stand in ``knowledge/datasets``; a user's cards
stand in the folder named by ``NEUROFM_CARDS`` and need no code. Raw files lie under
``NEUROFM_DATA``: ``files.py`` finds them. Unknown fields are refused by name. How the files are decoded is the
business of ``neurofm_ml.data.readers``.
"""

import os
import re
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from neurofm_ml.config import config
from neurofm_ml.knowledge.roots import check_inside, check_root
from neurofm_ml.knowledge.task_spec import SUBJECT_FIELDS
from neurofm_ml.knowledge.task_spec import TaskSpec as TaskSpec
from neurofm_ml.knowledge.yaml_cards import cards_of, mistakes_in, read_yaml_card
from neurofm_ml.presets import READ
from neurofm_ml.registry import Registry
from neurofm_ml.types import MODALITIES, Subject

NAME = re.compile(r"[a-z0-9_]+")
#: Endings of files that say where channels are; other `positions` are montages.
PLACES = (".nii", ".nii.gz", ".csv", ".tsv", ".txt")


@config
class SplitSpec:
    """How windows are divided. "block": contiguous time, first `train`, then `validation`, rest test,
    `gap_s` seconds dropped at each border. The other kinds: whole ones (recordings, sessions, subjects, ...) by
    seeded hash."""

    kind: Literal["block", "recording", "session", "subject", "family", "site"] = "block"
    train: float = 0.6
    validation: float = 0.15
    gap_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.train > 0 and self.validation >= 0 and self.train + self.validation < 1):
            raise ValueError(f"split: train {self.train} and validation {self.validation} must be positive and leave room for a test part.")


@config
class SignalSpec:
    """One series of a recording, and how to find it in an array file.

    file         pattern under the card's root (default: the card's `pattern`); ``{id}`` and other names are filled in
    side_by_side several files match, which hold channels of one series; one alone in its file is named after it
    recordings   ids of the recordings that have the series (default: all)
    variable     variable of a MATLAB file, path in HDF5, ``object/column`` of R, column of a table (``unit_*``: all that match)
                 or of tracked poses, feature of a sound or video, tier of aligned words; several stand side by side as channels
    where        column -> word: only the rows where it stands there; ``{subject}`` and other names are filled in
    ragged       the numbers of a text are one channel, row after row, however many a row holds
    columns      columns of a two-dimensional array to keep, counted from 0 (default: all)
    transpose    the array lies (n_chans, n_times)
    missing      numbers that mean "no value" and become NaN
    scale        factor that brings the numbers to `unit`
    sfreq        Hz; without it the series lies on its time stamps, regular or not
    time         variable with the time of each row, times `time_scale` in seconds; with `sfreq` it is only checked against it
    t0           seconds, where the first sample lies (default: the first entry of `time`, or 0)
    unit_index   variable that names the unit of each spike; `variable` then holds spike times, times `time_scale` in seconds
    unit_counts  variable with the number of spikes of each unit; `variable` then holds spike times, unit after unit
    bin_s        seconds that each count covers, where counts were taken in windows that overlap (default: 1 / sfreq)
    trial_label  variable with the label of each trial; `variable` then holds trials, (n_trials, n_times, n_chans) or an
                 array each, which are laid end to end and become the intervals "trials"
    angle        the numbers are radians (once scaled); each channel becomes two, its cosine and sine, because angles can
                 be neither averaged nor interpolated
    ch_names     names of the channels (default: table headers, last parts of variable paths, or numbers)
    positions    where the channels are: the name of an MNE montage; a NIfTI label atlas, or a table (columns x, y, z; a row
                 per channel), under the root
    mask         NIfTI mask under the root whose voxels are the channels of an fMRI run that is read without an atlas
    """

    modality: str
    file: str = ""
    side_by_side: bool = False
    recordings: tuple[str, ...] = ()
    variable: str | tuple[str, ...] = ""
    where: dict[str, str] = field(default_factory=dict)
    ragged: bool = False
    columns: tuple[int, ...] = ()
    transpose: bool = False
    missing: tuple[float, ...] = ()
    scale: float = 1.0
    unit: str = ""
    sfreq: float | None = None
    time: str = ""
    time_scale: float = 1.0
    t0: float | None = None
    unit_index: str = ""
    unit_counts: str = ""
    bin_s: float | None = None
    trial_label: str = ""
    angle: bool = False
    ch_names: tuple[str, ...] = ()
    positions: str = ""
    mask: str = ""

    def __post_init__(self) -> None:
        if self.modality not in MODALITIES:
            raise ValueError(f"modality is {self.modality!r}; allowed: {', '.join(MODALITIES)}.")
        if self.sfreq is not None and not self.sfreq > 0:
            raise ValueError(f"sfreq is {self.sfreq}; it needs a positive rate in Hz.")
        check_inside("file", self.file)
        check_inside("positions", self.positions)
        check_inside("mask", self.mask)


@config
class IntervalSpec:
    """One table of intervals (trials, events, words), and how to find it in a text, csv or array file.

    file         pattern under the card's root (default: the card's `pattern`)
    start        column or variable with the start of each interval, times `time_scale` in seconds; columns of a text
                 without a header are named by their number, counted from 0
    end          column with the end; without it `duration` names the column that holds how long each lasts, and
                 without both an interval is an instant (as is one whose end or duration is missing)
    label        column with the label of each
    columns      further columns to keep
    where        column -> word: only the rows where it stands there; ``{subject}`` and other names are filled in
    skip         labels that are no interval, such as 0 in a column of triggers
    sfreq        Hz of a table with a row per sample, the first at 0 s: every run of rows with the same label is an interval, and `start`,
                 `end` and `duration` are not looked at
    recordings   ids of the recordings that have it (default: all)
    """

    file: str = ""
    start: str = "onset"
    end: str = ""
    duration: str = ""
    label: str = ""
    columns: tuple[str, ...] = ()
    where: dict[str, str] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    time_scale: float = 1.0
    sfreq: float | None = None
    recordings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_inside("file", self.file)
        if self.sfreq is not None and not (self.sfreq > 0 and self.label):
            raise ValueError(f"sfreq is {self.sfreq} and label {self.label!r}; runs of rows need a positive rate in Hz and a label.")


@config
class StepSpec:
    """One step of preprocessing: its name in ``neurofm_ml.data.preprocess.STEPS``, the signals it works on (default: all
    of the modalities it is for), and its parameters. A step that makes a signal names it by its parameter `into`; the
    card names it among `signals` too, by modality alone."""

    step: str
    signals: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)


@config
class ArchiveSpec:
    """Where ``python -m neurofm_ml.data fetch`` gets the files of a dataset: an adapter of ``neurofm_ml.data.sources``, what
    the archive calls the dataset, its version, patterns of the files that are wanted, and how much that is."""

    adapter: str
    id: str
    version: str = ""
    include: tuple[str, ...] = ("*",)
    gigabytes: float | None = None


@config
class RecordingSpec:
    """One recording named in a card: who it is, the values of further ``{names}`` in its patterns, the part of its
    files to keep (`span`, seconds on their clock; default: all), and intervals that no file states (name -> start, end,
    label of each)."""

    id: str
    subject: Subject | None = None
    values: dict[str, str] = field(default_factory=dict)
    span: tuple[float, float] | None = None
    intervals: dict[str, tuple[tuple[float, float, str], ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.span is not None and not self.span[0] < self.span[1]:
            raise ValueError(f"recording {self.id!r}: span is {self.span[0]} to {self.span[1]}; the end must follow the start.")
        if "/" in self.id or self.id in ("", ".", ".."):
            raise ValueError(f"recording id is {self.id!r}; it names a folder, so it needs a name without '/'.")
        for name, value in self.values.items():
            check_inside(name, value)

    @property
    def names(self) -> dict[str, str]:
        """What ``{id}``, ``{subject}`` and the other names stand for."""
        return {"subject": self.subject.id if self.subject else self.id, **self.values, "id": self.id}


@config
class SubjectTable:
    """A table (csv or tsv) with one row per subject.

    `key` is the column that names the row and `match` what it holds for a recording (leading zeros are
    ignored); without `key`, `file` is the recording's own (its ``{names}`` are filled in) and holds one value of each.
    `fields` maps a field of Subject to its column or variable, `codes` a field to what its codes mean; an age times
    `age_scale` is in years.
    """

    file: str
    key: str = ""
    match: str = "{id}"
    fields: dict[str, str]
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    missing: tuple[str, ...] = ("", "n/a")
    age_scale: float = 1.0

    def __post_init__(self) -> None:
        if unknown := sorted({*self.fields, *self.codes} - set(SUBJECT_FIELDS)):
            raise ValueError(f"subjects: a subject has no {', '.join(unknown)}; it has {', '.join(SUBJECT_FIELDS)}.")
        check_inside("file", self.file)


@config
class DatasetCard:
    """One dataset: identity, files, series, intervals, cuts, tasks. `preprocess` is applied in order before windows are cut.

    `root` is a folder under NEUROFM_DATA. `pattern` is the file or files of one recording under the root, such
    as ``sub-{subject}.edf`` or ``{id}/*.gz``; recordings that are not listed are found by it, but for those that
    `leave_out` names (id -> why). Recordings with the same `session` share their channels: same units, same cap, same
    parcels.
    `expected` holds numbers that the files must show when they are read: n_recordings, n_subjects, duration_s
    (of all together) and n_channels.<signal> (of all sessions together).
    """

    name: str
    title: str
    species: str
    licence: str
    source: str
    reader: str
    root: str = ""
    pattern: str = ""
    session: str = "{id}"
    redistribute: bool = False
    citation: str = ""
    notes: str = ""
    signals: dict[str, SignalSpec]
    intervals: dict[str, IntervalSpec] = field(default_factory=dict)
    recordings: tuple[RecordingSpec, ...] = ()
    leave_out: dict[str, str] = field(default_factory=dict)
    subjects: SubjectTable | None = None
    archive: ArchiveSpec | None = None
    preprocess: tuple[StepSpec, ...] = ()
    grid_hz: float
    window_s: float
    stride_s: float
    split: SplitSpec = SplitSpec()
    tasks: tuple[TaskSpec, ...] = ()
    expected: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.name, *self.signals, *self.intervals, *(t.name for t in self.tasks)):
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name for a dataset, signal or task; use a-z, 0-9 and _.")
        for what in ("grid_hz", "window_s", "stride_s"):
            if not getattr(self, what) > 0:
                raise ValueError(f"{what} is {getattr(self, what)}; it must be positive.")
        for task in self.tasks:
            self._check_task(task)
        for name, signal in self.signals.items():
            if self.split.kind == "block" and (signal.bin_s or 0) > self.split.gap_s:
                raise ValueError(
                    f"split: gap_s is {self.split.gap_s:g}, but counts of {name!r} cover {signal.bin_s:g} s each, so blocks would share "
                    f"spikes; set gap_s to at least {signal.bin_s:g}."
                )
        check_inside("pattern", self.pattern)
        check_root(self.root)

    def _check_task(self, task: TaskSpec) -> None:
        series = task.inputs if task.is_label else (task.target, *task.inputs)
        if unknown := sorted(set(series) - set(self.signals)):
            raise ValueError(f"task {task.name!r} names {', '.join(unknown)}; the signals are {', '.join(self.signals)}.")
        if not task.is_label:
            self._check_series(task)
        half = self.window_s / 2
        if task.during and max(-task.during[0], task.during[1]) > half:
            raise ValueError(
                f"task {task.name!r}: during is {task.during[0]:g} to {task.during[1]:g} s, but a window knows the intervals that touch "
                f"it, so their start is within {half:g} s of its middle; set a longer window_s, or `during` within it."
            )
        if task.during and task.epoch:
            first, last = task.during[1] - half, task.during[0] + half
            if task.epoch[0] < first or task.epoch[1] > last:
                raise ValueError(
                    f"task {task.name!r}: epoch is {task.epoch[0]:g} to {task.epoch[1]:g} s, but windows of {self.window_s:g} s whose middle "
                    f"lies {task.during[0]:g} to {task.during[1]:g} s after the start all hold {first:g} to {last:g} s of it alone."
                )

    def _check_series(self, task: TaskSpec) -> None:
        target = self.signals[task.target]
        if target.ch_names and (unknown := sorted(set(task.channels) - set(target.ch_names))):
            raise ValueError(f"task {task.name!r} names channel {', '.join(unknown)}; {task.target} has {', '.join(target.ch_names)}.")
        of_activity, read = target.modality in READ, [name for name in task.inputs if self.signals[name].modality in READ]
        if task.category == "encoding" and of_activity and read:
            raise ValueError(f"task {task.name!r}: encoding is from a stimulus or behaviour, but its input {read[0]!r} is activity.")
        if (task.category == "encoding") != (of_activity and not read):
            raise ValueError(
                f"task {task.name!r}: category is {task.category!r}, but its target {task.target!r} is {target.modality}; activity is "
                "encoded from a stimulus or behaviour, anything else is decoded from activity."
            )

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in MODALITIES if any(s.modality == m for s in self.signals.values()))

    @property
    def series_tasks(self) -> tuple[TaskSpec, ...]:
        """Tasks that decode a series, bin by bin."""
        return tuple(task for task in self.tasks if not task.is_label and task.category == "decoding")

    @property
    def encoding_tasks(self) -> tuple[TaskSpec, ...]:
        """Tasks that tell activity from a stimulus or behaviour, bin by bin: no decoder is trained on them."""
        return tuple(task for task in self.tasks if task.category == "encoding")

    def series_tasks_of(self, recording: str) -> tuple[TaskSpec, ...]:
        """Those of `series_tasks` whose target and inputs this recording has."""
        only = {name: signal.recordings for name, signal in self.signals.items() if signal.recordings}
        return tuple(t for t in self.series_tasks if all(recording in only.get(name, (recording,)) for name in (t.target, *t.inputs)))

    @property
    def label_tasks(self) -> tuple[TaskSpec, ...]:
        """Tasks that give each window a label."""
        return tuple(task for task in self.tasks if task.is_label)

    def modality_of(self, task: TaskSpec) -> str:
        """The modalities of the activity that a task reads, or tells; joined by a plus."""
        names = (task.target,) if task.category == "encoding" else task.inputs
        return "+".join(dict.fromkeys(self.signals[name].modality for name in names))

    @property
    def measured(self) -> dict[str, SignalSpec]:
        """The signals that files hold: all but those that a step of preprocessing makes (its parameter `into`)."""
        made = {str(step.parameters.get("into")) for step in self.preprocess}
        return {name: signal for name, signal in self.signals.items() if name not in made}


# ---------------------------------------------------------------- the cards there are
def read_card(path: Path) -> DatasetCard:
    """One card file. Raises ValueError naming file and field.

    A user's card without `root`, or with a relative one that is not under NEUROFM_DATA, starts from its own folder.
    """
    return read_yaml_card(DatasetCard, path)


def datasets() -> Registry[DatasetCard]:
    """Every card: the package's, then those of the folder NEUROFM_CARDS; a wrong one among these is left out (`mistakes`)."""
    return cards_of(DatasetCard, "dataset", "datasets")


def mistakes() -> tuple[str, ...]:
    """What is wrong with the cards of NEUROFM_CARDS that were left out: one line each, naming file and field."""
    folder = os.environ.get("NEUROFM_CARDS")
    if folder and not Path(folder).is_dir():
        return (f"NEUROFM_CARDS is {folder!r}, which is no folder; point it at a folder of cards or unset it.",)
    return mistakes_in(DatasetCard, "dataset", "datasets")
