"""Batches of parcels with known truth, endless and resumable."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.data.gradients import Gradients, connectivity, diffusion_map
from neurofm_ml.types import Array, Batch, StreamBatch

NOBODY = Vocabulary({}, (), {})
N_PARCELS = 12
#: Places of two communities of six, millimetres.
PLACES = np.random.default_rng(0).uniform(-60, 60, size=(N_PARCELS, 3)).astype(np.float32)
COMMUNITY = np.repeat([0, 1], N_PARCELS // 2)


def batch_of(values: Array, tr: float = 2.0) -> Batch:
    """values (B, T, C) of the placed parcels, a volume each `tr` seconds."""
    b, t, c = values.shape
    dt = torch.full((b,), tr)
    stream = StreamBatch(
        modality="fmri",
        values=torch.from_numpy(values.astype(np.float32)),
        mask=torch.ones(b, t, dtype=torch.bool),
        times=torch.arange(t) * dt[:, None],
        t0=torch.zeros(b),
        dt=dt,
        ids=torch.zeros(b, c, dtype=torch.long),
        channel_mask=torch.ones(b, c, dtype=torch.bool),
        positions=torch.from_numpy(PLACES[:c]).expand(b, -1, -1),
    )
    times = stream.times + tr / 2
    none, starts = torch.zeros(b, dtype=torch.long), torch.zeros(b, dtype=torch.float64)
    return Batch({"bold": stream}, times, dt, stream.mask, none, none, starts)


class Planted:
    """Batch k is ``make(generator of k)``, values (B, T, C)."""

    def __init__(self, make: Callable[[np.random.Generator], Array]) -> None:
        self.make, self.step = make, 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            self.step += 1
            yield batch_of(self.make(np.random.default_rng(self.step)))

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]


def slow(rng: np.random.Generator, *shape: int) -> Array:
    """(*shape, 48) oscillations of 20 to 60 s at random phases, of unit variance."""
    period, phase = rng.uniform(20, 60, size=(2, *shape, 1))
    found: Array = 2**0.5 * np.sin(2 * np.pi * (np.arange(48) * 2.0 / period + phase))
    return found


def low_rank(rng: np.random.Generator, n: int = 8) -> Array:
    """Parcels of a community share one slow oscillation."""
    found: Array = slow(rng, n, 2)[:, COMMUNITY].transpose(0, 2, 1)
    return found + 0.1 * rng.normal(size=found.shape)


def white(rng: np.random.Generator, n: int = 8) -> Array:
    return rng.normal(size=(n, 48, N_PARCELS))


def coupled(rng: np.random.Generator, coupling: Array) -> Array:
    """Windows of people whose two communities correlate as much as coupling (B,) says: values (B, T, C)."""
    first, own = slow(rng, len(coupling)), slow(rng, len(coupling))
    second = coupling[:, None] * first + (1 - coupling[:, None] ** 2) ** 0.5 * own
    found: Array = np.stack([first, second], 1)[:, COMMUNITY].transpose(0, 2, 1)
    return found + 0.3 * rng.normal(size=found.shape)


def planted_gradients(n: int) -> Gradients:
    """Gradients of the communities, as a fit would find them."""
    z = connectivity(np.concatenate(list(low_rank(np.random.default_rng(0), 20))))
    return Gradients(PLACES, diffusion_map(z, n).astype(np.float32), {})
