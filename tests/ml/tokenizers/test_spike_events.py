"""Spikes one by one against a loop, and what rotary time promises."""

import dataclasses

import pytest
import torch

from neurofm_ml.tokenizers import SpikeEventTokenizer
from neurofm_ml.types import StreamBatch


@pytest.fixture
def stream(make_stream) -> StreamBatch:
    return make_stream("spikes", seconds=4.0)


@pytest.fixture
def tokenizer() -> SpikeEventTokenizer:
    torch.manual_seed(0)
    tokenizer = SpikeEventTokenizer(torch.full((5,), 5**-0.5), 8)
    torch.nn.init.normal_(tokenizer.mask_token)
    return tokenizer


def turned(vector: torch.Tensor, time: float, tokenizer: SpikeEventTokenizer) -> torch.Tensor:
    """The last half of a vector (D,), as D / 4 numbers in the plane, turned by their own rates."""
    half = len(vector) // 2
    plane = torch.complex(*vector[half:].chunk(2)) * torch.exp(1j * time * tokenizer.rotary.rates)
    return torch.cat([vector[:half], plane.real, plane.imag])


def test_every_spike_is_a_token_in_the_middle_of_its_bin(tokenizer, stream):
    hidden = torch.zeros(2, 20, dtype=torch.bool)
    hidden[1, [3, 7]] = True
    stream = dataclasses.replace(stream, mask=stream.mask & (torch.arange(20) < 18))
    out = tokenizer(stream, hidden)
    assert stream.counts is not None
    for b in range(2):
        expected, times = [], []
        for t in range(18):
            cells = [tokenizer.mask_token] if hidden[b, t] else []
            for c in range(5):
                cells += [tokenizer.channels.table.weight[c + 1]] * (0 if hidden[b, t] else int(stream.counts[b, t, c]))
            expected += [turned(vector, (t + 0.5) / 5, tokenizer) for vector in cells]
            times += [(t + 0.5) / 5] * len(cells)
        assert out.mask[b].sum() == len(expected)
        assert torch.allclose(out.tokens[b, : len(expected)], torch.stack(expected), atol=1e-3)
        assert torch.allclose(out.times[b, : len(times)], torch.tensor(times), atol=1e-6)


def test_what_two_spikes_make_of_each_other_depends_on_the_time_between_them(tokenizer, stream):
    """Their inner product is the same when both come a second later."""
    assert stream.counts is not None
    counts = torch.zeros_like(stream.counts)
    counts[0, 2, 0] = counts[0, 5, 3] = 1
    counts[1, 7, 0] = counts[1, 10, 3] = 1
    out = tokenizer(dataclasses.replace(stream, counts=counts)).tokens
    products = (out[:, 0] * out[:, 1]).sum(-1)
    assert torch.allclose(products[0], products[1], atol=1e-4)
    assert not torch.allclose(out[0, 0], out[1, 0], atol=1e-2)


def test_finer_bins_make_finer_times(tokenizer, stream):
    """At 1000 bins a second a spike is known to half a millisecond."""
    assert stream.counts is not None
    counts = torch.zeros(2, 100, 5)
    counts[:, 37, 1] = 1
    fine = dataclasses.replace(
        stream, counts=counts, values=counts, mask=torch.ones(2, 100, dtype=torch.bool), times=torch.arange(100) * torch.full((2, 1), 1e-3),
        dt=torch.full((2,), 1e-3),
    )  # fmt: skip
    assert torch.allclose(tokenizer(fine).times[:, 0], torch.tensor(0.0375), atol=1e-6)


def test_silence_has_no_tokens(tokenizer, stream):
    out = tokenizer(dataclasses.replace(stream, counts=torch.zeros_like(stream.counts)))
    assert not out.mask.any()
    assert (out.tokens == 0).all()


def test_signals_without_spikes_are_refused(tokenizer, stream):
    with pytest.raises(ValueError, match="tokenizer 'spike_events' reads counts of spikes, and calcium has none; use another one"):
        tokenizer(dataclasses.replace(stream, modality="calcium", counts=None))
