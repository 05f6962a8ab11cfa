"""Config of the leakage audit."""

from neurofm_ml.config import config
from neurofm_ml.presets.base import fraction, positive


@config
class AuditConfig:
    """What counts as a leak.

    least_r         two windows that hold the same are correlated so much at least
    least_surprise  and by so many deviations of what unrelated series with their autocorrelations reach
    most_offset     a scaler's mean and deviation may be off by so many deviations of the training windows
    seed            of the random planes that windows are looked up by
    """

    seed: int = 0
    least_r: float = 0.7
    least_surprise: float = 9.0
    most_offset: float = 1e-4

    def __post_init__(self) -> None:
        fraction(self, "least_r")
        positive(self, "least_surprise", "most_offset")
