"""BrainLM in both forms and Brain-JEPA: any parcels and repetition times, hiding, causality, the target encoder, sizes."""

import dataclasses

import numpy as np
import pytest
import torch
from parcel_batches import NOBODY, PLACES, batch_of, planted_gradients, white

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.models import BrainJEPA, BrainLM
from neurofm_ml.types import Batch, Latents, StreamBatch

SMALL = {"d_model": 16, "n_layers": 2, "n_heads": 2}


def masked() -> BrainLM:
    torch.manual_seed(0)
    return BrainLM(patch(presets.brainlm("tiny"), SMALL), NOBODY)


def autoregressive() -> BrainLM:
    torch.manual_seed(0)
    return BrainLM(patch(presets.brainlm("tiny", "autoregressive"), SMALL), NOBODY)


def jepa() -> BrainJEPA:
    torch.manual_seed(0)
    model = BrainJEPA(patch(presets.brain_jepa("tiny"), {**SMALL, "n_gradients": 3}), NOBODY)
    model.gradients.fill(planted_gradients(3), NOBODY)
    return model


@pytest.fixture(params=[masked, autoregressive, jepa], ids=lambda make: make.__name__)
def model(request) -> BrainLM | BrainJEPA:
    return request.param()


def batch(seed: int = 0, tr: float = 2.0) -> Batch:
    return batch_of(white(np.random.default_rng(seed), 2), tr)


def part(whole: Batch, volumes: int, parcels: int) -> Batch:
    """The first window alone, without its last volumes and parcels."""
    s = whole.streams["bold"]
    cut = dataclasses.replace(
        s,
        **{name: getattr(s, name)[:1, :volumes] for name in ("mask", "times")},
        **{name: getattr(s, name)[:1, :parcels] for name in ("ids", "channel_mask", "positions")},
        **{name: getattr(s, name)[:1] for name in ("t0", "dt")},
        values=s.values[:1, :volumes, :parcels],
    )
    return dataclasses.replace(whole, streams={"bold": cut})


def test_other_parcels_and_repetition_times_beside_it_change_no_window(model):
    """Window 0 has 40 volumes of 9 parcels at 2 s, window 1 has 48 of 12 at 0.8 s."""
    whole = batch()
    stream = whole.streams["bold"]
    dt, there = torch.tensor([2.0, 0.8]), torch.ones(2, 48, dtype=torch.bool)
    there[0, 40:] = False
    real = torch.ones(2, 12, dtype=torch.bool)
    real[0, 9:] = False
    noise = torch.where(there[..., None] & real[:, None], stream.values, 50.0)
    mixed = dataclasses.replace(stream, values=noise, mask=there, channel_mask=real, dt=dt, times=torch.arange(48) * dt[:, None])
    together = model.encode(dataclasses.replace(whole, streams={"bold": mixed}))
    alone = model.encode(part(whole, 40, 9))
    n = alone.values.shape[1]
    assert torch.allclose(together.values[:1, :n], alone.values, atol=1e-4)
    assert torch.allclose(together.times[:1, :n], alone.times)
    assert together.mask[0, :n].all()
    assert not together.mask[0, n:].any()
    assert (together.values[~together.mask] == 0).all()


def test_one_latent_per_patch_at_its_centre(model):
    found = model.encode(batch())
    seconds = model.cfg.patch_s or 2.0
    assert isinstance(found, Latents)
    assert found.values.shape == (2, int(96 / seconds), 16)
    assert torch.allclose(found.times[0], (torch.arange(int(96 / seconds)) + 0.5) * seconds)


def test_order_of_parcels_does_not_matter(model):
    whole = batch()
    s = whole.streams["bold"]
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(PLACES)))
    moved = dataclasses.replace(s, values=s.values[..., order], positions=s.positions[:, order])
    assert torch.allclose(model.encode(dataclasses.replace(whole, streams={"bold": moved})).values, model.encode(whole).values, atol=1e-5)
    swapped = dataclasses.replace(s, values=s.values[..., order])
    assert not torch.allclose(
        model.encode(dataclasses.replace(whole, streams={"bold": swapped})).values, model.encode(whole).values, atol=1e-3
    )


def changed(whole: Batch, where: torch.Tensor) -> Batch:
    """Other values at (B, T, C)."""
    stream: StreamBatch = whole.streams["bold"]
    other = batch(seed=1).streams["bold"].values
    return dataclasses.replace(whole, streams={"bold": dataclasses.replace(stream, values=torch.where(where, other, stream.values))})


def test_what_is_hidden_cannot_be_read_back():
    model, whole = masked().eval(), batch()
    patches = model.patches(whole)
    hidden = torch.rand(patches.mask.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    other = changed(whole, hidden.repeat_interleave(8, 1))
    a, b = (model.reconstruct(w, model.patches(w), hidden)[hidden] for w in (whole, other))
    assert torch.allclose(a, b, atol=1e-6)
    elsewhere = changed(whole, ~hidden.repeat_interleave(8, 1))
    assert not torch.allclose(model.reconstruct(elsewhere, model.patches(elsewhere), hidden)[hidden], a, atol=1e-3)


def test_what_was_not_seen_does_not_reach_the_prediction_of_latents():
    model, whole = jepa().eval(), batch()
    seen = torch.rand(2, 6, 12, generator=torch.Generator().manual_seed(0)) < 0.5
    other = changed(whole, ~seen.repeat_interleave(8, 1))
    a, b = (model.predict(w, model.patches(w), seen, ~seen)[~seen] for w in (whole, other))
    assert torch.allclose(a, b, atol=1e-6)
    assert not torch.allclose(model.targets(whole, model.patches(whole)), model.targets(other, model.patches(other)), atol=1e-3)


def test_the_next_volume_is_predicted_from_the_past_alone():
    model, whole = autoregressive().eval(), batch()
    future = torch.arange(48)[None, :, None].expand(2, -1, 12) >= 30
    other = changed(whole, future)
    a, b = (model.predict_next(w, model.patches(w)) for w in (whole, other))
    assert a.shape == (2, 47, 12, 1)
    assert torch.allclose(a[:, :29], b[:, :29], atol=1e-5), "what predicts volume 30 and later has seen volume 30"
    assert not torch.allclose(a[:, 30:], b[:, 30:], atol=1e-3)
    assert torch.allclose(model.encode(whole).values[:, :30], model.encode(other).values[:, :30], atol=1e-5)


# ---------------------------------------------------------------- the target encoder
def test_the_target_encoder_follows_and_is_not_trained():
    model, whole = jepa(), batch()
    assert not any(p.requires_grad for p in model.target.parameters())
    before = {name: p.clone() for name, p in model.target.named_parameters()}
    with torch.no_grad():
        for p in model.context.parameters():
            p += 1
    model.follow(0.75)
    for name, p in model.target.named_parameters():
        assert torch.allclose(p, before[name] + 0.25, atol=1e-6)
    assert not model.targets(whole, model.patches(whole)).requires_grad
    assert {name.split(".")[0] for name in model.state_dict()} == {"gradients", "context", "target", "who_predictor", "predictor"}


def test_a_fresh_model_takes_gradients_with_the_weights():
    model, whole = jepa(), batch()
    fresh = BrainJEPA(model.cfg, NOBODY)
    with pytest.raises(ValueError, match="they have no functional gradients"):
        fresh.encode(whole)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.encode(whole).values, model.encode(whole).values)


# ---------------------------------------------------------------- sizes
@pytest.mark.parametrize(
    ("make", "millions"),
    [
        (lambda size: BrainLM(presets.brainlm(size), NOBODY), (0.2, 25, 111, 655)),
        (lambda size: BrainLM(presets.brainlm(size, "autoregressive"), NOBODY), (0.2, 28, 113, 630)),
        (lambda size: BrainJEPA(presets.brain_jepa(size), NOBODY).context, (0.2, 21.5, 85.5, 303)),
    ],
    ids=["masked", "autoregressive", "jepa"],
)
def test_sizes(make, millions):
    """Counted without memory: 111M and 650M as published, and ViT-S, B and L."""
    with torch.device("meta"):
        found = [sum(p.numel() for p in make(size).parameters()) / 1e6 for size in presets.SIZES]
    assert found == pytest.approx(millions, rel=0.02, abs=0.1)


WRONG = [
    ({"n_heads": 3}, r"n_heads is 3; twice that must divide d_model = 64"),
    ({"patch_s": -1.0}, r"patch_s is -1\.0; it must not be negative"),
    ({"n_samples": 0}, r"n_samples is 0; it must be positive"),
]


@pytest.mark.parametrize(("changes", "match"), WRONG)
@pytest.mark.parametrize("preset", [presets.brainlm, presets.brain_jepa])
def test_impossible_shapes_are_refused(preset, changes, match):
    with pytest.raises(ValueError, match=match):
        patch(preset("tiny"), changes)


@pytest.mark.parametrize(
    ("make", "changes", "match"),
    [
        (presets.brainlm_pretrain, {"hidden": 0.0}, r"BrainLMPretrainConfig\.hidden is 0\.0; it must be positive"),
        (presets.brainlm_pretrain, {"hidden": 1.0}, r"BrainLMPretrainConfig\.hidden is 1\.0; it must lie in"),
        (presets.brain_jepa_pretrain, {"momentum": 1.0}, r"BrainJEPAPretrainConfig\.momentum is 1\.0; it must lie in"),
        (presets.brain_jepa_pretrain, {"seen_time": 0.0}, r"BrainJEPAPretrainConfig\.seen_time is 0\.0; it must be positive"),
    ],
)
def test_impossible_training_is_refused(make, changes, match):
    with pytest.raises(ValueError, match=match):
        patch(make("tiny"), changes)
