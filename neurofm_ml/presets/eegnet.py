"""Shape and training of EEGNet."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.base import checked_size, fraction, positive
from neurofm_ml.presets.loop import TrainConfig


@config
class EEGNetConfig:
    """Shape of EEGNet-`filters`,`depth`: temporal filters of `kernel` samples of its clock of `sfreq` Hz, spatial filters of
    each, separable convolutions to width `d_model`. Readouts see the window in `stretches` parts.

    The default is the published EEGNet-8,2 for windows of a second.
    """

    filters: int = 8
    depth: int = 2
    d_model: int = 16
    kernel: int = 64
    sfreq: float = 128.0
    stretches: int = 4
    dropout: float = 0.5

    def __post_init__(self) -> None:
        positive(self, "filters", "depth", "d_model", "kernel", "sfreq", "stretches")
        fraction(self, "dropout")


@config
class EEGNetPretrainConfig:
    """Training of EEGNet on the window labels of `datasets` (None: of all that are here and have classes to tell apart)."""

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    model: EEGNetConfig
    train: TrainConfig
    datasets: tuple[str, ...] | None = None


def eegnet(size: str) -> EEGNetConfig:
    """tiny is as published; the others are wider."""
    return {
        "tiny": EEGNetConfig(),
        "small": EEGNetConfig(filters=16, d_model=32),
        "medium": EEGNetConfig(filters=32, d_model=64),
        "large": EEGNetConfig(filters=64, depth=4, d_model=256),
    }[checked_size(size)]


def eegnet_pretrain(size: str, seed: int = 0) -> EEGNetPretrainConfig:
    """Training at one size; one machine does for all."""
    steps = {"tiny": 400, "small": 4_000, "medium": 20_000, "large": 100_000}[checked_size(size)]
    train = TrainConfig(steps=steps, batch_size=32, lr=2e-3, checkpoint_every=max(100, steps // 20))
    return EEGNetPretrainConfig(seed=seed, size=size, model=eegnet(size), train=train)  # type: ignore[arg-type]
