"""MEG transformer: a loop over tokens as its twin, padding, hiding, several kinds of sensors, what masking teaches."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models import MEGTransformer
from neurofm_ml.models.merged import merged
from neurofm_ml.nn.attention import AxialBlock, Rotary, rotate
from neurofm_ml.training.meg_transformer import loss

CFG = patch(presets.meg_transformer_pretrain("tiny"), {"model": {"d_model": 16, "n_heads": 2}})


@pytest.fixture
def model(vocabulary: Vocabulary) -> MEGTransformer:
    torch.manual_seed(0)
    return MEGTransformer(CFG.model, vocabulary).eval()


@pytest.fixture
def batch(make_batch):
    return make_batch("meg", seconds=1.0)


def alone(block: AxialBlock, x: Tensor, angles: Tensor, valid: Tensor) -> Tensor:
    """The block on one window (P, C, D), token by token: what it may read is listed, then weighed."""
    for norm, attention, along in ((block.norms[0], block.in_time, 0), (block.norms[1], block.in_space, 1)):
        mixed = torch.zeros_like(x)
        for p, c in valid.nonzero().tolist():
            own = [(k, c) for k in range(x.shape[0])] if along == 0 else [(p, k) for k in range(x.shape[1])]
            read = [place for place in own if valid[place]]
            q, _, _ = attention.project(norm(x[p, c])).view(3, attention.n_heads, -1)
            _, k, v = torch.stack([attention.project(norm(x[r])).view(3, attention.n_heads, -1) for r in read], 2)
            if along == 0:
                q = rotate(q[None, :, None], angles[None, None, p : p + 1])[0, :, 0]
                k = rotate(k[None], angles[None, None, [r[0] for r in read]])[0]
            weights = (k @ q[..., None])[..., 0].div(q.shape[1] ** 0.5).softmax(1)
            mixed[p, c] = attention.out((weights[..., None] * v).sum(1).flatten())
        x = x + mixed
    return x + block.feed(x)


def test_a_block_against_a_loop():
    torch.manual_seed(0)
    block, x = AxialBlock(8, 2, causal=False), torch.randn(2, 4, 3, 8)
    valid = torch.ones(2, 4, 3, dtype=torch.bool)
    valid[0, :, 2], valid[1, 3] = False, False
    times = torch.rand(2, 4)
    angles = Rotary(4, (0.1, 1.0))(times)
    found = block(x, angles, valid)
    for k in range(2):
        expected = alone(block, x[k], angles[k, 0], valid[k])
        assert torch.allclose(found[k][valid[k]], expected[valid[k]], atol=1e-5)


def test_latents_are_means_over_sensors_at_the_middle_of_patches(model, batch):
    found = model.encode(batch)
    assert found.values.shape == (2, 40, 16)
    assert torch.allclose(found.times[0], (torch.arange(40) + 0.5) * 0.025, atol=1e-6)
    stream = batch.streams["meg"]
    tokens = model.tokens(stream, torch.zeros(2, 40, 5, dtype=torch.bool))
    assert torch.allclose(found.values, tokens.mean(2), atol=1e-5)


def test_padding_changes_nothing(model, batch):
    s = batch.streams["meg"]
    more = {"values": F.pad(s.values, (0, 3, 0, 60), value=4.0), "ids": F.pad(s.ids, (0, 3)), "positions": F.pad(s.positions, (0, 0, 0, 3))}
    masks = {"mask": F.pad(s.mask, (0, 60)), "channel_mask": F.pad(s.channel_mask, (0, 3)), "times": F.pad(s.times, (0, 60))}
    padded = dataclasses.replace(batch, streams={"meg": dataclasses.replace(s, **more, **masks)})
    a, b = model.encode(batch), model.encode(padded)
    assert torch.allclose(a.values, b.values[:, :40], atol=1e-5)
    assert b.mask.sum(1).tolist() == [40, 40]


def test_hidden_tokens_cannot_be_read_back(model, batch):
    s = batch.streams["meg"]
    hidden = torch.zeros(2, 40, 5, dtype=torch.bool)
    hidden[:, 7, 2] = True
    values = s.values.clone()
    values[:, 35:40, 2] += 5
    assert torch.equal(model.tokens(s, hidden), model.tokens(dataclasses.replace(s, values=values), hidden))
    assert not torch.equal(model.tokens(s, ~hidden), model.tokens(dataclasses.replace(s, values=values), ~hidden))


def test_sensors_may_come_in_any_order(model, batch):
    s, order = batch.streams["meg"], torch.tensor([4, 2, 0, 1, 3])
    moved = dataclasses.replace(s, values=s.values[..., order], ids=s.ids[:, order], positions=s.positions[:, order])
    assert torch.allclose(model.encode(batch).values, model.encode(dataclasses.replace(batch, streams={"meg": moved})).values, atol=1e-5)


def test_kinds_of_sensors_stand_side_by_side(model, batch):
    s = batch.streams["meg"]
    parts = {}
    for name, own in (("magnetometers", slice(0, 2)), ("gradiometers", slice(2, 5))):
        cut = {field: getattr(s, field)[:, own] for field in ("ids", "positions", "channel_mask")}
        parts[name] = dataclasses.replace(s, values=s.values[..., own], **cut)
    apart = dataclasses.replace(batch, streams=parts)
    assert torch.allclose(model.encode(apart).values, model.encode(batch).values, atol=1e-6)
    slower = dataclasses.replace(parts["gradiometers"], dt=2 * s.dt)
    with pytest.raises(ValueError, match="meg signals magnetometers, gradiometers differ in sampling"):
        merged(dataclasses.replace(batch, streams={**parts, "gradiometers": slower}), "meg")
    with pytest.raises(ValueError, match="the batch holds no eeg, but meg; choose datasets that have eeg"):
        merged(batch, "eeg")


def test_a_window_without_one_kind_of_sensor_is_as_if_there_were_none(model, batch):
    s = batch.streams["meg"]
    absent = dataclasses.replace(
        s, mask=s.mask & torch.tensor([[True], [False]]), values=s.values * torch.tensor([1.0, 0.0])[:, None, None]
    )
    both = dataclasses.replace(batch, streams={"meg": s, "more": absent})
    assert torch.allclose(model.encode(both).values[1], model.encode(batch).values[1], atol=1e-5)


def test_sensors_that_begin_later_than_others_are_missing_until_then(model, batch):
    s = batch.streams["meg"]
    later = dataclasses.replace(s, mask=s.mask & (s.times >= 0.5), values=s.values * (s.times >= 0.5)[..., None])
    stream = merged(dataclasses.replace(batch, streams={"meg": s, "more": later}), "meg")
    assert model.sensors.valid(stream).sum(2).tolist() == [[5] * 20 + [10] * 20] * 2


def test_masking_is_a_function_of_its_generator(model, batch):
    first, second, third = (float(loss(CFG)(model, batch, torch.Generator().manual_seed(seed), 0.0)[0]) for seed in (0, 0, 1))
    assert first == second != third


def test_hidden_activity_is_learned_from_other_sensors(batch, vocabulary):
    """Five sensors with one source: half the tokens tell the others."""
    torch.manual_seed(0)
    s = batch.streams["meg"]
    losses = []
    model = MEGTransformer(CFG.model, vocabulary)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(80):
        source = torch.randn(2, 200, 1, generator=torch.Generator().manual_seed(step))
        shared = dataclasses.replace(batch, streams={"meg": dataclasses.replace(s, values=source.expand(-1, -1, 5))})
        total, _ = loss(CFG)(model, shared, torch.Generator().manual_seed(step), 0.0)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total))
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


@pytest.mark.parametrize(
    ("size", "low", "high"), [("tiny", 5e4, 5e5), ("small", 15e6, 25e6), ("medium", 90e6, 150e6), ("large", 300e6, 500e6)]
)
def test_size_by_count(size, low, high):
    with torch.device("meta"):
        model = MEGTransformer(presets.meg_transformer(size), Vocabulary({}, (), {}))
    assert low < model.n_parameters() < high
