"""Config of augmentation."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.base import fraction, not_negative, positive


@config
class AugmentConfig:
    """What training windows go through: share of signals dropped where there are several, largest unit dropout,
    masked share of time, noise and largest drift in deviations.

    Drift is an offset per channel that lasts the whole window: what electrodes and animals do within the hour.
    Time is masked patch by patch ("random"), in stretches of `mask_s` seconds ("block"), or, more and more as training
    goes on, where the signal is strong ("adaptive"). A share `channel_mask` of channels is silent for
    `channel_mask_s` seconds. Input moves by up to `time_shift_s` seconds against the targets, either way.
    """

    modality_dropout: float = 0.5
    unit_dropout: float = 0.6
    time_mask: float = 0.1
    mask: Literal["random", "block", "adaptive"] = "random"
    mask_s: float = 0.5
    channel_mask: float = 0.0
    channel_mask_s: float = 0.5
    time_shift_s: float = 0.0
    noise: float = 0.3
    drift: float = 0.4

    def __post_init__(self) -> None:
        fraction(self, "modality_dropout", "unit_dropout", "time_mask", "channel_mask")
        positive(self, "mask_s", "channel_mask_s")
        not_negative(self, "noise", "drift", "time_shift_s")
