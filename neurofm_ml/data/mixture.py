"""Batches from several loaders: which of them gives batch k is a pure function of (seed, k)."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from neurofm_ml.data.loader import Loader, same_cursor
from neurofm_ml.data.order import hashed


class Draw:
    """Names drawn by weight. Of several groups of weights, each takes its turn: draw k is made in group k modulo their number."""

    def __init__(self, groups: Sequence[Mapping[str, float]], seed: int):
        self.seed = seed
        self._groups = [(sorted(weights), _edges(weights)) for weights in groups]

    def __call__(self, step: int) -> str:
        """The name of draw `step`."""
        names, edges = self._groups[step % len(self._groups)]
        uniform = float(hashed(self.seed, step)[0] >> np.uint64(11)) * 2.0**-53
        return names[int(np.searchsorted(edges, uniform, side="right"))]

    def fingerprint(self) -> str:
        """What a number of draws means: equal for equal names, weights and turns."""
        return hashlib.sha256(json.dumps([(names, edges.tolist()) for names, edges in self._groups]).encode()).hexdigest()[:16]


def _edges(weights: Mapping[str, float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n,) upper ends of the intervals of [0, 1) that belong to the sorted names."""
    shares = np.array([weights[name] for name in sorted(weights)], float)
    if not (np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() > 0):
        raise ValueError(f"weights are {dict(weights)}; they need to be finite, not negative, and not all zero.")
    edges = np.cumsum(shares / shares.max())
    return edges / edges[-1]


class Mixture:
    """Batches drawn from several loaders by weight, or from groups of them in turn, each with weights of its own."""

    def __init__(self, loaders: Mapping[str, Loader], weights: Mapping[str, float] | Sequence[Mapping[str, float]], seed: int):
        groups = [weights] if isinstance(weights, Mapping) else weights
        named = {name for group in groups for name in group}
        if named != set(loaders):
            raise ValueError(f"weights name {sorted(named)} but the loaders are {sorted(loaders)}; give each loader a weight.")
        self._loaders = {name: loaders[name] for name in sorted(loaders)}
        self.draw = Draw(groups, seed)
        self._step = 0

    def __iter__(self) -> Iterator[Any]:
        streams = {name: iter(loader) for name, loader in self._loaders.items()}
        while True:
            batch = next(streams[self.draw(self._step)])
            self._step += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Step and the state of every loader."""
        states = {name: loader.state_dict() for name, loader in self._loaders.items()}
        return {"step": self._step, "seed": self.draw.seed, "fingerprint": self.draw.fingerprint(), "loaders": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        same_cursor(state, self.state_dict(), "loaders and weights")
        for name, loader in self._loaders.items():
            loader.load_state_dict(state["loaders"][name])
        self._step = state["step"]
