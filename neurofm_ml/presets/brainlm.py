"""Shape and pretraining of BrainLM."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.base import checked_size, fraction, not_negative, positive
from neurofm_ml.presets.loop import TrainConfig


@config
class BrainLMConfig:
    """Shape of BrainLM: patches of `patch_s` seconds (0: of one volume) of every parcel, brought to `n_samples` points.

    "masked" fills hidden patches with a light decoder; "autoregressive" predicts the next patch and has no decoder.
    """

    form: Literal["masked", "autoregressive"] = "masked"
    patch_s: float = 16.0
    n_samples: int = 8
    d_model: int = 64
    n_layers: int = 3
    n_heads: int = 4
    d_decoder: int = 32
    n_decoder_layers: int = 1
    n_decoder_heads: int = 2

    def __post_init__(self) -> None:
        positive(self, "n_samples", "d_model", "n_layers", "n_heads", "d_decoder", "n_decoder_layers", "n_decoder_heads")
        not_negative(self, "patch_s")
        heads(self, "d_model", "n_heads")
        heads(self, "d_decoder", "n_decoder_heads")


def heads(owner: object, width: str, n_heads: str) -> None:
    """Refuse a number of heads that does not cut the width into pieces of even size, as rotary embedding needs them."""
    d, n = getattr(owner, width), getattr(owner, n_heads)
    if d % (2 * n):
        raise ValueError(f"{type(owner).__name__}.{n_heads} is {n}; twice that must divide {width} = {d}.")


@config
class BrainLMPretrainConfig:
    """Pretraining of BrainLM; `hidden` is the share of parcel patches that the encoder does not see."""

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    model: BrainLMConfig
    train: TrainConfig
    hidden: float = 0.75
    datasets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        positive(self, "hidden")
        fraction(self, "hidden")


def brainlm(size: str, form: Literal["masked", "autoregressive"] = "masked") -> BrainLMConfig:
    """medium and large have the parameters of the published 111M and 650M; the autoregressive form predicts volume by volume."""
    shape = {
        "tiny": {},
        "small": {"d_model": 384, "n_layers": 12, "n_heads": 6, "d_decoder": 256, "n_decoder_layers": 4, "n_decoder_heads": 8},
        "medium": {"d_model": 768, "n_layers": 12, "n_heads": 12, "d_decoder": 512, "n_decoder_layers": 8, "n_decoder_heads": 16},
        "large": {"d_model": 1280, "n_layers": 32, "n_heads": 16, "d_decoder": 512, "n_decoder_layers": 8, "n_decoder_heads": 16},
    }[checked_size(size)]
    if form == "masked":
        return BrainLMConfig(**shape)  # type: ignore[arg-type]
    # Attention along two axes makes a layer a third larger.
    fewer = {"n_layers": 24} if size == "large" else {}
    return BrainLMConfig(form=form, patch_s=0.0, n_samples=1, **{**shape, **fewer})


def brainlm_pretrain(size: str, seed: int = 0) -> BrainLMPretrainConfig:
    """Pretraining at one size; the larger ones assume the GPUs that `resources` asks for."""
    return BrainLMPretrainConfig(seed=seed, size=size, model=brainlm(size), train=parcel_training(size))  # type: ignore[arg-type]


def parcel_training(size: str) -> TrainConfig:
    """Budget of a transformer over parcels and patches."""
    return {
        "tiny": TrainConfig(steps=300, batch_size=8, lr=2e-3, ema=0.95, checkpoint_every=100),
        "small": TrainConfig(steps=100_000, batch_size=64, lr=5e-4, ema=0.999, precision="bf16-mixed", checkpoint_every=1000),
        "medium": TrainConfig(
            steps=200_000, batch_size=32, lr=3e-4, ema=0.999, precision="bf16-mixed", strategy="ddp", checkpoint_every=1000
        ),
        "large": TrainConfig(
            steps=500_000, batch_size=16, lr=1.5e-4, ema=0.9999, precision="bf16-mixed", strategy="ddp", checkpoint_every=1000
        ),
    }[checked_size(size)]
