"""Forecasting at several horizons. Shapes: B batch, H horizons, C channels, S samples of a patch."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from neurofm_ml.objectives.base import OBJECTIVES, Truth, average, misfit


class Forecast(Protocol):
    """forecast: signal -> (B, H, C, S), log rates for counts."""

    @property
    def forecast(self) -> Mapping[str, Tensor]: ...


@OBJECTIVES.register("forecast")
def forecast(predicted: Forecast, truth: Truth) -> Tensor:
    """Activity at every horizon after the last that was shown (Pandarinath et al. 2018 score spikes so; several horizons
    at once: Oord et al. 2018)."""
    return average([misfit(predicted.forecast[name], target, target.scored) for name, target in truth.forecast.items()], truth)
