"""The families of models: what each is, what it reads, and how its pretraining is told what to do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neurofm_ml.presets.base import READ
from neurofm_ml.presets.brain_jepa import BrainJEPAPretrainConfig, brain_jepa_pretrain
from neurofm_ml.presets.brainlm import BrainLMPretrainConfig, brainlm_pretrain
from neurofm_ml.presets.eegnet import EEGNetPretrainConfig, eegnet_pretrain
from neurofm_ml.presets.meg_transformer import MEGTransformerPretrainConfig, meg_transformer_pretrain
from neurofm_ml.presets.training import PretrainConfig, pretrain


@dataclass(frozen=True)
class Recipe:
    """A family: `config` of its pretraining and the preset that makes it from size and seed, modalities it reads, and whether
    it learns from labels alone."""

    about: str
    config: type
    preset: Callable[[str, int], Any]
    modalities: tuple[str, ...]
    supervised: bool = False


#: Family -> recipe. How each is built and trained stands in ``neurofm_ml.training``.
RECIPES = {
    "neurofmx": Recipe(
        "Checkpoint of the multimodal model: masked modelling and behaviour decoding on the training blocks of every dataset that is here.",
        PretrainConfig,
        pretrain,
        READ,
    ),
    "brainlm": Recipe(
        "Checkpoint of BrainLM: parcels and stretches of time that are hidden, filled in from the others.",
        BrainLMPretrainConfig,
        brainlm_pretrain,
        ("fmri",),
    ),
    "brain_jepa": Recipe(
        "Checkpoint of Brain-JEPA: the embedding of hidden parcels and times, predicted from that of others.",
        BrainJEPAPretrainConfig,
        brain_jepa_pretrain,
        ("fmri",),
    ),
    "eegnet": Recipe(
        "Checkpoint of EEGNet: labels of EEG windows told apart, the small network that larger ones have to beat.",
        EEGNetPretrainConfig,
        eegnet_pretrain,
        ("eeg",),
        supervised=True,
    ),
    "meg_transformer": Recipe(
        "Checkpoint of the MEG transformer: hidden patches of sensors, filled in from the others.",
        MEGTransformerPretrainConfig,
        meg_transformer_pretrain,
        ("meg",),
    ),
}
