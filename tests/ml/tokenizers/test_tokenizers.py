"""The contract of every tokenizer, at two sampling rates, for channels that have rows and channels that have places.

Everything a case needs follows from the tokenizer's own patch length, samples and scale: a new entry needs nothing here.
"""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from neurofm_ml.presets import NEURAL, SIDE
from neurofm_ml.tokenizers import TOKENIZERS, Tokenizer
from neurofm_ml.tokenizers.side import EventTokenizer
from neurofm_ml.types import StreamBatch, TokenizedSequence

N_CHANNELS, N_PATCHES, WIDTH = 5, 6, 8
WORDS = ("left", "right", "go", "left", "stop", "go", "no")


def rates(name: str) -> tuple[float, float]:
    """Hz at which a patch has just its samples, and a lower one."""
    kind = TOKENIZERS[name]
    return (kind.n_samples / kind.patch_s, round(0.6 * kind.n_samples / kind.patch_s)) if kind.patch_s else (5.0, 0.5)


def series(name: str, hz: float, placed: bool) -> StreamBatch:
    kind, generator = TOKENIZERS[name], torch.Generator().manual_seed(0)
    n = N_PATCHES * max(1, round(kind.patch_s * hz))
    shape = (2, n, N_CHANNELS)
    dt = torch.full((2,), 1 / hz)
    return StreamBatch(
        modality=name,
        values=torch.randn(shape, generator=generator),
        mask=torch.ones(2, n, dtype=torch.bool),
        times=torch.tensor([[0.0], [0.25]]) + torch.arange(n) * dt[:, None],
        t0=torch.tensor([0.0, 0.25]),
        dt=dt,
        ids=torch.zeros(2, N_CHANNELS, dtype=torch.long) if placed else torch.arange(1, N_CHANNELS + 1).expand(2, -1),
        channel_mask=torch.ones(2, N_CHANNELS, dtype=torch.bool),
        positions=torch.randn(2, N_CHANNELS, 3, generator=generator) * (kind.scale or 1) if placed else None,
        counts=torch.poisson(torch.full(shape, 1.0), generator=generator),
        seen=torch.rand(shape, generator=generator) < 0.8,
    )


def words(name: str) -> StreamBatch:
    times = torch.tensor([[-0.5, 0.1, 0.4, 0.4, 1.0, 3.0], [0.0, 0.2, 0.3, 1.5, 2.0, 2.0]])
    return StreamBatch(
        modality=name,
        values=torch.rand(2, 6, 1, generator=torch.Generator().manual_seed(0)),
        mask=torch.tensor([[True] * 6, [True] * 4 + [False] * 2]),
        times=times,
        t0=torch.zeros(2),
        dt=torch.full((2,), torch.nan),
        ids=torch.zeros(2, 1, dtype=torch.long),
        channel_mask=torch.ones(2, 1, dtype=torch.bool),
        labels=(WORDS[:6], WORDS[3:]),
    )


def streams(name: str) -> Iterator[tuple[str, StreamBatch]]:
    for hz in rates(name):
        yield f"{hz:g} Hz", series(name, hz, placed=False)
        if TOKENIZERS[name].scale is not None:
            yield f"placed, {hz:g} Hz", series(name, hz, placed=True)
    if issubclass(TOKENIZERS[name], EventTokenizer):
        yield "events", words(name)


def build(name: str) -> Tokenizer:
    torch.manual_seed(0)
    tokenizer = TOKENIZERS[name](torch.full((N_CHANNELS,), N_CHANNELS**-0.5), WIDTH)
    torch.nn.init.normal_(tokenizer.mask_token)
    return tokenizer


CASES = {f"{name}, {form}": (name, stream) for name in TOKENIZERS for form, stream in streams(name)}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple[Tokenizer, StreamBatch]:
    name, stream = request.param
    return build(name), stream


SERIES = {key: (name, stream) for key, (name, stream) in CASES.items() if stream.labels is None}


@pytest.fixture(params=list(SERIES.values()), ids=list(SERIES))
def series_case(request: pytest.FixtureRequest) -> tuple[Tokenizer, StreamBatch]:
    name, stream = request.param
    return build(name), stream


def n_hideable(tokenizer: Tokenizer, stream: StreamBatch) -> int:
    return stream.values.shape[1] // tokenizer.size(stream)


def heaped(out: TokenizedSequence) -> dict[tuple[int, float], torch.Tensor]:
    """The sum of the valid tokens of each window at each time: what does not depend on the order of tokens at one time."""
    sums: dict[tuple[int, float], torch.Tensor] = {}
    for b, t in out.mask.nonzero().tolist():
        key = (b, out.times[b, t].item())
        sums[key] = sums.get(key, torch.zeros(WIDTH)) + out.tokens[b, t].detach()
    return sums


def same_heaps(a: TokenizedSequence, b: TokenizedSequence) -> bool:
    ours, theirs = heaped(a), heaped(b)
    return ours.keys() == theirs.keys() and all(torch.allclose(ours[key], theirs[key], atol=1e-5) for key in ours)


def test_there_is_one_for_every_modality():
    assert {*NEURAL, *SIDE} <= {*TOKENIZERS}


def test_shape_mask_and_clock(case):
    tokenizer, stream = case
    out = tokenizer(stream)
    assert out.tokens.shape == (*out.mask.shape, WIDTH)
    assert out.mask.shape == out.times.shape
    assert out.modality == stream.modality
    assert torch.equal(out.t0, stream.t0)
    assert (out.tokens[~out.mask] == 0).all()
    assert (out.times.diff() >= 0).all()
    if out.dt.isnan().any():
        assert out.dt.isnan().all(), "irregular"
    else:
        assert out.mask.all()
        assert out.mask.shape[1] == N_PATCHES
        assert torch.allclose(out.dt, stream.dt * tokenizer.size(stream))
        assert torch.allclose(out.times, out.t0[:, None] + torch.arange(N_PATCHES) * out.dt[:, None])


def padded(stream: StreamBatch) -> StreamBatch:
    """32 samples, three channels (events have none) and a whole window more, none of them valid."""
    t, c = 32, 0 if stream.labels is not None else 3
    more = {
        "values": (0, c, 0, t, 0, 1), "counts": (0, c, 0, t, 0, 1), "seen": (0, c, 0, t, 0, 1), "mask": (0, t, 0, 1), "ids": (0, c, 0, 1),
        "channel_mask": (0, c, 0, 1), "positions": (0, 0, 0, c, 0, 1), "t0": (0, 1),
    }  # fmt: skip
    wider = {name: F.pad(value, pad) for name, pad in more.items() if (value := getattr(stream, name)) is not None}
    times = torch.cat([stream.times, stream.times[:, -1:].expand(-1, t)], 1)
    labels = None if stream.labels is None else (*stream.labels, ())
    return dataclasses.replace(stream, **wider, times=torch.cat([times, times[:1]]), dt=stream.dt[[0, 1, 0]], labels=labels)


def test_padding_changes_no_valid_token(case):
    tokenizer, stream = case
    plain, out = tokenizer(stream), tokenizer(padded(stream))
    n = plain.tokens.shape[1]
    assert torch.allclose(out.tokens[:2, :n], plain.tokens, atol=1e-5)
    assert torch.equal(out.mask[:2, :n], plain.mask)
    assert torch.equal(out.times[:2, :n], plain.times)
    assert not out.mask[:2, n:].any()
    assert not out.mask[2].any()
    assert (out.tokens[~out.mask] == 0).all()


def test_order_of_channels_does_not_matter(series_case):
    """Tokens of one time may change places among themselves."""
    tokenizer, stream = series_case
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = dataclasses.replace(
        stream,
        values=stream.values[..., order],
        counts=stream.counts[..., order],
        seen=stream.seen[..., order],
        ids=stream.ids[:, order],
        positions=None if stream.positions is None else stream.positions[:, order],
    )
    assert same_heaps(tokenizer(moved), tokenizer(stream))


def test_identity_of_channels_matters(series_case):
    tokenizer, stream = series_case
    moved = dataclasses.replace(stream, values=stream.values.roll(1, 2), counts=stream.counts.roll(1, 2))
    assert not same_heaps(tokenizer(moved), tokenizer(stream))


def changed_in(patch: int, tokenizer: Tokenizer, stream: StreamBatch) -> StreamBatch:
    """Everything that was measured in a patch is another."""
    size = tokenizer.size(stream)
    values = stream.values.clone()
    values[:, patch * size : (patch + 1) * size] += 2 + torch.rand(values[:, :size].shape, generator=torch.Generator().manual_seed(1))
    if stream.labels is not None:
        return dataclasses.replace(stream, values=values, labels=tuple((*own[:patch], "other", *own[patch + 1 :]) for own in stream.labels))
    counts, seen = stream.counts.clone(), stream.seen.clone()
    counts[:, patch * size] += 3
    seen[:, patch * size : (patch + 1) * size] ^= True
    return dataclasses.replace(stream, values=values, counts=counts, seen=seen)


def test_a_patch_changes_its_own_token_alone(case):
    tokenizer, stream = case
    plain, out = tokenizer(stream), tokenizer(changed_in(2, tokenizer, stream))
    kept = [{time: token for time, token in heaped(o).items() if time not in own_times(stream, tokenizer)} for o in (plain, out)]
    assert kept[0].keys() == kept[1].keys()
    assert all(torch.allclose(kept[0][key], kept[1][key], atol=1e-5) for key in kept[0])
    assert not same_heaps(plain, out)


def own_times(stream: StreamBatch, tokenizer: Tokenizer) -> set[tuple[int, float]]:
    """Where the tokens of patch 2 stand: at its beginning, or, spikes, in the middle of their bin."""
    starts = stream.times[:, 2 * tokenizer.size(stream)]
    return {(b, time) for own in (starts, starts + stream.dt / 2) for b, time in enumerate(own.tolist())}


def test_hidden_patch_leaves_no_trace(case):
    tokenizer, stream = case
    hidden = torch.zeros(2, n_hideable(tokenizer, stream), dtype=torch.bool)
    hidden[:, 2] = True
    ours, theirs = tokenizer(stream, hidden), tokenizer(changed_in(2, tokenizer, stream), hidden)
    for field in ("tokens", "mask", "times"):
        assert torch.equal(getattr(ours, field), getattr(theirs, field))
    assert not same_heaps(ours, tokenizer(stream))


def test_unknown_channels_without_a_place_are_refused(series_case):
    tokenizer, stream = series_case
    nobody = dataclasses.replace(stream, ids=torch.zeros_like(stream.ids), positions=None)
    with pytest.raises(ValueError, match=r"5 of 5 .* channels of window 0 are not in the model's vocabulary"):
        tokenizer(nobody)


def test_unknown_channels_are_placed_one_by_one(series_case):
    """A place serves a tokenizer that has a scale, and no channel but its own; a row serves every one."""
    tokenizer, stream = series_case
    places = torch.zeros(2, N_CHANNELS, 3)
    ids = torch.arange(1, N_CHANNELS + 1).expand(2, -1).clone()
    ids[1, 2:] = 0
    mixed = dataclasses.replace(stream, ids=ids, positions=places.where(torch.arange(N_CHANNELS)[:, None] < 3, torch.nan))
    with pytest.raises(ValueError, match=rf"{3 if tokenizer.scale is None else 2} of 5 .* channels of window 1 are not in the model's"):
        tokenizer(mixed)
    if tokenizer.scale is not None:
        out = tokenizer(dataclasses.replace(mixed, ids=ids.where(torch.arange(N_CHANNELS) < 3, 1)))
        assert out.tokens.isfinite().all()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_gradient_reaches_every_parameter(name):
    tokenizer, total = build(name), torch.zeros(())
    for _, stream in streams(name):
        hidden = torch.zeros(2, n_hideable(tokenizer, stream), dtype=torch.bool)
        hidden[:, 1] = True
        out = tokenizer(stream, hidden).tokens
        total = total + (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum()
    total.backward()
    idle = [key for key, parameter in tokenizer.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not idle
    assert all(parameter.grad.isfinite().all() for parameter in tokenizer.parameters())


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if TOKENIZERS[name].patch_s])
def test_windows_of_two_rates_are_refused_where_patches_have_a_length(name):
    stream = dataclasses.replace(series(name, rates(name)[0], placed=False), dt=torch.tensor([0.01, 0.02]))
    with pytest.raises(ValueError, match=r"windows of one batch have sampling steps .* s; batch one rate at a time"):
        build(name)(stream)


# ---------------------------------------------------------------- what only some of them do
@pytest.mark.parametrize(
    ("modality", "rate"), [("eeg", 64.0), ("eeg", 256.0), ("eeg", 300.0), ("meg", 600.0), ("emg", 2000.0), ("eye", 500.0)]
)
def test_a_token_means_the_same_at_any_rate(modality, rate):
    """A slow wave, sampled at any rate, gives nearly the same tokens."""
    tokenizer = build(modality)
    torch.nn.init.zeros_(tokenizer.step.weight)

    def tokens(hz: float) -> torch.Tensor:
        times = (torch.arange(round(2 * hz)) + 0.5) / hz
        wave = torch.sin(2 * torch.pi * 1.5 * times)[None, :, None].expand(2, -1, N_CHANNELS)
        mask = torch.ones(2, len(times), dtype=torch.bool)
        base = series(modality, hz, placed=False)
        like = dataclasses.replace(base, values=wave, mask=mask, times=times.expand(2, -1), seen=mask[..., None].expand(wave.shape))
        return tokenizer(like).tokens.detach()

    ours, reference = tokens(rate), tokens(1024.0)
    assert torch.allclose(ours, reference[:, : ours.shape[1]], atol=0.25 * float(reference.std()))


@pytest.mark.parametrize("modality", ["spikes", "calcium"])
def test_units_with_a_place_but_no_row_are_refused(modality):
    """Place says who an electrode is; a population's tokenizer cannot read it."""
    with pytest.raises(ValueError, match=r"5 of 5 .* channels of window 0 are not in the model's vocabulary"):
        build(modality)(series(modality, 5.0, placed=True))


@pytest.mark.parametrize("name", SIDE)
def test_values_not_seen_are_told_from_values_at_the_mean(name):
    """Both are 0 in the batch."""
    tokenizer, stream = build(name), series(name, rates(name)[0], placed=False)
    quiet = dataclasses.replace(stream, values=torch.zeros_like(stream.values), seen=torch.ones_like(stream.seen))
    unseen = dataclasses.replace(quiet, seen=quiet.seen & (torch.arange(N_CHANNELS) > 0))
    assert not torch.allclose(tokenizer(quiet).tokens, tokenizer(unseen).tokens, atol=1e-3)


@pytest.mark.parametrize("name", ["task", "language"])
def test_events_are_their_words_and_how_long_they_last(name):
    tokenizer = build(name)
    stream = dataclasses.replace(words(name), values=torch.ones(2, 6, 1))
    out = tokenizer(stream).tokens
    assert torch.allclose(out[0, 0], out[0, 3])  # left, left
    assert torch.allclose(out[0, 0], out[1, 0], atol=1e-6)  # in another window
    assert not torch.allclose(out[0, 0], out[0, 1], atol=1e-3)
    longer = tokenizer(dataclasses.replace(stream, values=stream.values * 2)).tokens
    assert not torch.allclose(longer[0, 0], out[0, 0], atol=1e-3)


def test_a_batch_without_any_event_has_no_tokens():
    none = dataclasses.replace(words("task"), mask=torch.zeros(2, 6, dtype=torch.bool), labels=((), ()))
    out = build("task")(none)
    assert not out.mask.any()
    assert (out.tokens == 0).all()
