"""Fourier features of place, and the identity of channels: known, placed or padding."""

import math

import pytest
import torch

from neurofm_ml.nn.embeddings import ChannelEmbedding, FourierFeatures


def test_features_approach_a_gaussian_kernel():
    """Random Fourier features estimate exp(-d^2 / 2 l^2) of the distance d (Rahimi and Recht 2007), here with l = scale / 2 pi."""
    features = FourierFeatures(3, 20_000, scale=0.1)
    for distance in (0.0, 0.01, 0.02, 0.05):
        a, b = features(torch.tensor([[0.02, 0.03, 0.1], [0.02 + distance, 0.03, 0.1]])) / 20_000**0.5
        assert float(a @ b) == pytest.approx(math.exp(-((2 * math.pi * distance / 0.1) ** 2) / 2), abs=0.03)


def test_features_are_those_of_the_seed_and_saved_with_the_weights():
    a, b, other = FourierFeatures(3, 8, 1.0), FourierFeatures(3, 8, 1.0), FourierFeatures(3, 8, 1.0, seed=1)
    assert torch.equal(a.frequencies, b.frequencies)
    assert not torch.equal(a.frequencies, other.frequencies)
    assert "frequencies" in a.state_dict()


def test_places_keep_their_digits_in_mixed_precision():
    features, points = FourierFeatures(3, 32, scale=60.0), 100 * torch.rand(50, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = features(points)
    assert torch.equal(found, features(points))


@pytest.fixture
def embedding() -> ChannelEmbedding:
    torch.manual_seed(0)
    return ChannelEmbedding(torch.full((4,), 0.5), 16, scale=0.1)


def test_rows_start_with_the_deviation_asked_for():
    torch.manual_seed(0)
    table = ChannelEmbedding(torch.tensor([0.1] * 50 + [2.0] * 50), 64).table.weight.detach()
    assert float(table[1:51].std()) == pytest.approx(0.1, rel=0.05)
    assert float(table[51:].std()) == pytest.approx(2.0, rel=0.05)
    assert (table[0] == 0).all()


def test_known_channels_have_rows_others_places_padding_nothing(embedding):
    ids = torch.tensor([[2, 0, 0, 0]])
    positions = torch.randn(1, 4, 3) * 0.1
    channel_mask = torch.tensor([[True, True, True, False]])
    who = embedding(ids, positions, channel_mask)
    assert torch.equal(who[0, 0], embedding.table.weight[2])
    assert torch.allclose(who[0, 1:3], embedding.place(positions[0, 1:3]) / 3**0.5, atol=1e-5)
    assert (who[0, 3] == 0).all()
    assert torch.equal(embedding(ids, None, channel_mask)[0, 1:], torch.zeros(3, 16))


def test_padding_and_order_of_channels_change_no_place(embedding):
    positions, mask = torch.randn(1, 3, 3), torch.ones(1, 3, dtype=torch.bool)
    ids = torch.zeros(1, 3, dtype=torch.long)
    plain = embedding(ids, positions, mask)
    padded = embedding(torch.zeros(1, 5, dtype=torch.long), torch.cat([positions, torch.ones(1, 2, 3)], 1), torch.arange(5)[None] < 3)
    assert torch.allclose(padded[:, :3], plain, atol=1e-5)
    assert torch.allclose(embedding(ids, positions.flip(1), mask).flip(1), plain, atol=1e-5)


def test_neighbours_are_alike_and_far_channels_are_not(embedding):
    positions = torch.tensor([[[0.0, 0.0, 0.1], [0.0, 0.005, 0.1], [0.0, 0.1, 0.0]]])
    a, near, far = embedding(torch.zeros(1, 3, dtype=torch.long), positions, torch.ones(1, 3, dtype=torch.bool))[0]
    assert (a - near).norm() < 0.5 * (a - far).norm()
