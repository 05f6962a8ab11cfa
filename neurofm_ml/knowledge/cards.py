"""Dataset cards: what a dataset is, where its files lie, how they are read, cut, split and scored.

A card is one YAML file. The package's own cards stand in ``knowledge/datasets``; a user's cards
stand in the folder named by ``NEUROFM_CARDS`` and need no code. Raw files lie under
``NEUROFM_DATA``. Unknown fields are refused by name.
"""

from dataclasses import field
from typing import Any, Literal

from neurofm_ml.config import config
from neurofm_ml.types import MODALITIES


@config
class SplitSpec:
    """How windows are divided. "block": contiguous time, first `train`, then `validation`, rest test,
    `gap_s` seconds dropped at each border. "subject"/"recording": whole ones by seeded hash."""

    kind: Literal["block", "subject", "recording"] = "block"
    train: float = 0.6
    validation: float = 0.15
    gap_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.train > 0 and self.validation >= 0 and self.train + self.validation < 1):
            raise ValueError(f"split: train {self.train} and validation {self.validation} must be positive and leave room for a test part.")


@config
class TaskSpec:
    """A decoding task: predict `channels` of the series `target` (all when empty) from the series `inputs`."""

    name: str
    target: str
    inputs: tuple[str, ...]
    channels: tuple[str, ...] = ()
    metric: Literal["r2"] = "r2"


@config
class DatasetCard:
    """One dataset. `signals` and `recordings` are read by the reader named in `reader`."""

    name: str
    title: str
    species: str
    licence: str
    source: str
    reader: str
    root: str = ""
    redistribute: bool = False
    citation: str = ""
    signals: dict[str, Any]
    recordings: tuple[Any, ...] = ()
    grid_hz: float
    window_s: float
    stride_s: float
    split: SplitSpec = SplitSpec()
    tasks: tuple[TaskSpec, ...] = ()
    expected: dict[str, float] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in MODALITIES if any(s["modality"] == m for s in self.signals.values()))
