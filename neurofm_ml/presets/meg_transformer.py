"""Shape and pretraining of the MEG transformer."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.base import checked_size, fraction, positive
from neurofm_ml.presets.loop import TrainConfig


@config
class MEGTransformerConfig:
    """Shape: every `patch_s` seconds of every sensor make a token, from `n_samples` points."""

    patch_s: float = 0.025
    n_samples: int = 16
    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 4

    def __post_init__(self) -> None:
        positive(self, "patch_s", "n_samples", "d_model", "n_layers", "n_heads")
        if self.d_model % (2 * self.n_heads):
            raise ValueError(f"MEGTransformerConfig.n_heads is {self.n_heads}; twice that must divide d_model = {self.d_model}.")


@config
class MEGTransformerPretrainConfig:
    """Masked pretraining on `datasets` (None: all that are here and have MEG): the share `hidden` of tokens is filled in from the others."""

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    model: MEGTransformerConfig
    train: TrainConfig
    hidden: float = 0.5
    datasets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        positive(self, "hidden")
        fraction(self, "hidden")


def meg_transformer(size: str) -> MEGTransformerConfig:
    """About 0.1M, 20M, 110M and 400M parameters."""
    return {
        "tiny": MEGTransformerConfig(),
        "small": MEGTransformerConfig(d_model=384, n_layers=8, n_heads=6),
        "medium": MEGTransformerConfig(d_model=768, n_layers=12, n_heads=12),
        "large": MEGTransformerConfig(d_model=1280, n_layers=16, n_heads=16),
    }[checked_size(size)]


def meg_transformer_pretrain(size: str, seed: int = 0) -> MEGTransformerPretrainConfig:
    """Pretraining at one size; the larger ones assume the GPUs that `resources` asks for."""
    train = {
        "tiny": TrainConfig(steps=300, batch_size=8, lr=2e-3, checkpoint_every=100),
        "small": TrainConfig(steps=100_000, batch_size=32, lr=5e-4, ema=0.999, precision="bf16-mixed", checkpoint_every=1000),
        "medium": TrainConfig(
            steps=200_000, batch_size=16, lr=3e-4, ema=0.999, precision="bf16-mixed", strategy="ddp", checkpoint_every=1000
        ),
        "large": TrainConfig(
            steps=300_000, batch_size=8, lr=2e-4, ema=0.9999, precision="bf16-mixed", strategy="ddp", checkpoint_every=1000
        ),
    }[checked_size(size)]
    return MEGTransformerPretrainConfig(seed=seed, size=size, model=meg_transformer(size), train=train)  # type: ignore[arg-type]
