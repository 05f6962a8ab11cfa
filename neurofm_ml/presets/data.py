"""Configs of the data jobs."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.base import fraction, positive


@config
class IngestConfig:
    """Read one dataset's raw files into recordings."""

    dataset: str


@config
class QualityConfig:
    """Thresholds of the quality checks of one dataset's recordings."""

    dataset: str
    max_flat_fraction: float = 0.5
    max_jump_s: float = 1.0

    def __post_init__(self) -> None:
        fraction(self, "max_flat_fraction")
        positive(self, "max_jump_s")


@config
class ShardsConfig:
    """Cut one dataset's recordings into windows, split them, write WebDataset shards.

    `layout` "multimodal" keeps all signals of a window side by side, "modality" gives each modality tars of its own:
    for those who read few of many signals from behind a URL.
    """

    dataset: str
    shard_mb: float = 50.0
    layout: Literal["multimodal", "modality"] = "multimodal"

    def __post_init__(self) -> None:
        positive(self, "shard_mb")


@config
class ScalerConfig:
    """Mean and deviation per channel of one modality, over the training windows of `datasets` (None: of all that are here)."""

    modality: str
    datasets: tuple[str, ...] | None = None


@config
class FociConfig:
    """Read a corpus of activation coordinates."""

    corpus: str = "nback_flanker"


@config
class TableConfig:
    """Join the files of a table and judge it by its card."""

    table: str
