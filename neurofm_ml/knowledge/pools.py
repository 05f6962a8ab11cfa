"""Datasets whose recordings answer one task together: sites of one study, which a card of its own each reads."""

from neurofm_ml.config import config
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.knowledge.task_spec import TaskSpec
from neurofm_ml.registry import Registry


@config
class Pool:
    """Several datasets as one. `tasks` are tasks of all their cards, by name; `across` those that only all of them together
    can answer, since each has one class."""

    datasets: tuple[str, ...]
    tasks: tuple[str, ...]
    across: tuple[TaskSpec, ...] = ()

    @property
    def specs(self) -> tuple[TaskSpec, ...]:
        """All its tasks; those of the cards as the first card states them."""
        stated = {task.name: task for task in datasets()[self.datasets[0]].label_tasks}
        return (*(stated[name] for name in self.tasks), *self.across)


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
