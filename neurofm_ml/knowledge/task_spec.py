"""What a card asks of its recordings: a series decoded bin by bin, activity told from a stimulus, or a label of each window."""

from dataclasses import fields as dataclass_fields
from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.types import Subject

#: What a card may know of a person.
SUBJECT_FIELDS = tuple(f.name for f in dataclass_fields(Subject) if f.name != "id")
Metric = Literal["r2", "pearson", "mae", "bits_per_spike", "auroc", "auprc", "balanced_accuracy", "accuracy", "macro_f1", "kappa"]
#: Metrics of numbers and counts, which need no classes, and of two classes; the others need two or more.
OF_NUMBERS: tuple[Metric, ...] = ("r2", "pearson", "mae", "bits_per_spike")
OF_TWO: tuple[Metric, ...] = ("auroc", "auprc")
#: Behaviour from activity; states, stimuli and events; who was recorded; activity from a stimulus.
Category = Literal["decoding", "state", "person", "encoding"]


@config
class TaskSpec:
    """Predict `channels` of the series `target` (all when empty) from the series `inputs`, bin by bin; or a label of each window.

    A label's `target` is ``subject.diagnosis`` (``sex``, ``age``, ...) or ``intervals.<name>``: the label, or what stands in
    `column`, of the interval that covers the window's middle. `classes` are the labels to tell apart, the positive one of two
    last; without them the label is a number. Windows with another label, or none, have no part in the task, but the class "" are those
    that no interval covers. `during` are the
    seconds [from, to) after an interval's start in which the middle must lie, for intervals that are instants and for answers
    that come late (default: the interval itself). `epoch` are the seconds [from, to) around its start that hold the answer:
    baselines read them alone, a model the whole window.

    `category` follows from the target, but for series of activity, which are "encoding", and for intervals that are a behaviour.
    """

    name: str
    target: str
    inputs: tuple[str, ...]
    channels: tuple[str, ...] = ()
    column: str = ""
    classes: tuple[str, ...] = ()
    during: tuple[float, float] | None = None
    epoch: tuple[float, float] | None = None
    metric: Metric = "r2"
    category: Category | Literal[""] = ""

    def __post_init__(self) -> None:
        kind, _, of = self.target.partition(".")
        if self.is_label and not ((kind == "intervals" and of) or (kind == "subject" and of in SUBJECT_FIELDS)):
            raise ValueError(
                f"task {self.name!r}: target is {self.target!r}; a label is intervals.<name> or subject.<field>, {', '.join(SUBJECT_FIELDS)}."
            )
        if kind != "intervals" and (self.column or self.during):
            raise ValueError(f"task {self.name!r}: column and during are of intervals, but target is {self.target!r}.")
        if self.epoch and not self.during:
            raise ValueError(f"task {self.name!r}: an epoch is cut from windows whose middle lies `during` known seconds; name them too.")
        for name, span in (("during", self.during), ("epoch", self.epoch)):
            if span and not span[0] < span[1]:
                raise ValueError(f"task {self.name!r}: {name} is {span[0]:g} to {span[1]:g} s; the end must follow the start.")
        self._check_classes()
        self._categorise()

    def _check_classes(self) -> None:
        n, needs = len(self.classes), {**dict.fromkeys(OF_NUMBERS, "none"), **dict.fromkeys(OF_TWO, "two, the positive one last")}
        if not (n == 0 if self.metric in OF_NUMBERS else n == 2 if self.metric in OF_TWO else n >= 2):
            wanted = needs.get(self.metric, "two or more")
            raise ValueError(f"task {self.name!r} has {n} classes; the metric {self.metric!r} needs {wanted}.")
        if self.classes and not self.is_label:
            raise ValueError(
                f"task {self.name!r} has classes, but target {self.target!r} is a series; name a subject's field or intervals."
            )
        if len(set(self.classes)) < n:
            raise ValueError(f"task {self.name!r} names a class twice: {', '.join(self.classes)}.")

    def _categorise(self) -> None:
        kind = self.target.partition(".")[0] if self.is_label else "series"
        allowed = {"subject": ("person",), "intervals": ("state", "decoding"), "series": ("decoding", "encoding")}[kind]
        if self.category and self.category not in allowed:
            raise ValueError(f"task {self.name!r}: category is {self.category!r}; for target {self.target!r} it is {' or '.join(allowed)}.")
        object.__setattr__(self, "category", self.category or allowed[0])

    @property
    def is_label(self) -> bool:
        """Whether a window has one answer, and not each of its bins."""
        return "." in self.target

    @property
    def of_subject(self) -> bool:
        """Whether it is asked of who was recorded, once per recording."""
        return self.target.startswith("subject.")
