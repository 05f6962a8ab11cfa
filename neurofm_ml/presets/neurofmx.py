"""Shape of NeuroFMx at each size."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.base import checked_size, fraction, positive


@config
class NeuroFMxConfig:
    """Shape of the multimodal model: widths, depths, and whether the backbone sees the future.

    `context` tokens of each modality feed one latent; "mean" fusion averages them, which is the ablation of the
    Perceiver. The "gru" backbone is the ablation of the state-space blocks and the baseline of equal budget: one of its
    layers stands for two blocks. `d_shared` is the width of the space shared with behaviour and stimulus, `horizons_s` how many seconds forecasts reach.
    """

    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 4
    d_state: int = 16
    d_conv: int = 9
    expand: int = 1
    context: int = 4
    d_shared: int = 32
    horizons_s: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    bidirectional: bool = True
    prenorm: bool = False
    dropout: float = 0.5
    fusion: Literal["attention", "mean"] = "attention"
    backbone: Literal["ssm", "gru"] = "ssm"

    def __post_init__(self) -> None:
        positive(self, "d_model", "n_layers", "n_heads", "d_state", "d_conv", "expand", "context", "d_shared")
        fraction(self, "dropout")
        if not self.horizons_s or any(h <= 0 for h in self.horizons_s):
            raise ValueError(f"NeuroFMxConfig.horizons_s is {self.horizons_s!r}; it needs one or more positive times in seconds.")
        if self.d_model % self.n_heads:
            raise ValueError(f"NeuroFMxConfig.n_heads is {self.n_heads}; it must divide d_model = {self.d_model}.")
        if self.backbone == "ssm" and self.bidirectional and self.n_heads % 2:
            raise ValueError(
                f"NeuroFMxConfig.n_heads is {self.n_heads}; a bidirectional backbone needs an even number, half per direction."
            )
        if self.backbone == "gru" and self.n_layers % 2:
            raise ValueError(f"NeuroFMxConfig.n_layers is {self.n_layers}; the gru backbone needs an even number: a layer stands for two.")


def neurofmx(size: str) -> NeuroFMxConfig:
    """tiny < 1M, small ~ 20M, medium ~ 150M, large ~ 500M parameters, with the tokenizers of every neural modality."""
    return {
        "tiny": NeuroFMxConfig(),
        "small": NeuroFMxConfig(d_model=512, n_layers=6, n_heads=8, d_state=64, d_conv=4, expand=2, prenorm=True, dropout=0.1),
        "medium": NeuroFMxConfig(d_model=1024, n_layers=16, n_heads=16, d_state=128, d_conv=4, expand=2, prenorm=True, dropout=0.1),
        "large": NeuroFMxConfig(d_model=1536, n_layers=27, n_heads=24, d_state=128, d_conv=4, expand=2, prenorm=True, dropout=0.1),
    }[checked_size(size)]
