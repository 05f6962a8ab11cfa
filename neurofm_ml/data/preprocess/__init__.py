"""Preprocessing and derived streams: pure functions on arrays, and the steps that apply them to recordings.

`STEPS` names the steps a card may use, `UnifiedPreprocessor` applies those of a card. Arrays are (n_times,) or
(n_times, n_chans), rates Hz, times seconds.
"""

from neurofm_ml.data.preprocess.steps import STEPS
from neurofm_ml.data.preprocess.unified import UnifiedPreprocessor

__all__ = ["STEPS", "UnifiedPreprocessor"]
