"""The steps there are: `STEPS` maps the name that a card uses to a step."""

from neurofm_ml.data.preprocess import filters
from neurofm_ml.data.preprocess.base import Step
from neurofm_ml.registry import Registry

STEPS: Registry[type[Step]] = Registry("preprocessing step")
STEPS.add("band_pass", filters.BandPass)
STEPS.add("notch", filters.Notch)
STEPS.add("resample", filters.Resample)
STEPS.add("lfp", filters.Lfp)
