"""The steps there are: `STEPS` maps the name that a card uses to a step."""

from neurofm_ml.data.preprocess import (
    artefacts,
    calcium,
    cardiac,
    clocks,
    eda,
    emg,
    filters,
    fmri,
    gaps,
    gaze,
    kinematics,
    respiration,
    source,
    spikes,
    timefreq,
)
from neurofm_ml.data.preprocess.base import Step
from neurofm_ml.registry import Registry

STEPS: Registry[type[Step]] = Registry("preprocessing step")
# Signals changed.
STEPS.add("align_clock", clocks.AlignClock)
STEPS.add("regularise", gaps.Regularise)
STEPS.add("fill_gaps", gaps.FillGaps)
STEPS.add("zscore", gaps.ZScore)
STEPS.add("band_pass", filters.BandPass)
STEPS.add("notch", filters.Notch)
STEPS.add("resample", filters.Resample)
STEPS.add("lfp", filters.Lfp)
STEPS.add("average_reference", artefacts.AverageReference)
STEPS.add("interpolate_bad", artefacts.InterpolateBad)
STEPS.add("remove_eye_components", artefacts.RemoveEyeComponents)
STEPS.add("remove_confounds", fmri.RemoveConfounds)
STEPS.add("delta_f_over_f", calcium.DeltaFOverF)
STEPS.add("smooth_spikes", spikes.SmoothSpikes)
STEPS.add("emg_envelope", emg.EmgEnvelope)
STEPS.add("moving_rms", emg.MovingRms)
# Signals and intervals made.
STEPS.add("morlet_power", timefreq.MorletPower)
STEPS.add("localise_sources", source.LocaliseSources)
STEPS.add("framewise_displacement", fmri.FramewiseDisplacement)
STEPS.add("dvars", fmri.Dvars)
STEPS.add("gaze_events", gaze.GazeEvents)
STEPS.add("derivative", kinematics.Derivative)
STEPS.add("speed_heading", kinematics.SpeedHeading)
STEPS.add("heart_beats", cardiac.HeartBeats)
STEPS.add("breathing", respiration.Breathing)
STEPS.add("skin_conductance", eda.SkinConductance)
