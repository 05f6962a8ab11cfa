"""Config of scaling laws."""

from typing import Literal

from neurofm_ml.config import config, patch
from neurofm_ml.presets.base import positive
from neurofm_ml.presets.search import one_process
from neurofm_ml.presets.training import PretrainConfig, pretrain


@config
class ScalingConfig:
    """Pretrain `base` at each of `widths` with each of `seeds`, and fit how the validation loss falls with size.

    A power law without a floor for three widths, with one for more. The loss must be positive: decoding errors are.
    """

    size: Literal["tiny", "small", "medium", "large"]
    base: PretrainConfig
    widths: tuple[int, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    n_boot: int = 1000
    validation_batches: int = 16

    def __post_init__(self) -> None:
        positive(self, "n_boot", "validation_batches")
        one_process(self, self.base)
        if len(set(self.widths)) < 3:
            raise ValueError(f"ScalingConfig.widths is {self.widths}; a law needs three or more different ones.")
        if len(set(self.seeds)) < 2:
            raise ValueError(f"ScalingConfig.seeds is {self.seeds}; an interval needs two or more different ones.")


def scaling(size: str) -> ScalingConfig:
    """A quarter, half and all of the width of a size, each trained as that size is, for decoding alone."""
    base = patch(pretrain(size), {"objectives": {"behaviour": 1.0, "masked": 0.0}, "train": {"strategy": "single"}})
    d_model = base.model.d_model
    return ScalingConfig(size=size, base=base, widths=(d_model // 4, d_model // 2, d_model))  # type: ignore[arg-type]
