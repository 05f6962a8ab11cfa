"""Choosing tokens, and filling in those that were not seen."""

import torch

from neurofm_ml.nn.filling import Filler, choose, draw


def test_tokens_are_taken_in_order_and_put_back():
    keep = torch.rand(4, 9, generator=torch.Generator().manual_seed(0)) < torch.tensor([[0.3], [0.9], [0.0], [0.5]])
    values = torch.randn(4, 9, 2)
    chosen = choose(keep)
    for b in range(4):
        assert torch.equal(chosen.take(values)[b, chosen.mask[b]], values[b, keep[b]])
    assert torch.equal(chosen.put(chosen.take(values), 9), values * keep[..., None])
    assert chosen.take(values[..., 0]).shape == chosen.mask.shape == (4, int(keep.sum(1).max()))


def test_a_share_of_the_valid_is_drawn_evenly():
    valid = torch.tensor([[True] * 8 + [False] * 4, [True] * 2 + [False] * 10, [False] * 12])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw(valid, 0.75, generator) for _ in range(2000)])
    assert not (drawn & ~valid).any()
    assert (drawn.sum(2) == torch.tensor([6, 2, 0])).all()
    assert torch.allclose(drawn[:, 0, :8].float().mean(0), torch.tensor(0.75), atol=0.05)


def test_nothing_of_what_was_not_seen_reaches_what_is_filled_in():
    torch.manual_seed(0)
    filler = Filler(8, 16, 1, 2, 3)
    latents, who, times = torch.randn(2, 4, 5, 8), torch.randn(2, 5, 16), torch.arange(20.0).expand(2, -1)
    seen = torch.rand(2, 4, 5) < 0.5
    asked = ~seen & (torch.rand(2, 4, 5) < 0.8)
    filled = filler(latents, who, times, seen, asked)
    other = torch.where(seen[..., None], latents, torch.randn_like(latents))
    assert torch.allclose(filler(other, who, times, seen, asked)[asked], filled[asked], atol=1e-6)
    moved = latents * (1 + seen[..., None])
    assert not torch.allclose(filler(moved, who, times, seen, asked)[asked], filled[asked], atol=1e-3)
