"""Small batches for tests of tokenizers, models and objectives."""

from collections.abc import Callable

import pytest
import torch

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.types import Batch, StreamBatch

RATES = {"spikes": 5.0, "calcium": 5.0, "eeg": 80.0, "fmri": 0.5, "meg": 200.0}
PLACED = ("eeg", "fmri", "meg")


def stream(modality: str, *, batch: int = 2, seconds: float = 12.0, channels: int = 5, placed: bool = False, seed: int = 0) -> StreamBatch:
    generator = torch.Generator().manual_seed(seed)
    n = round(seconds * RATES[modality])
    counts = torch.poisson(torch.full((batch, n, channels), 2.0), generator=generator) if modality == "spikes" else None
    values = torch.randn(batch, n, channels, generator=generator) if counts is None else counts.sqrt() - counts.sqrt().mean()
    dt = torch.full((batch,), 1 / RATES[modality])
    return StreamBatch(
        modality=modality,
        values=values,
        mask=torch.ones(batch, n, dtype=torch.bool),
        times=torch.arange(n) * dt[:, None],
        t0=torch.zeros(batch),
        dt=dt,
        ids=torch.zeros(batch, channels, dtype=torch.long) if placed else torch.arange(1, channels + 1).expand(batch, -1),
        channel_mask=torch.ones(batch, channels, dtype=torch.bool),
        positions=torch.randn(batch, channels, 3, generator=generator) if placed else None,
        counts=counts,
    )


@pytest.fixture
def make_stream() -> Callable[..., StreamBatch]:
    return stream


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """A batch with the modalities given, a grid of 5 Hz over 12 s, one target of two columns, and labels of two classes or unknown."""

    def make(*modalities: str, batch: int = 2, seed: int = 0, hz: float = 5.0, seconds: float = 12.0) -> Batch:
        n = round(seconds * hz)
        streams = {m: stream(m, batch=batch, seconds=seconds, placed=m in PLACED, seed=seed) for m in modalities}
        generator = torch.Generator().manual_seed(seed + 1)
        return Batch(
            streams=streams,
            times=((torch.arange(n) + 0.5) / hz).expand(batch, -1),
            dt=torch.full((batch,), 1 / hz),
            mask=torch.ones(batch, n, dtype=torch.bool),
            session=torch.ones(batch, dtype=torch.long),
            rows=torch.arange(batch),
            starts=torch.zeros(batch, dtype=torch.float64),
            targets={"toy/velocity": torch.randn(batch, n, 2, generator=generator)},
            labels={"toy/choice": torch.randint(-1, 2, (batch,), generator=generator)},
        )

    return make


@pytest.fixture
def vocabulary() -> Vocabulary:
    named = {m: tuple(f"toy/a/{m}/{i}" for i in range(5)) for m in RATES if m != "meg"}
    return Vocabulary(named, ("toy/a",), {"toy/velocity": 2}, {"toy/choice": ("left", "right")})
