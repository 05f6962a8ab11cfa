"""Whether something was fitted on the training windows and on no others: fitted again, it must say the same.

`standardiser_offsets` judges any standardiser, of inputs, features or targets, given the rows it should have seen.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from neurofm_ml.data.scaler import Moments, training_moments
from neurofm_ml.evaluation.audit.findings import Finding, Side
from neurofm_ml.evaluation.audit.used import Used
from neurofm_ml.types import Array


def standardiser_offsets(mean: Array, std: Array, training: Moments) -> Array:
    """(C,) how far a fitted mean and deviation are from those of the training rows, in deviations of these rows."""
    rows = pd.DataFrame(training.rows(map(str, range(len(mean)))))
    expected, deviation = rows["mean"].to_numpy(), rows["std"].to_numpy()
    off = np.maximum(np.abs(mean - expected), np.abs(std - deviation)) / deviation
    return np.where(np.isfinite(off), off, np.inf)


def wrong_scalers(used: Sequence[Used], scaler: Sequence[Path], most: float) -> list[Finding]:
    """One finding per session and signal whose scaler is off by more than `most`, or saw another number of rows."""
    fitted = pd.concat([pd.read_parquet(folder / "scaler.parquet") for folder in scaler], ignore_index=True)
    found: list[Finding] = []
    for one in used:
        own = fitted[fitted.dataset == one.card.name]
        names = set(own.signal)
        modalities = {about["modality"] for signals in one.channels.values() for name, about in signals.items() if name in names}
        moments = {key: m for modality in modalities for key, m in training_moments(one.shards, one.channels, modality).items()}
        for session, signal in dict.fromkeys(zip(own.session, own.signal, strict=True)):
            rows = own[(own.session == session) & (own.signal == signal)]
            found += _wrong(one.card.name, session, signal, rows, moments.get((session, signal)), most)
    return found


def _wrong(dataset: str, session: str, signal: str, rows: pd.DataFrame, training: Moments | None, most: float) -> list[Finding]:
    # Rows of a session without a training window, or of other channels, can only have come from elsewhere.
    if training is None or len(training.n) != len(rows):
        training = Moments(len(rows))
    off = standardiser_offsets(rows["mean"].to_numpy(), rows["std"].to_numpy(), training)
    more = int((rows.n.to_numpy() - training.n).max())
    if off.max() <= most and np.array_equal(rows.n, training.n):
        return []
    channel = str(rows.channel.iloc[off.argmax()])
    evidence = f"scaler of {signal} of {session} is {off.max():.3g} deviations off in channel {channel}, and saw {more:+d} rows"
    a, b = Side(dataset, "train", who=session), Side(dataset, "not train", who=session)
    return [Finding("scaler", a, b, 0, float(off.max()), evidence)]
