"""Config of searches over config leaves."""

from typing import Literal

from neurofm_ml.config import config, patch
from neurofm_ml.presets.base import positive
from neurofm_ml.presets.training import PretrainConfig, pretrain


@config
class Leaf:
    """One leaf to search, by its path ("train.lr"): one of `values`, one of `words`, or a number from `low` to `high`.

    Numbers of a range are even in their logarithm, unless `log` is off; leaves that are whole get the nearest whole number.
    """

    name: str
    values: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = True

    def __post_init__(self) -> None:
        if bool(self.values) + bool(self.words) + bool(self.low or self.high) != 1:
            raise ValueError(f"Leaf {self.name!r} needs either values, words, or low and high.")
        if not (self.values or self.words) and not (self.low < self.high and (self.low > 0 or not self.log)):
            raise ValueError(
                f"Leaf {self.name!r} goes from {self.low} to {self.high}; low must be smaller, and positive unless log is off."
            )


@config
class SearchConfig:
    """Search patches of `base` for the smallest loss on validation windows.

    Each trial is judged after equal parts of the steps, `n_rungs` times. "asha" (Li et al. 2020) lets the best 1 / `reduction` go
    on at each rung, "pbt" (Jaderberg et al. 2017) lets the worst quarter take up weights and settings of the best, "random"
    lets all trials end. The first trial is `base` itself. Without Ray, "asha" is synchronous successive halving.
    """

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    base: PretrainConfig
    space: tuple[Leaf, ...] = (Leaf(name="train.lr", low=3e-4, high=3e-2), Leaf(name="model.dropout", low=0.05, high=0.6, log=False))
    method: Literal["asha", "pbt", "random"] = "asha"
    n_trials: int = 12
    n_rungs: int = 4
    reduction: int = 2
    n_parallel: int = 1
    gpus_per_trial: float = 0.0
    validation_batches: int = 16

    def __post_init__(self) -> None:
        positive(self, "n_trials", "n_rungs", "n_parallel", "validation_batches")
        if self.reduction < 2:
            raise ValueError(f"SearchConfig.reduction is {self.reduction}; it must be 2 or more: the best 1 / reduction go on.")
        if not self.space:
            raise ValueError("SearchConfig.space is empty; name at least one leaf.")
        one_process(self, self.base)
        if self.base.train.steps < self.n_rungs:
            raise ValueError(f"SearchConfig.n_rungs is {self.n_rungs}; it must not exceed base.train.steps = {self.base.train.steps}.")


def one_process(owner: object, base: PretrainConfig) -> None:
    """Refuse runs that need several processes each."""
    if base.train.strategy != "single":
        raise ValueError(
            f'{type(owner).__name__}.base.train.strategy is {base.train.strategy!r}; it must be "single": every run has one process.'
        )


def search(size: str, seed: int = 0) -> SearchConfig:
    """A search at one size; what it finds patches `pretrain(size)`."""
    base = patch(pretrain(size, seed), {"train": {"strategy": "single"}})
    return SearchConfig(seed=seed, size=size, base=base)  # type: ignore[arg-type]
