"""Attention against a twin that loops, its clock, and its masks."""

import pytest
import torch
import torch.nn.functional as F

from neurofm_ml.nn.attention import Attention, AxialBlock, Rotary, Transformer, local, rotate

B, T, D, H = 2, 7, 16, 2


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def times() -> torch.Tensor:
    return torch.rand(B, T, generator=torch.Generator().manual_seed(1)).cumsum(1) * 10


def twin(attention: Attention, x: torch.Tensor, angles: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One window, one head, one query at a time."""
    out = torch.zeros(B, T, D)
    d = D // H
    for b in range(B):
        q, k, v = (part.view(T, H, d) for part in attention.project(x[b]).split(D, -1))
        for h in range(H):
            for i in range(T):
                read = [j for j in range(T) if mask[b, i, j]]
                a = [
                    rotate(s[None, None, t : t + 1, h], angles[b : b + 1, :, t : t + 1])[0, 0, 0]
                    for s, t in [(q, i), *((k, j) for j in read)]
                ]
                weights = torch.stack([(a[0] * key).sum() * d**-0.5 for key in a[1:]]).softmax(0)
                out[b, i, h * d : (h + 1) * d] = sum(w * v[j, h] for w, j in zip(weights, read, strict=True))
    return F.linear(out, attention.out.weight, attention.out.bias)


def test_equals_its_twin(x, times):
    torch.manual_seed(0)
    attention, rotary = Attention(D, H), Rotary(D // H, (1.0, 100.0))
    mask = torch.ones(T, T, dtype=torch.bool).tril().expand(B, T, T).clone()
    mask[0, :, 2] = False
    mask[0, 2, 1] = True
    found = attention(x, rotary(times), mask[:, None])
    assert torch.allclose(found, twin(attention, x, rotary(times), mask), atol=1e-5)


def test_only_the_time_between_tokens_counts(x, times):
    torch.manual_seed(0)
    model, mask = Transformer(D, 2, H, (1.0, 100.0)), torch.ones(B, T, dtype=torch.bool)
    assert torch.allclose(model(x, times + 300, mask), model(x, times, mask), atol=1e-4)
    assert not torch.allclose(model(x, times * 2, mask), model(x, times, mask), atol=1e-2)


def test_rotation_keeps_lengths_and_has_the_periods_asked_for():
    rotary = Rotary(8, (2.0, 100.0))
    x = torch.randn(1, 1, 1, 8)
    turned = rotate(x, rotary(torch.tensor([[2.0]])))
    assert torch.allclose(turned.norm(), x.norm())
    assert torch.allclose(turned[..., [0, 4]], x[..., [0, 4]], atol=1e-5), "one whole turn in 2 s"
    assert torch.allclose(rotate(x, rotary(torch.tensor([[100.0]])))[..., [3, 7]], x[..., [3, 7]], atol=1e-5)


def test_padding_changes_no_valid_token(x, times):
    torch.manual_seed(0)
    model, mask = Transformer(D, 2, H), torch.ones(B, T, dtype=torch.bool)
    padded = model(F.pad(x, (0, 0, 0, 3), value=9.0), F.pad(times, (0, 3)), F.pad(mask, (0, 3)))
    assert torch.allclose(padded[:, :T], model(x, times, mask), atol=1e-5)


def test_a_window_without_a_token_is_finite_and_so_is_its_gradient(x, times):
    model = Transformer(D, 1, H)
    mask = torch.tensor([[True] * T, [False] * T])
    out = model(x, times, mask)
    out.square().mean().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("what", "reads"), [("past", True), ("future", False), ("other parcel's past", True), ("padding", False)])
def test_axial_block_reads_what_it_may(what, reads):
    """A token of parcel 0 and patch 3: what of the rest moves it."""
    torch.manual_seed(0)
    block, rotary = AxialBlock(D, H, causal=True).eval(), Rotary(D // H, (1.0, 100.0))
    x, mask = torch.randn(1, 6, 4, D), torch.ones(1, 6, 4, dtype=torch.bool)
    mask[:, :, 3] = False
    angles = rotary(torch.arange(6.0)[None])
    where = {"past": (1, 0), "future": (4, 0), "other parcel's past": (1, 2), "padding": (2, 3)}[what]
    moved = x.clone()
    moved[(0, *where)] *= 2
    two = torch.nn.ModuleList([block, AxialBlock(D, H, causal=True).eval()])

    def run(values):
        for layer in two:
            values = layer(values, angles, mask)
        return values[0, 3, 0]

    assert torch.allclose(run(x), run(moved), atol=1e-6) is not reads


def test_local_heads_start_out_reading_their_own_time():
    """With tokens that are alike, the last head prefers those near in time, the first none."""
    torch.manual_seed(0)
    attention, rotary = local(Attention(D, H)), Rotary(D // H, (10.0, 100.0))
    torch.nn.init.zeros_(attention.out.bias)
    attention.out.weight.data = torch.eye(D)
    times = torch.arange(0.0, 7.0)[None] * 4
    attention.project.weight.data[: 2 * D] = 0
    attention.project.weight.data[2 * D :] = torch.ones(D, D) / D
    read = torch.stack(
        [
            attention(one[None, :, None].expand(1, T, D), rotary(times), torch.ones(1, 1, 1, T, dtype=torch.bool))[0, 3]
            for one in torch.eye(T)
        ]
    )
    read = read - attention.project.bias[2 * D :]
    assert torch.allclose(read[:, 0], torch.full((T,), 1 / T), atol=1e-5)
    assert int(read[:, -1].argmax()) == 3
    assert read[3, -1] > 2 * read[0, -1]
