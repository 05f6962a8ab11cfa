"""Decoding in closed loop equals the full causal forward: any chunking, several rates, gaps, long sessions."""

import dataclasses
import random

import pytest
import torch

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.models import NeuroFMx
from neurofm_ml.types import Batch, StreamBatch

TASK = "toy/velocity"


def build(vocabulary, **changes) -> NeuroFMx:
    torch.manual_seed(0)
    shape = {"d_model": 16, "n_heads": 2, "d_state": 4, "bidirectional": False, "prenorm": True, **changes}
    model = NeuroFMx(patch(presets.neurofmx("tiny"), shape), vocabulary).eval()
    # Fresh models read no session, hide gaps and attend by distance alone.
    for p in (model.session.weight, model.fusion.query, *model.modality.values()):
        torch.nn.init.normal_(p)
    return model


def cut(stream: StreamBatch, start: float, end: float) -> StreamBatch | None:
    """The samples that begin in [start, end), on a clock that starts at `start`; None without any."""
    inside = ((stream.times[0] >= start - 1e-4) & (stream.times[0] < end - 1e-4)).nonzero()[:, 0]
    if not len(inside):
        return None
    own = slice(int(inside[0]), int(inside[-1]) + 1)
    timed = {name: value[:, own] for name in ("values", "mask", "counts") if (value := getattr(stream, name)) is not None}
    times = stream.times[:, own] - start
    return dataclasses.replace(stream, **timed, times=times, t0=times[:, 0])


def in_chunks(model: NeuroFMx, batch: Batch, ends: list[float], absent: tuple[str, float, float] = ("", 0, 0), **how) -> torch.Tensor:
    """What the stream decodes of a batch, (B, L, 2); the signal `absent` is not pushed in chunks that start between two times."""
    stream, start, parts = model.stream([TASK], batch.session, float(batch.dt[0]), **how), 0.0, []
    for end in ends:
        chunk = {name: part for name, s in batch.streams.items() if (part := cut(s, start, end)) is not None}
        if absent[1] <= start < absent[2]:
            chunk.pop(absent[0], None)
        parts.append(stream.push(chunk, end - start).behaviour[TASK])
        start = end
    return torch.cat(parts, 1)


def relative(ours: torch.Tensor, reference: torch.Tensor) -> float:
    return float((ours.double() - reference.double()).norm() / reference.double().norm())


def random_ends(seed: int, until: float = 12.0) -> list[float]:
    """Ends of chunks of 1 ms to 3 s."""
    draw, ends = random.Random(seed), [0.0]
    while ends[-1] < until:
        ends.append(ends[-1] + 10 ** draw.uniform(-3, 0.5))
    return [*ends[1:-1], until]


@pytest.mark.parametrize("modalities", [("spikes",), ("eeg",), ("spikes", "calcium", "eeg", "fmri")], ids="+".join)
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_any_chunking_equals_the_full_forward(modalities, seed, make_batch, vocabulary):
    model, batch = build(vocabulary), make_batch(*modalities, seed=seed)
    assert relative(in_chunks(model, batch, random_ends(seed)), model(batch).behaviour[TASK]) <= 1e-5


@torch.no_grad()
def test_half_the_bytes_differ_by_their_rounding(make_batch, vocabulary):
    """A bfloat16 has 8 bits, and a few hundred roundings are averaged on the way."""
    model, batch = build(vocabulary), make_batch("spikes", "eeg", seed=0)
    error = relative(in_chunks(model, batch, random_ends(0), precision="bfloat16"), model(batch).behaviour[TASK])
    assert 1e-5 < error < 2e-2


@pytest.mark.parametrize("hz", [2.0, 8.0])
@torch.no_grad()
def test_chunks_of_50_ms_equal_the_full_forward_on_any_grid(hz, make_batch, vocabulary):
    model, batch = build(vocabulary, context=3), make_batch("spikes", "eeg", hz=hz, seconds=6.0)
    ends = [0.05 * k for k in range(1, 121)]
    assert relative(in_chunks(model, batch, ends), model(batch).behaviour[TASK]) <= 1e-5


@pytest.mark.parametrize(("name", "start", "end"), [("spikes", 3.0, 4.0), ("eeg", 2.0, 9.0), ("fmri", 1.0, 12.0)])
@torch.no_grad()
def test_a_signal_may_be_absent_and_come_back(name, start, end, make_batch, vocabulary):
    model, batch = build(vocabulary), make_batch("spikes", "eeg", "fmri")
    ends = [0.25 * k for k in range(1, 49)]
    lost = batch.streams[name]
    lost = dataclasses.replace(lost, mask=lost.mask & ((lost.times < start) | (lost.times >= end)))
    without = dataclasses.replace(batch, streams={**batch.streams, name: lost})
    decoded = in_chunks(model, batch, ends, (name, start, end))
    assert relative(decoded, model(without).behaviour[TASK]) <= 1e-5
    assert relative(decoded, model(batch).behaviour[TASK]) > 1e-3


@torch.no_grad()
def test_bins_without_any_signal_leave_the_state_alone(make_batch, vocabulary):
    """Two streams agree when one of them waited in silence, and bins of silence are not in the mask."""
    model, batch = build(vocabulary), make_batch("spikes")
    waited, fresh = (model.stream([TASK], batch.session, 0.2) for _ in range(2))
    silence = waited.push({}, 7.0)
    assert silence.behaviour[TASK].shape == (2, 35, 2)
    assert not silence.latents.mask.any()
    one, other = (stream.push(batch.streams, 12.0) for stream in (waited, fresh))
    assert relative(one.behaviour[TASK], other.behaviour[TASK]) <= 1e-5
    assert torch.allclose(one.latents.times, other.latents.times + 7.0)


@torch.no_grad()
def test_rounding_does_not_add_up_over_a_long_session(make_batch, vocabulary):
    """Steps of 50 ms are not exact in float32: two hours later the tokens still fall into their bins."""
    model, whole = build(vocabulary, n_layers=1), make_batch("spikes", batch=1, seconds=400.0)
    spikes = dataclasses.replace(whole.streams["spikes"], dt=torch.tensor([0.05]))  # 100 s
    chunk = cut(dataclasses.replace(spikes, times=torch.arange(2000)[None] * 0.05), 0.0, 0.05)
    decoded = []
    for hundreds in (72, 2):
        stream = model.stream([TASK], whole.session, 0.05)
        for _ in range(hundreds):
            stream.push({"spikes": spikes}, 100.0)
        decoded.append(torch.cat([stream.push({"spikes": chunk}, 0.05).behaviour[TASK] for _ in range(20)], 1))
    assert relative(*decoded) <= 1e-4


@torch.no_grad()
def test_what_is_carried_does_not_grow(make_batch, vocabulary):
    model, batch = build(vocabulary), make_batch("spikes", "eeg")
    stream, sizes = model.stream([TASK], batch.session, 0.2), []
    for k in range(40):
        stream.push({name: cut(s, 0.3 * k, 0.3 * k + 0.3) for name, s in batch.streams.items()}, 0.3)
        signals = stream.signals.values()
        sizes.append((max(s.tokens.tokens.shape[1] for s in signals), sum(s.rest.values.shape[1] for s in signals if s.rest is not None)))
    assert max(tokens for tokens, _ in sizes) == model.cfg.context + 1
    assert max(samples for _, samples in sizes) < 5  # a patch of EEG


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"bidirectional": True}, "sees the future and cannot stream"),
        ({"backbone": "gru"}, "backbone is 'gru'; only \"ssm\" carries a state"),
    ],
)
def test_models_that_cannot_stream_say_so(changes, match, vocabulary):
    with pytest.raises(ValueError, match=match):
        build(vocabulary, **changes).stream([TASK], torch.ones(1, dtype=torch.long), 0.2)


def test_chunks_that_overlap_or_disagree_are_refused(make_batch, vocabulary):
    model, batch = build(vocabulary), make_batch("spikes")
    stream = model.stream([TASK], batch.session, 0.2)
    stream.push(batch.streams, 12.0)
    with pytest.raises(ValueError, match=r"spikes begins at 10 s of the stream, 10 samples before the next one is due at 12 s"):
        stream.push({"spikes": dataclasses.replace(batch.streams["spikes"], t0=torch.full((2,), -2.0))}, 12.0)
    with pytest.raises(ValueError, match="needs one regular clock for all sessions"):
        stream.push({"spikes": dataclasses.replace(batch.streams["spikes"], t0=torch.tensor([0.0, 0.1]))}, 12.0)
