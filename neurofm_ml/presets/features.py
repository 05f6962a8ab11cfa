"""Configs of what is read from frozen models: features, their representation, and the planted benchmark."""

from neurofm_ml.config import config
from neurofm_ml.presets.base import positive
from neurofm_ml.presets.loop import TrainConfig
from neurofm_ml.presets.neurofmx import NeuroFMxConfig


@config
class FeaturesConfig:
    """Features of a frozen model: of which datasets (default: all that are here and that it can read), and how many windows at once."""

    datasets: tuple[str, ...] | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        positive(self, "batch_size")


@config
class ProbeConfig:
    """Linear probes of every layer on every task; the seed is that of the shuffled controls."""

    seed: int = 0


@config
class RepresentationConfig:
    """Identity, similarity and reach of an embedding: exchanges for each p, resamples for each interval."""

    seed: int = 0
    n_perm: int = 500
    n_boot: int = 1000

    def __post_init__(self) -> None:
        positive(self, "n_perm", "n_boot")


@config
class PlantedConfig:
    """The planted benchmark: how many simulated recordings of how many seconds, and the model that is pretrained on them."""

    seed: int = 0
    recordings: int = 2
    duration_s: float = 300.0
    model: NeuroFMxConfig = NeuroFMxConfig()
    train: TrainConfig = TrainConfig(steps=400, ema=0.995, checkpoint_every=200)

    def __post_init__(self) -> None:
        positive(self, "recordings", "duration_s")


@config
class SignalsConfig:
    """What a pretrained model says of silenced channels and of what follows; asked as the baselines are."""

    seed: int = 0
