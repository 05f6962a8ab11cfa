"""Models: one file per family. MODELS maps a family's name to its class."""

from torch import nn

from neurofm_ml.models.neurofmx import NeuroFMx
from neurofm_ml.registry import Registry

MODELS: Registry[type[nn.Module]] = Registry("model")
MODELS.add("neurofmx", NeuroFMx)

__all__ = ["MODELS", "NeuroFMx"]
