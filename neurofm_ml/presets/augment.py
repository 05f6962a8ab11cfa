"""Config of augmentation."""

from neurofm_ml.config import config
from neurofm_ml.presets.base import fraction, not_negative


@config
class AugmentConfig:
    """What training windows go through: share of signals dropped where there are several, largest unit dropout,
    masked share of time, noise and largest drift in deviations.

    Drift is an offset per channel that lasts the whole window: what electrodes and animals do within the hour.
    """

    modality_dropout: float = 0.5
    unit_dropout: float = 0.6
    time_mask: float = 0.1
    noise: float = 0.3
    drift: float = 0.4

    def __post_init__(self) -> None:
        fraction(self, "modality_dropout", "unit_dropout", "time_mask")
        not_negative(self, "noise", "drift")
