"""What each job can be told, and what tiny, small, medium and large mean for it.

The partition of an artifact says what it *is* (dataset, size, seed); these configs say how a run
is *tuned*. Importing this module needs neither torch nor dagster.
"""

from neurofm_ml.presets.adaptation import (
    AdaptConfig,
    ContinualConfig,
    DistillConfig,
    MetaConfig,
    adapt,
    continual,
    distill,
    meta_train,
)
from neurofm_ml.presets.audit import AuditConfig
from neurofm_ml.presets.augment import AugmentConfig
from neurofm_ml.presets.base import NEURAL, READ, SIDE, SIZES, SPLITS, Resources, preparation, resources
from neurofm_ml.presets.brain_jepa import BrainJEPAConfig, BrainJEPAPretrainConfig, brain_jepa, brain_jepa_pretrain
from neurofm_ml.presets.brainlm import BrainLMConfig, BrainLMPretrainConfig, brainlm, brainlm_pretrain
from neurofm_ml.presets.budget import BUDGETS, budget
from neurofm_ml.presets.curriculum import SamplingConfig, StageConfig, curriculum
from neurofm_ml.presets.data import FociConfig, IngestConfig, QualityConfig, ScalerConfig, ShardsConfig, TableConfig
from neurofm_ml.presets.eegnet import EEGNetConfig, EEGNetPretrainConfig, eegnet, eegnet_pretrain
from neurofm_ml.presets.embedding import EmbeddingConfig
from neurofm_ml.presets.evaluation import BaselinesConfig, RatesConfig, ScoreConfig
from neurofm_ml.presets.families import RECIPES, Recipe
from neurofm_ml.presets.features import FeaturesConfig, PlantedConfig, ProbeConfig, RepresentationConfig, SignalsConfig
from neurofm_ml.presets.labels import AdaptLabelsConfig, adapt_labels
from neurofm_ml.presets.loop import DeepSpeedConfig, FsdpConfig, TrainConfig
from neurofm_ml.presets.meg_transformer import MEGTransformerConfig, MEGTransformerPretrainConfig, meg_transformer, meg_transformer_pretrain
from neurofm_ml.presets.neurofmx import NeuroFMxConfig, neurofmx
from neurofm_ml.presets.release import BundleConfig, CardConfig, OnnxConfig
from neurofm_ml.presets.scaling import ScalingConfig, scaling
from neurofm_ml.presets.scorecard import ScorecardConfig
from neurofm_ml.presets.search import Leaf, SearchConfig, search
from neurofm_ml.presets.training import PretrainConfig, pretrain
from neurofm_ml.presets.transfer import CrossModalConfig, FewShotConfig, TransferConfig, ZeroShotConfig

__all__ = [
    "BUDGETS",
    "NEURAL",
    "READ",
    "RECIPES",
    "SIDE",
    "SIZES",
    "SPLITS",
    "AdaptConfig",
    "AdaptLabelsConfig",
    "AuditConfig",
    "AugmentConfig",
    "BaselinesConfig",
    "BrainJEPAConfig",
    "BrainJEPAPretrainConfig",
    "BrainLMConfig",
    "BrainLMPretrainConfig",
    "BundleConfig",
    "CardConfig",
    "ContinualConfig",
    "CrossModalConfig",
    "DeepSpeedConfig",
    "DistillConfig",
    "EEGNetConfig",
    "EEGNetPretrainConfig",
    "EmbeddingConfig",
    "FeaturesConfig",
    "FewShotConfig",
    "FociConfig",
    "FsdpConfig",
    "IngestConfig",
    "Leaf",
    "MEGTransformerConfig",
    "MEGTransformerPretrainConfig",
    "MetaConfig",
    "NeuroFMxConfig",
    "OnnxConfig",
    "PlantedConfig",
    "PretrainConfig",
    "ProbeConfig",
    "QualityConfig",
    "RatesConfig",
    "Recipe",
    "RepresentationConfig",
    "Resources",
    "SamplingConfig",
    "ScalerConfig",
    "ScalingConfig",
    "ScoreConfig",
    "ScorecardConfig",
    "SearchConfig",
    "ShardsConfig",
    "SignalsConfig",
    "StageConfig",
    "TableConfig",
    "TrainConfig",
    "TransferConfig",
    "ZeroShotConfig",
    "adapt",
    "adapt_labels",
    "brain_jepa",
    "brain_jepa_pretrain",
    "brainlm",
    "brainlm_pretrain",
    "budget",
    "continual",
    "curriculum",
    "distill",
    "eegnet",
    "eegnet_pretrain",
    "meg_transformer",
    "meg_transformer_pretrain",
    "meta_train",
    "neurofmx",
    "preparation",
    "pretrain",
    "resources",
    "scaling",
    "search",
]
