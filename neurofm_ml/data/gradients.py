"""Functional gradients: the axes along which the connectivity of parcels changes (Margulies et al. 2016).

They come from the training windows alone. Windows of datasets with the same parcels are pooled; the pool of placed parcels
with most windows is the reference, from which parcels of other atlases take theirs by place. Parcels without a place keep
those of their own recordings, by name.

Shapes: T volumes, R parcels, G gradients.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.data.batches import neural_signals
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.shards import Reader, read_index
from neurofm_ml.data.windows import read_channels, read_windows
from neurofm_ml.types import Array

#: Share of each parcel's connections that counts, the strongest ones; and how much the density of parcels is undone
#: (Coifman and Lafon 2006): both as BrainSpace has them (Vos de Wael et al. 2020).
STRONGEST = 0.1
ALPHA = 0.5


@dataclass(frozen=True, eq=False)
class Gradients:
    """places (R, 3) millimetres and values (R, G) of the reference; named: ``dataset/session/signal/channel`` -> (G,).

    Every gradient has unit deviation over its parcels. Fewer than G + 1 parcels have fewer gradients: the others are 0.
    """

    places: Array
    values: Array
    named: dict[str, Array]


def compute_gradients(shards: Sequence[Path], n_gradients: int) -> Gradients:
    """Gradients of the fMRI parcels in the training windows of some shards artifacts."""
    pools: dict[Any, _Pool] = {}
    for key, names, positions, values in _training_windows(shards):
        pools.setdefault(key, _Pool(names, positions)).add(values)
    placed = [pool for pool in pools.values() if pool.positions is not None]
    reference = max(placed, key=lambda pool: pool.n_windows, default=_Pool((), np.zeros((0, 3))))
    places, values = reference.gradients(n_gradients)
    known = np.isfinite(places).all(1)
    named: dict[str, Array] = {}
    for pool in (pool for pool in pools.values() if pool.positions is None):
        index, own = pool.gradients(n_gradients)
        named |= {pool.names[int(i)]: row for i, row in zip(index, own, strict=True)}
    return Gradients(places[known].astype(np.float32), values[known], named)


def _training_windows(shards: Sequence[Path]) -> Iterator[tuple[Any, tuple[str, ...], Array | None, Array]]:
    """(what tells the pool, names of the parcels, positions (R, 3) or None, values (T, R)) of every fMRI signal of every training window."""
    for path in shards:
        card, table, channels, reader = load_card(path), read_windows(path), read_channels(path), Reader(read_index(path))
        signals = neural_signals(card, ("fmri",))
        for window in table[table.split == "train"].itertuples():
            row = reader.index.row_of[str(window.key)]
            for name in (n for n in signals if reader.index.sizes(n)[row] >= 0):
                about = channels[str(window.session)][name]
                prefix = f"{card.name}/{window.session}/{name}"
                names = tuple(f"{prefix}/{channel}" for channel in about["ch_names"])
                positions = None if about["positions"] is None else np.asarray(about["positions"])
                yield prefix if positions is None else positions.tobytes(), names, positions, reader.member(row, name)


class _Pool:
    """Running mean of the connectivity of parcels that many windows share."""

    def __init__(self, names: tuple[str, ...], positions: Array | None) -> None:
        self.names, self.positions, self.n_windows = names, positions, 0
        self.sums, self.counts = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))

    def add(self, values: Array) -> None:
        z = connectivity(values)
        self.sums += np.nan_to_num(z)
        self.counts += np.isfinite(z)
        self.n_windows += 1

    def gradients(self, n: int) -> tuple[Array, Array]:
        """Places (R, 3), or indices (R,) of parcels without places, and gradients (R, n) float32, of the parcels that ever vary."""
        varies = np.flatnonzero(np.diag(self.counts))
        mean = np.tanh(self.sums / np.maximum(self.counts, 1))[np.ix_(varies, varies)]
        values = np.zeros((len(varies), n), np.float32)
        if len(varies) > 2:
            found = diffusion_map(mean, min(n, len(varies) - 1))
            values[:, : found.shape[1]] = found
        return varies if self.positions is None else self.positions[varies], values


def connectivity(values: Array) -> Array:
    """values (T, R) -> (R, R) Fisher's z of the correlations, NaN for parcels that do not vary."""
    centred = values.astype(np.float64) - values.mean(0, dtype=np.float64)
    norm = np.linalg.norm(centred, axis=0)
    unit = centred / np.where(norm > 1e-12 * np.abs(values).max(initial=1.0), norm, np.nan)
    # No window is so long that a correlation beyond this means more than rounding.
    z: Array = np.arctanh(np.clip(unit.T @ unit, -0.9999, 0.9999))
    return z


def diffusion_map(connections: Array, n: int) -> Array:
    """connections (R, R), the larger the closer -> (R, n) gradients of unit deviation, the one that explains most first.

    Each parcel's strongest connections are compared by angle with those of every other; the gradients are the slow modes of
    a random walk among parcels alike. The entry of largest size of each is positive.
    """
    strong = np.where(connections >= np.quantile(connections, 1 - STRONGEST, axis=1, keepdims=True), connections.clip(min=0), 0)
    unit = strong / np.maximum(np.linalg.norm(strong, axis=1, keepdims=True), 1e-12)
    alike = 1 - np.arccos((unit @ unit.T).clip(-1, 1)) / np.pi
    density = alike.sum(1) ** ALPHA
    kernel = alike / np.outer(density, density)
    root = np.sqrt(kernel.sum(1))
    values, vectors = np.linalg.eigh(kernel / np.outer(root, root))
    order = np.argsort(values)[::-1][1 : n + 1]
    modes = vectors[:, order] / root[:, None]
    modes /= modes.std(0)
    signs: Array = np.sign(modes[np.abs(modes).argmax(0), np.arange(modes.shape[1])])
    return modes * signs
