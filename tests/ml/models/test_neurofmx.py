"""NeuroFMx: any subset of modalities, padding, hiding, causality, sizes."""

import dataclasses
from fractions import Fraction

import pytest
import torch

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models import MODELS, NeuroFMx
from neurofm_ml.types import Latents

#: The model as it is, and without one of its parts.
PARTS = [{}, {"backbone": "gru"}, {"fusion": "mean"}]
SUBSETS = [("spikes",), ("eeg",), ("spikes", "fmri"), ("spikes", "calcium", "eeg", "fmri")]


def build(vocabulary: Vocabulary, **changes) -> NeuroFMx:
    torch.manual_seed(0)
    return NeuroFMx(patch(presets.neurofmx("tiny"), {"d_model": 16, "n_heads": 2, "d_state": 4, **changes}), vocabulary).eval()


@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_any_subset_of_modalities(modalities, parts, make_batch, vocabulary):
    model = build(vocabulary, **parts)
    batch = make_batch(*modalities)
    out = model(batch, wanted={"activity"})
    assert out.latents.values.shape == (2, 60, 16)
    assert out.behaviour["toy/velocity"].shape == (2, 60, 2)
    for name, stream in batch.streams.items():
        patches, _ = model.tokenizers[name].patches(stream)
        assert out.activity[name].shape == patches.shape
    loss = sum(v.square().mean() for v in (*out.behaviour.values(), *out.activity.values()))
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_padding_a_window_changes_nothing(parts, make_batch, vocabulary):
    model = build(vocabulary, **parts)
    whole = make_batch("spikes")
    keep = torch.arange(60) < 40
    stream = whole.streams["spikes"]
    padded = dataclasses.replace(
        whole,
        mask=whole.mask & keep,
        streams={"spikes": dataclasses.replace(stream, mask=stream.mask & keep, values=torch.where(keep[:, None], stream.values, 0.0))},
    )
    short = dataclasses.replace(
        whole,
        mask=whole.mask[:, :40],
        times=whole.times[:, :40],
        streams={"spikes": dataclasses.replace(stream, mask=stream.mask[:, :40], values=stream.values[:, :40], times=stream.times[:, :40])},
    )
    a, b = model.encode(padded, {}), model.encode(short, {})
    assert torch.allclose(a.values[:, :40], b.values, atol=1e-5)
    assert not a.mask[:, 40:].any()


@pytest.mark.parametrize("bidirectional", [True, False])
def test_causal_form_does_not_see_the_future(bidirectional, make_batch, vocabulary):
    model = build(vocabulary, bidirectional=bidirectional)
    batch = make_batch("spikes", "eeg", "fmri")
    future = dataclasses.replace(
        batch,
        streams={
            n: dataclasses.replace(s, values=torch.where(s.times[..., None] >= 6.0, s.values + 3, s.values))
            for n, s in batch.streams.items()
        },
    )
    before, after = model.encode(batch, {}).values[:, :30], model.encode(future, {}).values[:, :30]
    assert torch.allclose(before, after, atol=1e-5) is not bidirectional


def test_hidden_patch_cannot_be_read_back(make_batch, vocabulary):
    model = build(vocabulary)
    batch = make_batch("spikes")
    hidden = {"spikes": torch.zeros(2, 60, dtype=torch.bool)}
    hidden["spikes"][:, 10] = True
    stream = batch.streams["spikes"]
    values = stream.values.clone()
    values[:, 10] += 5
    other = dataclasses.replace(batch, streams={"spikes": dataclasses.replace(stream, values=values)})
    assert torch.equal(model(batch, hidden).latents.values, model(other, hidden).latents.values)


def test_order_of_units_does_not_matter(make_batch, vocabulary):
    model = build(vocabulary)
    batch = make_batch("spikes")
    s, order = batch.streams["spikes"], torch.tensor([4, 2, 0, 1, 3])
    moved = dataclasses.replace(batch, streams={"spikes": dataclasses.replace(s, values=s.values[..., order], ids=s.ids[:, order])})
    a, b = model(batch, wanted={"activity"}), model(moved, wanted={"activity"})
    assert torch.allclose(a.behaviour["toy/velocity"], b.behaviour["toy/velocity"], atol=1e-5)
    assert torch.allclose(a.activity["spikes"][:, :, order], b.activity["spikes"], atol=1e-5)


class Latent(torch.nn.Module):
    """An activity head that gives back the latents it was handed."""

    def forward(self, latents, who, ids):
        return latents


@pytest.mark.parametrize("grid_hz", [8.0, 5.0, 1.355607, 256.0, 16.0, 48.0])
@pytest.mark.parametrize(("modality", "sfreq"), [("eeg", 128.0), ("eeg", 300.0), ("fmri", 1.0), ("fmri", 2 / 3), ("calcium", 1.66228)])
def test_activity_is_read_from_the_bin_around_the_middle_of_the_patch(modality, sfreq, grid_hz, make_batch, vocabulary):
    """Against a search with exact fractions; a middle on the edge of two bins is read from the later one."""
    model = build(vocabulary)
    model.activity[modality] = Latent()
    batch = make_batch(modality, hz=grid_hz, batch=1)
    n = round(12 * sfreq)
    stream = dataclasses.replace(batch.streams[modality], values=torch.zeros(1, n, 5), dt=torch.tensor([1 / sfreq]))
    latents = Latents(torch.arange(batch.times.shape[1])[None, :, None].expand(-1, -1, 16).float(), batch.times, batch.mask)
    found = model.predict_activity(latents, batch, stream)[0, :, 0].tolist()
    rate, grid = (Fraction(hz).limit_denominator(10**7) for hz in (sfreq, grid_hz))
    size = model.tokenizer(modality).size(stream)
    expected = [min((k + Fraction(1, 2)) * size / rate * grid // 1, batch.times.shape[1] - 1) for k in range(n // size)]
    assert found == expected


@pytest.mark.parametrize(
    ("size", "low", "high"), [("tiny", 1e5, 1e6), ("small", 17e6, 23e6), ("medium", 130e6, 170e6), ("large", 430e6, 570e6)]
)
def test_size_by_count(size, low, high):
    """With every neural modality, on the meta device, where nothing is allocated."""
    with torch.device("meta"):
        model = MODELS["neurofmx"](presets.neurofmx(size), Vocabulary({}, (), {}, modalities=presets.NEURAL))
    assert set(model.tokenizers) == set(presets.NEURAL)
    assert low < model.n_parameters() < high
    assert all(p.is_meta for p in model.parameters())
