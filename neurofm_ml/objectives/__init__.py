"""Objectives: what a model is trained for. Each is a function of (prediction, truth) -> scalar loss.

Contract, tested over the registry: finite, with a gradient, smallest where the prediction is the
truth, untouched by padding; 0 when there is nothing to score.
"""

from neurofm_ml.objectives.activity import masked, next_step, reconstruction
from neurofm_ml.objectives.base import OBJECTIVES, Activity, Objective, Role, Target, Truth
from neurofm_ml.objectives.behaviour import behaviour
from neurofm_ml.objectives.contrastive import contrastive, info_nce, trimodal
from neurofm_ml.objectives.domains import domains, reversal
from neurofm_ml.objectives.forecast import forecast
from neurofm_ml.objectives.latents import jepa

__all__ = [
    "OBJECTIVES",
    "Activity",
    "Objective",
    "Role",
    "Target",
    "Truth",
    "behaviour",
    "contrastive",
    "domains",
    "forecast",
    "info_nce",
    "jepa",
    "masked",
    "next_step",
    "reconstruction",
    "reversal",
    "trimodal",
]
