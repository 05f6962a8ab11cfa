"""The linear probe: what a ridge reads from a model's frozen latents. Labelled a probe wherever it is shown."""

import numpy as np

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.baselines import measure
from neurofm_ml.evaluation.ridge import fit_ridge
from neurofm_ml.evaluation.tasks import Blocks, Case

METHOD = "linear_probe"


def fit_probe(case: Case, latents: Blocks, family: str, seed: int) -> Prediction:
    """Ridge without lags on latents: split -> (T, D), one row per bin of the block; penalty tuned on validation."""
    mean, std = latents["train"].mean(0), latents["train"].std(0)
    features = {split: (values - mean) / np.where(std > 0, std, 1.0) for split, values in latents.items()}
    return measure(case, METHOD, family, lambda data: fit_ridge(data, features, lags=(0,)), features["test"], seed)
