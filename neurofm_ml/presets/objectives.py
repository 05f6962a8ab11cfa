"""Weights of objectives, and how they are balanced while training."""

from collections.abc import Mapping
from typing import Literal

#: The weights alone, learned variances, or equal gradients: see `training.weighting`.
Weighting = Literal["fixed", "uncertainty", "gradient_norm"]


def checked_weights(owner: object, weights: Mapping[str, float]) -> None:
    """Refuse weights of the field `objectives` that no training could go by."""
    if not (all(weight >= 0 for weight in weights.values()) and any(weights.values())):
        raise ValueError(f"{type(owner).__name__}.objectives is {weights!r}; weights must not be negative, and one must be positive.")
