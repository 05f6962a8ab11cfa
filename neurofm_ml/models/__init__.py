"""Models: one file per family. MODELS maps a family's name to its class."""

from torch import nn

from neurofm_ml.models.brain_jepa import BrainJEPA
from neurofm_ml.models.brainlm import BrainLM
from neurofm_ml.models.eegnet import EEGNet
from neurofm_ml.models.meg_transformer import MEGTransformer
from neurofm_ml.models.neurofmx import NeuroFMx
from neurofm_ml.registry import Registry

MODELS: Registry[type[nn.Module]] = Registry("model")
MODELS.add("neurofmx", NeuroFMx)
MODELS.add("eegnet", EEGNet)
MODELS.add("meg_transformer", MEGTransformer)
MODELS.add("brainlm", BrainLM)
MODELS.add("brain_jepa", BrainJEPA)

__all__ = ["MODELS", "BrainJEPA", "BrainLM", "EEGNet", "MEGTransformer", "NeuroFMx"]
