"""Configs of export, cards and bundles."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.base import positive


@config
class OnnxConfig:
    """Export the adapted decoder; refuse it when it differs from torch by more than `tolerance` (relative L2)."""

    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        positive(self, "tolerance")


@config
class CardConfig:
    """The model card of one run."""

    size: Literal["tiny", "small", "medium", "large"]
    seed: int


@config
class BundleConfig:
    """The release folder of one run."""

    size: Literal["tiny", "small", "medium", "large"]
    seed: int
