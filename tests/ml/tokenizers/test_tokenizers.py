"""The contract of every tokenizer."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from neurofm_ml.tokenizers import TOKENIZERS, Tokenizer
from neurofm_ml.types import StreamBatch

PLACED = {"eeg", "fmri"}


@pytest.fixture(params=list(TOKENIZERS))
def case(request: pytest.FixtureRequest, make_stream) -> tuple[Tokenizer, StreamBatch]:
    torch.manual_seed(0)
    tokenizer = TOKENIZERS[request.param](torch.full((5,), 5**-0.5), 8)
    return tokenizer, make_stream(request.param, placed=request.param in PLACED)


def test_shape_mask_and_clock(case):
    tokenizer, stream = case
    out = tokenizer(stream)
    size = tokenizer.size(stream)
    assert out.tokens.shape == (2, stream.values.shape[1] // size, 8)
    assert out.mask.shape == out.times.shape == out.tokens.shape[:2]
    assert out.mask.all()
    assert torch.allclose(out.dt, stream.dt * size)
    assert torch.allclose(out.times, out.t0[:, None] + torch.arange(out.times.shape[1]) * out.dt[:, None])


def test_padding_changes_no_valid_token(case):
    tokenizer, stream = case
    padded = dataclasses.replace(
        stream,
        values=F.pad(stream.values, (0, 3, 0, 32)),
        mask=F.pad(stream.mask, (0, 32)),
        times=F.pad(stream.times, (0, 32)),
        ids=F.pad(stream.ids, (0, 3)),
        channel_mask=F.pad(stream.channel_mask, (0, 3)),
        positions=None if stream.positions is None else F.pad(stream.positions, (0, 0, 0, 3)),
    )
    plain, out = tokenizer(stream), tokenizer(padded)
    n = plain.tokens.shape[1]
    assert torch.allclose(out.tokens[:, :n], plain.tokens, atol=1e-5)
    assert not out.mask[:, n:].any()
    assert (out.tokens[:, n:] == 0).all()


def test_order_of_channels_does_not_matter(case):
    tokenizer, stream = case
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = dataclasses.replace(
        stream,
        values=stream.values[..., order],
        ids=stream.ids[:, order],
        positions=None if stream.positions is None else stream.positions[:, order],
    )
    assert torch.allclose(tokenizer(moved).tokens, tokenizer(stream).tokens, atol=1e-5)


def test_identity_of_channels_matters(case):
    tokenizer, stream = case
    moved = dataclasses.replace(stream, values=stream.values.roll(1, 2))
    assert not torch.allclose(tokenizer(moved).tokens, tokenizer(stream).tokens, atol=1e-2)


def test_hidden_patch_leaves_no_trace(case):
    tokenizer, stream = case
    torch.nn.init.normal_(tokenizer.mask_token)
    size = tokenizer.size(stream)
    hidden = torch.zeros(2, stream.values.shape[1] // size, dtype=torch.bool)
    hidden[:, 2] = True
    values = stream.values.clone()
    values[:, 2 * size : 3 * size] += 100
    assert torch.equal(tokenizer(stream, hidden).tokens, tokenizer(dataclasses.replace(stream, values=values), hidden).tokens)


def test_unknown_channels_without_a_place_are_refused(case):
    tokenizer, stream = case
    nobody = dataclasses.replace(stream, ids=torch.zeros_like(stream.ids), positions=None)
    with pytest.raises(ValueError, match=r"5 of 5 .* channels of window 0 are not in the model's vocabulary"):
        tokenizer(nobody)


@pytest.mark.parametrize("rate", [64.0, 256.0, 300.0])
def test_eeg_token_means_the_same_at_any_rate(rate, make_stream):
    """A slow wave, sampled at any rate, gives nearly the same tokens."""
    tokenizer = TOKENIZERS["eeg"](torch.ones(5), 8)

    def tokens(hz: float) -> torch.Tensor:
        times = (torch.arange(round(2 * hz)) + 0.5) / hz
        wave = torch.sin(2 * torch.pi * 1.5 * times)[None, :, None].expand(1, -1, 5)
        base = make_stream("eeg", batch=1, placed=True)
        like = dataclasses.replace(
            base, values=wave, mask=torch.ones(1, len(times), dtype=torch.bool), times=times[None], dt=torch.tensor([1 / hz])
        )
        with torch.no_grad():
            tokenizer.step.weight.zero_()
        return tokenizer(like).tokens

    ours, reference = tokens(rate), tokens(1024.0)
    assert torch.allclose(ours, reference[:, : ours.shape[1]], atol=0.25 * float(reference.detach().std()))


@pytest.mark.parametrize("modality", ["spikes", "calcium"])
def test_units_with_a_place_but_no_row_are_refused(modality, make_stream):
    """Place says who an electrode is; a population's tokenizer cannot read it."""
    with pytest.raises(ValueError, match=r"5 of 5 .* channels of window 0 are not in the model's vocabulary"):
        TOKENIZERS[modality](torch.ones(5), 8)(make_stream(modality, placed=True))
