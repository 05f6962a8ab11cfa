"""Datasets whose recordings answer one task together: sites of one study, which a card of its own each reads."""

from collections.abc import Sequence

from neurofm_ml.config import config
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.knowledge.task_spec import TaskSpec
from neurofm_ml.registry import Registry


@config
class Pool:
    """Several datasets as one. `tasks` are tasks of all their cards, by name; `across` those that only all of them together
    can answer, since each has one class."""

    datasets: tuple[str, ...]
    tasks: tuple[str, ...]
    across: tuple[TaskSpec, ...] = ()

    def specs(self, cards: Sequence[DatasetCard]) -> tuple[TaskSpec, ...]:
        """All its tasks. Raises ValueError where its cards do not state one alike."""
        stated = [{task.name: task for task in card.label_tasks} for card in cards]
        for name in self.tasks:
            if len({own.get(name) for own in stated}) > 1:
                raise ValueError(
                    f"task {name!r} is not the same in the cards of {', '.join(c.name for c in cards)}; state it alike, then make their shards again."
                )
        return (*(stated[0][name] for name in self.tasks), *self.across)


def pooled_together(one: str, other: str) -> bool:
    """Whether two datasets stand in one pool."""
    return one != other and any({one, other} <= set(POOLS[name].datasets) for name in POOLS)


POOLS: Registry[Pool] = Registry("pool")
POOLS.add(
    "abide",
    Pool(
        datasets=("abide_nyu", "abide_olin", "abide_pitt", "abide_sdsu", "abide_stanford", "abide_yale"),
        tasks=("diagnosis", "sex", "age", "cognition"),
        across=(
            TaskSpec(
                name="site",
                target="subject.site",
                inputs=("bold",),
                classes=("NYU", "OLIN", "PITT", "SDSU", "STANFORD", "YALE"),
                metric="balanced_accuracy",
            ),
        ),
    ),
)
