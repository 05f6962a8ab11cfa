"""An order of samples without state: a pure function of (seed, epoch, place), of integers alone."""

import numpy as np

from neurofm_ml.types import Array

# Chunks of neighbours keep reads near-sequential; many chunks in a block mix subjects well
# (8 x 256 mixes better than 64 x 16 at the same number of samples in flight).
CHUNK = 8
CHUNKS_PER_BLOCK = 256


def splitmix64(x: Array) -> Array:
    """Output function of the SplitMix64 generator (Steele et al. 2014) on uint64: integers alone, so
    no library version can change an order."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hashed(*numbers: int) -> Array:
    """(1,) uint64 that depends on every one of the integers and on their order."""
    state = np.zeros(1, np.uint64)
    for number in numbers:
        state = splitmix64(state ^ np.uint64(number % 2**64))
    return state


def permutation(n: int, *numbers: int) -> Array:
    """(n,) a permutation of range(n) chosen by the integers."""
    return np.argsort(splitmix64(hashed(*numbers) ^ splitmix64(np.arange(n, dtype=np.uint64))), kind="stable")


class Order:
    """Which of n samples stands at each place of an endless stream, epoch after epoch.

    Shuffled: the n samples are cut into chunks of CHUNK neighbours, the chunks permuted, and samples
    permuted within blocks of CHUNKS_PER_BLOCK chunks. Not shuffled: 0..n-1, again and again, which counts as one block.
    """

    def __init__(self, n: int, seed: int, shuffle: bool):
        self.n, self.seed, self.shuffle = n, seed, shuffle
        self._chunks: tuple[int, Array, Array] = (-1, np.empty(0), np.empty(0))
        self._block: tuple[tuple[int, int], Array] = ((-1, -1), np.empty(0))

    def at(self, position: int, count: int) -> Array:
        """(count,) samples at stream positions position, position + 1, ..."""
        parts = []
        while count > 0:
            epoch, place = divmod(position, self.n)
            part = self._rest_of_block(epoch, place)[:count]
            parts.append(part)
            position, count = position + len(part), count - len(part)
        return np.concatenate(parts)

    def block(self, position: int) -> tuple[int, int]:
        """Epoch and block that a stream position lies in."""
        epoch, place = divmod(position, self.n)
        if not self.shuffle:
            return epoch, 0
        _, starts = self._permuted_chunks(epoch)
        return epoch, int(np.searchsorted(starts[::CHUNKS_PER_BLOCK], place, side="right")) - 1

    def _rest_of_block(self, epoch: int, place: int) -> Array:
        if not self.shuffle:
            return np.arange(place, self.n)
        _, block = self.block(epoch * self.n + place)
        _, starts = self._permuted_chunks(epoch)
        return self._permuted_block(epoch, block)[place - starts[block * CHUNKS_PER_BLOCK] :]

    def _permuted_chunks(self, epoch: int) -> tuple[Array, Array]:
        """Chunk numbers in this epoch's order, and the place where each starts."""
        if self._chunks[0] != epoch:
            order = permutation(-(-self.n // CHUNK), self.seed, epoch, 0)
            ends = np.cumsum(np.minimum(CHUNK, self.n - order * CHUNK))
            self._chunks = (epoch, order, np.concatenate([[0], ends[:-1]]))
        return self._chunks[1:]

    def _permuted_block(self, epoch: int, block: int) -> Array:
        if self._block[0] != (epoch, block):
            chunks = self._permuted_chunks(epoch)[0][block * CHUNKS_PER_BLOCK : (block + 1) * CHUNKS_PER_BLOCK]
            samples = (chunks[:, None] * CHUNK + np.arange(CHUNK)).ravel()
            samples = samples[samples < self.n]
            self._block = ((epoch, block), samples[permutation(len(samples), self.seed, epoch, 1, block)])
        return self._block[1]


def row_seeds(seed: int, epochs: Array, rows: Array) -> Array:
    """(n,) integers in [0, 2**63): the same for one sample in one epoch however it is batched, and unlike any other."""
    state = hashed(seed)
    for numbers in (epochs, rows):
        state = splitmix64(state ^ numbers.astype(np.uint64))
    return (state >> np.uint64(1)).astype(np.int64)
