"""Shape and pretraining of Brain-JEPA."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.base import checked_size, fraction, not_negative, positive
from neurofm_ml.presets.brainlm import heads, parcel_training
from neurofm_ml.presets.loop import TrainConfig


@config
class BrainJEPAConfig:
    """Shape of Brain-JEPA: patches as BrainLM's, parcels placed by `n_gradients` functional gradients, a narrow predictor."""

    patch_s: float = 16.0
    n_samples: int = 8
    n_gradients: int = 10
    d_model: int = 64
    n_layers: int = 3
    n_heads: int = 4
    d_predictor: int = 32
    n_predictor_layers: int = 1
    n_predictor_heads: int = 2

    def __post_init__(self) -> None:
        positive(
            self, "n_samples", "n_gradients", "d_model", "n_layers", "n_heads", "d_predictor", "n_predictor_layers", "n_predictor_heads"
        )
        not_negative(self, "patch_s")
        heads(self, "d_model", "n_heads")
        heads(self, "d_predictor", "n_predictor_heads")


@config
class BrainJEPAPretrainConfig:
    """Pretraining of Brain-JEPA.

    The context is a share `seen_parcels` of the parcels during a stretch of `seen_time` of the window; of each of the three
    parts that it leaves (other parcels, other times, both), `asked` of the parcels are to be predicted. The target encoder
    keeps `momentum` of itself at each update, which rises to 1.
    """

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    model: BrainJEPAConfig
    train: TrainConfig
    seen_parcels: float = 0.6
    seen_time: float = 0.6
    asked: float = 0.5
    momentum: float = 0.996
    datasets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        positive(self, "seen_parcels", "seen_time", "asked")
        fraction(self, "seen_parcels", "seen_time", "asked", "momentum")


def brain_jepa(size: str) -> BrainJEPAConfig:
    """small, medium and large are the encoders of the published ones: 22M, 86M and 307M."""
    shape = {
        "tiny": {},
        "small": {"d_model": 384, "n_layers": 12, "n_heads": 6, "d_predictor": 192, "n_predictor_layers": 6, "n_predictor_heads": 6},
        "medium": {"d_model": 768, "n_layers": 12, "n_heads": 12, "d_predictor": 384, "n_predictor_layers": 6, "n_predictor_heads": 12},
        "large": {"d_model": 1024, "n_layers": 24, "n_heads": 16, "d_predictor": 384, "n_predictor_layers": 6, "n_predictor_heads": 12},
    }[checked_size(size)]
    return BrainJEPAConfig(n_gradients=10 if size == "tiny" else 30, **shape)


def brain_jepa_pretrain(size: str, seed: int = 0) -> BrainJEPAPretrainConfig:
    """Pretraining at one size; the larger ones assume the GPUs that `resources` asks for."""
    return BrainJEPAPretrainConfig(seed=seed, size=size, model=brain_jepa(size), train=parcel_training(size))  # type: ignore[arg-type]
