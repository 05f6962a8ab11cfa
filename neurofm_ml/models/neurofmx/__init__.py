"""NeuroFMx, the multimodal model: its body (`model`), its heads (`heads`), and decoding in closed loop (`streaming`)."""

from neurofm_ml.models.neurofmx.heads import HEADS, Prediction
from neurofm_ml.models.neurofmx.model import NeuroFMx
from neurofm_ml.models.neurofmx.streaming import Stream

__all__ = ["HEADS", "NeuroFMx", "Prediction", "Stream"]
