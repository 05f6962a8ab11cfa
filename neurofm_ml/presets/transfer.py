"""Configs of what is asked of features without, or with few, labels: few-shot curves, zero-shot, transfer, modalities."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.base import positive

Axis = Literal["session", "subject", "species", "task", "dataset", "modality"]
AXES: tuple[Axis, ...] = ("session", "subject", "species", "task", "dataset", "modality")


@config
class FewShotConfig:
    """Probes from `shots` labelled examples per class (seconds of a series), drawn `draws` times, and from all there are."""

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    family: str = "neurofmx"
    layer: str = "latents"
    shots: tuple[int, ...] = (1, 5, 10, 25, 50)
    draws: int = 10
    n_boot: int = 1000
    n_perm: int = 500

    def __post_init__(self) -> None:
        positive(self, "n_boot", "n_perm")
        if self.draws < 5:
            raise ValueError(f"FewShotConfig.draws is {self.draws}; an interval over draws needs 5 at least.")
        if not self.shots or min(self.shots) < 1:
            raise ValueError(f"FewShotConfig.shots is {self.shots}; it needs numbers of examples, 1 or more each.")


@config
class ZeroShotConfig:
    """Readouts fitted on other `across` alone, and the nearest prototype, scored without one label of the target."""

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    family: str = "neurofmx"
    layer: str = "latents"
    across: tuple[Literal["session", "subject", "dataset"], ...] = ("session", "subject", "dataset")
    standardise: Literal["own", "source"] = "own"
    n_boot: int = 1000
    n_perm: int = 500

    def __post_init__(self) -> None:
        positive(self, "n_boot", "n_perm")


@config
class TransferConfig:
    """Matrices of readouts fitted in one place and scored in another, over each of `axes`.

    standardise: "own", each place's features by mean and deviation of its own training rows, which takes no label;
    "source", by those of the place where the readout was fitted, so that of the target nothing at all is used.
    """

    seed: int
    layer: str = "latents"
    axes: tuple[Axis, ...] = AXES
    standardise: Literal["own", "source"] = "own"
    n_perm: int = 1000

    def __post_init__(self) -> None:
        positive(self, "n_perm")


@config
class CrossModalConfig:
    """Readouts fitted on features of one modality and scored on another's, and what is lost where modalities are missing."""

    seed: int
    layer: str = "latents"
    standardise: Literal["own", "source"] = "own"
    n_perm: int = 1000
    top_k: tuple[int, ...] = (1, 5)

    def __post_init__(self) -> None:
        positive(self, "n_perm")
        if not self.top_k or min(self.top_k) < 1:
            raise ValueError(f"CrossModalConfig.top_k is {self.top_k}; it needs ranks of 1 or more.")
