"""Every task that the data there are can be asked, as rows: what the report lists, and what a score is a score of.

Tasks of cards and of pools are stated there. Any neural signal of a recording that is split in time can be forecast, and its channels
reconstructed from the others; any two streams at once can be aligned.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from neurofm_ml.knowledge.cards import DatasetCard, datasets
from neurofm_ml.knowledge.pools import POOLS
from neurofm_ml.knowledge.task_spec import TaskSpec
from neurofm_ml.presets import READ, BaselinesConfig

CATEGORIES = ("decoding", "state", "person", "encoding", "forecasting", "reconstruction", "alignment")


@dataclass(frozen=True)
class TaskRow:
    """One task of one dataset, or of a pool of them. `inputs` are signals, `target` what is told from them, `split` the rule that
    keeps training and test apart."""

    dataset: str
    task: str
    category: Literal["decoding", "state", "person", "encoding", "forecasting", "reconstruction", "alignment"]
    species: str
    modality: str
    inputs: tuple[str, ...]
    target: str
    metric: str
    split: str


def tasks(horizons_s: Sequence[float] = BaselinesConfig.horizons_s) -> tuple[TaskRow, ...]:
    """All tasks of all cards and pools; forecasts by `horizons_s` seconds."""
    registry = datasets()
    rows = [row for name in registry for row in _of_card(registry[name], horizons_s)]
    return (*rows, *(row for name in POOLS for row in _of_pool(name)))


def forecast_name(signal: str, horizon_s: float) -> str:
    """How a forecast of a signal by so many seconds is called."""
    return f"{signal}_in_{horizon_s:g}s"


def reconstruction_name(signal: str) -> str:
    """How the reconstruction of a signal's channels from the others is called."""
    return f"{signal}_reconstruction"


def alignment_name(one: str, other: str) -> str:
    """How the alignment of two streams is called."""
    return f"{one}_with_{other}"


def _of_card(card: DatasetCard, horizons: Sequence[float]) -> Iterator[TaskRow]:
    yield from (_row(card, card.name, task, rule(card)) for task in card.tasks)
    if card.split.kind != "block":
        return
    neural = [
        name for name, signal in card.signals.items() if signal.modality in READ and name not in {t.target for t in card.series_tasks}
    ]
    for name in neural:
        modality, metric = card.signals[name].modality, "bits_per_spike" if card.signals[name].modality == "spikes" else "r2"
        about = (card.species, modality, (name,), name, metric, rule(card))
        yield from (TaskRow(card.name, forecast_name(name, h), "forecasting", *about) for h in horizons)
        yield TaskRow(card.name, reconstruction_name(name), "reconstruction", *about)
    for one, other in combinations(card.signals, 2):
        if neural and {one, other} & {*neural} and _at_once(card, one, other):
            modality = "+".join(dict.fromkeys(card.signals[name].modality for name in (one, other)))
            yield TaskRow(
                card.name, alignment_name(one, other), "alignment", card.species, modality, (one,), other, "retrieval_top1", rule(card)
            )


def _at_once(card: DatasetCard, one: str, other: str) -> bool:
    """Whether a recording may hold both signals."""
    first, second = (set(card.signals[name].recordings) for name in (one, other))
    return not (first and second) or bool(first & second)


def _of_pool(name: str) -> Iterator[TaskRow]:
    pool = POOLS[name]
    first = datasets()[pool.datasets[0]]
    for task in pool.specs([datasets()[name] for name in pool.datasets]):
        yield _row(first, name, task, f"{rule(first)}; leave one site out" if task not in pool.across else rule(first))


def _row(card: DatasetCard, dataset: str, task: TaskSpec, split: str) -> TaskRow:
    assert task.category
    return TaskRow(dataset, task.name, task.category, card.species, card.modality_of(task), task.inputs, task.target, task.metric, split)


def rule(card: DatasetCard) -> str:
    """How the windows of a dataset are divided, in words."""
    spec = card.split
    test = 1 - spec.train - spec.validation
    shares = f"{spec.train:.0%} / {spec.validation:.0%} / {test:.0%}"
    return f"blocks of time {shares}, {spec.gap_s:g} s apart" if spec.kind == "block" else f"whole {_PLURALS[spec.kind]} {shares}"


_PLURALS = {"recording": "recordings", "session": "sessions", "subject": "subjects", "family": "families", "site": "sites"}
