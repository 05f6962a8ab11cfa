"""Config of the report of a size."""

from typing import Literal

from neurofm_ml.config import config


@config
class ScorecardConfig:
    """The report of all runs of one size."""

    size: Literal["tiny", "small", "medium", "large"]
