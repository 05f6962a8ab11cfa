"""Configs of baselines and scores."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.augment import AugmentConfig
from neurofm_ml.presets.base import fraction, not_negative, positive
from neurofm_ml.presets.loop import TrainConfig
from neurofm_ml.presets.neurofmx import NeuroFMxConfig


@config
class RatesConfig:
    """LFADS and NDT: widths, updates, and what is hidden of the activity they learn to infer.

    Segments of `segment` bins, `batch_size` at a time. Of each are hidden a share `elements` of all entries, a share `bins` of
    its bins, and of its channels a share drawn from [0, `channels`). The best of the states every `look_every` updates is kept.
    """

    d_model: int = 64
    n_factors: int = 16
    n_inputs: int = 4
    n_layers: int = 2
    n_heads: int = 4
    updates: int = 300
    batch_size: int = 16
    segment: int = 32
    lr: float = 4e-3
    weight_decay: float = 0.01
    elements: float = 0.2
    bins: float = 0.1
    channels: float = 0.5
    kl: float = 0.1
    look_every: int = 50

    def __post_init__(self) -> None:
        positive(self, "d_model", "n_factors", "n_inputs", "n_layers", "n_heads", "updates", "batch_size", "segment", "lr", "look_every")
        fraction(self, "elements", "bins", "channels", "weight_decay")
        not_negative(self, "kl")


@config
class BaselinesConfig:
    """Tuned baselines of the tasks of one dataset, or pool of them. All are fitted on training blocks and tuned on validation blocks alone.

    The budget is the same for all of a kind. What has a closed form (ridge, factors, neighbours, autoregression) is solved for
    every setting of a grid of 30 to 280. What is trained has at most the 300 updates of `train`, settings and all, which are
    about a recording's share of pretraining at size tiny and its fine-tuning; the model from scratch, `scratch`, has those of
    fine-tuning. `horizons_s` are the times that activity is forecast by; a `held_out` share of channels is reconstructed
    from the others.
    """

    dataset: str
    seed: int = 0
    model: NeuroFMxConfig = NeuroFMxConfig(backbone="gru")
    train: TrainConfig = TrainConfig(steps=300, checkpoint_every=300)
    augment: AugmentConfig = AugmentConfig()
    scratch: NeuroFMxConfig = NeuroFMxConfig()
    scratch_train: TrainConfig = TrainConfig(steps=200, lr=2e-3, checkpoint_every=200)
    rates: RatesConfig = RatesConfig()
    cebra_updates: int = 200
    horizons_s: tuple[float, ...] = (0.1, 1.0)
    held_out: float = 0.25

    def __post_init__(self) -> None:
        positive(self, "cebra_updates", "held_out")
        fraction(self, "held_out")
        if not self.horizons_s or min(self.horizons_s) <= 0:
            raise ValueError(f"BaselinesConfig.horizons_s is {self.horizons_s!r}; it needs one or more positive times in seconds.")


@config
class ScoreConfig:
    """Probe and fine-tuned scores of one run beside the baselines, with bootstrap intervals and controls.

    `variant` says what the model of an ablation lacks, and stands behind the names of its methods.
    """

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    variant: str = ""
    n_boot: int = 1000

    def __post_init__(self) -> None:
        positive(self, "n_boot")
