"""Tuned baselines of label tasks."""

from neurofm_ml.evaluation.label_baselines.registry import LABEL_BASELINES, LabelBaseline

__all__ = ["LABEL_BASELINES", "LabelBaseline"]
