"""Places with planted readouts: series whose target is a linear map of slow features, and labels of trials and people."""

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.transfer.examples import ABOUT, Examples
from neurofm_ml.knowledge.cards import TaskSpec
from neurofm_ml.types import Array

SERIES = TaskSpec(name="velocity", target="velocity", inputs=("counts",))
TWO = TaskSpec(name="state", target="intervals.state", inputs=("eeg",), classes=("open", "closed"), metric="auroc")
PERSON = TaskSpec(name="diagnosis", target="subject.diagnosis", inputs=("bold",), classes=("control", "patient"), metric="auroc")


def about(n: int, splits: Array, **constant: object) -> pd.DataFrame:
    """n rows of one recording, each its own unit and trial, a second apart."""
    names = [f"{constant.get('recording', 'r')}@{k}" for k in range(n)]
    table = pd.DataFrame({"split": splits, "unit": names, "trial": names, "time": np.arange(n, dtype=float)})
    given = {"dataset": "toy", "recording": "r", "session": "s", "subject": "p", "species": "Mus musculus", "modality": "spikes"}
    return table.assign(**{**given, **constant})[list(ABOUT)]


def slow(rng: np.random.Generator, n: int, d: int, phi: float = 0.5) -> Array:
    """(n, d) AR(1) series of unit variance."""
    from scipy.signal import lfilter

    series: Array = lfilter([1.0], [1.0, -phi], rng.standard_normal((n + 50, d)) * np.sqrt(1 - phi**2), axis=0)[50:]
    return series


def series(weights: Array, noise: float, seed: int, n: int = 800, task: TaskSpec = SERIES, **constant: object) -> Examples:
    """Targets are features (n, D) times `weights` (D, K) and slow noise; the last quarter is the test block."""
    rng = np.random.default_rng(seed)
    x = slow(rng, n, len(weights))
    y = x @ weights + noise * slow(rng, n, weights.shape[1])
    splits = np.repeat(("train", "validation", "test"), [n // 2, n // 4, n - n // 2 - n // 4])
    return Examples(task, x, y, about(n, splits, **constant), tuple("xyz"[: y.shape[1]]))


def labels(strength: float, seed: int, n: int = 120, d: int = 8, task: TaskSpec = TWO, sign: float = 1.0, **constant: object) -> Examples:
    """Two classes, `strength` deviations apart along the first feature, one trial per row."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = rng.standard_normal((n, d))
    x[:, 0] += sign * strength * y
    return Examples(task, x, y[:, None].astype(float), about(n, np.resize(("train", "train", "validation", "test"), n), **constant))
