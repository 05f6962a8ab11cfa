"""Which baselines there are for labels of windows and people, and what each looks at.

LABEL_BASELINES: name -> baseline, `(case, config, artifact folder) -> Prediction` with `applies(case)`. What knows nothing of
the window, the commonest class or the mean, is no baseline: it is chance.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.label_baselines import activity, heads, spectra, together
from neurofm_ml.evaluation.label_baselines.choosing import FeatureBaseline
from neurofm_ml.evaluation.label_baselines.eegnet import EEGNetBaseline
from neurofm_ml.evaluation.label_baselines.views import View, are_known, shared_channels
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase
from neurofm_ml.presets import BaselinesConfig
from neurofm_ml.registry import Registry

#: Modalities of which spikes and events fire or glow unit by unit.
UNITS = ("spikes", "calcium", "intracellular")

BANDS = (View("bands", spectra.band_power, "channels"), View("spectrum", spectra.spectrum, "channels"))
COVARIANCES = (View("covariance", together.broad, "tangent"), View("filter_bank", together.bank, "tangent"))
CONNECTIVITY = (View("tangent", together.connectivity, "tangent", 256), View("slow_tangent", together.slow_connectivity, "tangent", 256))
PAIRS = (View("correlations", together.pairs, "shared"), View("slow_correlations", together.slow_pairs, "shared"))
COURSES = (View("mean", activity.mean, "channels"), View("course", activity.quarters, "channels"))
RESPONSES = (View("course", activity.eighths, "channels"), View("response", activity.response, "channels"))
POPULATION = (View("population", activity.population, "window"),)


class LabelBaseline(Protocol):
    """A baseline by its `name`."""

    @property
    def name(self) -> str: ...

    def applies(self, case: LabelCase) -> bool: ...

    def __call__(self, case: LabelCase, cfg: BaselinesConfig, out: Path) -> Prediction: ...


# ---------------------------------------------------------------- what is looked at
def rhythms(case: LabelCase) -> Sequence[View]:
    """Band power of potentials and fields."""
    return BANDS if case.modality in spectra.BANDS and are_known(case.data) else ()


def covariances(case: LabelCase) -> Sequence[View]:
    """Covariances of channels that all windows have."""
    if len(shared_channels(case.data)) < 2:
        return ()
    return CONNECTIVITY if case.modality == "fmri" else COVARIANCES if case.modality in spectra.BANDS else ()


def connectivity(case: LabelCase) -> Sequence[View]:
    """Correlations of parcels."""
    return PAIRS if case.modality == "fmri" and len(shared_channels(case.data)) > 1 else ()


def of_classes(case: LabelCase) -> Sequence[View]:
    """The same, where there are classes."""
    return connectivity(case) if case.task.classes else ()


def courses(case: LabelCase) -> Sequence[View]:
    """How active each channel is, and when; of muscles the sign means nothing."""
    if case.modality == "emg" or not are_known(case.data):
        return ()
    return RESPONSES if case.modality in spectra.BANDS else COURSES


def populations(case: LabelCase) -> Sequence[View]:
    """What can be said of units that are never seen again."""
    return POPULATION if case.modality in UNITS else ()


def suited(case: LabelCase) -> Sequence[View]:
    """What the modality is first looked at for."""
    people = connectivity(case) if case.task.of_subject else ()
    return people or rhythms(case) or courses(case) or populations(case)


def compact(case: LabelCase) -> Sequence[View]:
    """The coarsest of these, few features, as trees need them: none for every pair of parcels."""
    return (rhythms(case) or courses(case) or populations(case))[:1]


LABEL_BASELINES: Registry[LabelBaseline] = Registry("baseline of labels")
for _baseline in (
    FeatureBaseline("band_power_linear", rhythms, heads.linear),
    FeatureBaseline("tangent_linear", covariances, heads.linear),
    FeatureBaseline("fc_ridge", connectivity, heads.ridge),
    FeatureBaseline("fc_logistic", of_classes, heads.linear),
    FeatureBaseline("course_linear", courses, heads.linear),
    FeatureBaseline("population_linear", populations, heads.linear),
    FeatureBaseline("knn", suited, heads.nearest),
    FeatureBaseline("boosting", compact, heads.boosting, n_controls=1),
    EEGNetBaseline(),
):
    LABEL_BASELINES.add(_baseline.name, _baseline)
