"""Scores as pure functions of arrays: how good is a prediction?

Nothing is left out in silence: entries to leave out are named by `mask`, and a NaN that is used raises. Only numpy is needed
to import them, so training and evaluation share one definition of each score. SCORES holds those that a task can be scored by.
"""

from neurofm_ml.metrics.calibration import brier, crps_ensemble, crps_gaussian, ece
from neurofm_ml.metrics.classes import accuracy, balanced_accuracy, kappa, macro_f1
from neurofm_ml.metrics.continuous import mae, pearson, r2
from neurofm_ml.metrics.counts import LEAST_RATE, bits_per_spike, poisson_log_likelihood
from neurofm_ml.metrics.geometry import frechet_distance, participation_ratio, precision_recall, retrieval_top_k, silhouette
from neurofm_ml.metrics.ranking import auprc, auroc
from neurofm_ml.metrics.scores import SCORES, Score
from neurofm_ml.metrics.text import bleu

__all__ = [
    "LEAST_RATE",
    "SCORES",
    "Score",
    "accuracy",
    "auprc",
    "auroc",
    "balanced_accuracy",
    "bits_per_spike",
    "bleu",
    "brier",
    "crps_ensemble",
    "crps_gaussian",
    "ece",
    "frechet_distance",
    "kappa",
    "macro_f1",
    "mae",
    "participation_ratio",
    "pearson",
    "poisson_log_likelihood",
    "precision_recall",
    "r2",
    "retrieval_top_k",
    "silhouette",
]
