"""Movement: velocity and acceleration of tracked points, speed and heading."""

import dataclasses
from typing import ClassVar

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.preprocess.base import DerivedStep
from neurofm_ml.types import Array, Series, Signal


def derivative(values: Array, sfreq: float, order: int = 1, window_s: float = 0.2, degree: int = 3) -> Array:
    """(n_times, n_chans) -> its derivative per second^`order`: of the polynomial of `degree` that fits `window_s` around each sample
    best (Savitzky & Golay 1964). NaN within half a window of a missing sample."""
    from scipy.signal import savgol_filter

    width = round(window_s * sfreq) | 1
    if not 1 <= order <= degree < width <= len(values):
        raise ValueError(
            f"window_s is {window_s:g} ({width} of {len(values)} samples); a polynomial of degree {degree} and its derivative {order} "
            f"need a window of at least {degree + 1} samples, within the recording."
        )
    missing = ~np.isfinite(values)
    found: Array = savgol_filter(np.where(missing, 0.0, values).astype(np.float64), width, degree, deriv=order, delta=1 / sfreq, axis=0)
    found[_near(missing, width)] = np.nan
    return found


def _near(missing: Array, width: int) -> Array:
    """Samples whose window holds a missing one; at the ends, the window is the first or last `width` samples."""
    from scipy.ndimage import maximum_filter1d

    near: Array = maximum_filter1d(missing, width, axis=0, mode="nearest")
    half = width // 2
    near[:half], near[-half:] = near[half], near[-half - 1]
    return near


def speed_heading(velocity: Array) -> tuple[Array, Array]:
    """(n_times, 2) velocity along x and y -> speed (n_times,) and heading (n_times,) in radians from the x axis towards the y axis."""
    return np.hypot(velocity[:, 0], velocity[:, 1]), np.arctan2(velocity[:, 1], velocity[:, 0])


@config
class Derivative(DerivedStep):
    """Velocity (`order` 1) or acceleration (2) of every channel."""

    modalities: ClassVar = ("pose", "eye", "task")
    order: int = 1
    window_s: float = 0.2
    degree: int = 3

    def derive(self, signal: Signal) -> Signal:
        values = derivative(np.asarray(signal.values), signal.sfreq, self.order, self.window_s, self.degree)
        per = "s" if self.order == 1 else f"s^{self.order}"
        return dataclasses.replace(signal, values=values.astype(np.float32), unit=f"{signal.unit}/{per}")

    def reach_s(self, series: Series) -> float:
        return self.window_s / 2


@config
class SpeedHeading(DerivedStep):
    """Speed, and the cosine and sine of the heading (an angle itself cannot be averaged), from the channels `x` and `y`."""

    modalities: ClassVar = ("pose",)
    x: str = "x"
    y: str = "y"
    window_s: float = 0.2
    degree: int = 3

    def derive(self, signal: Signal) -> Signal:
        if unknown := [name for name in (self.x, self.y) if name not in signal.ch_names]:
            raise ValueError(f"there is no channel {', '.join(unknown)}; name two of {', '.join(signal.ch_names)} in `x` and `y`.")
        xy = np.asarray(signal.values)[:, [signal.ch_names.index(self.x), signal.ch_names.index(self.y)]]
        speed, heading = speed_heading(derivative(xy, signal.sfreq, 1, self.window_s, self.degree))
        values = np.stack([speed, np.cos(heading), np.sin(heading)], axis=1).astype(np.float32)
        names = ("speed", "heading_cos", "heading_sin")
        return Signal(values, signal.sfreq, signal.modality, signal.t0, names, unit=f"{signal.unit}/s, 1, 1")

    def reach_s(self, series: Series) -> float:
        return self.window_s / 2
