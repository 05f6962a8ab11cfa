"""GridFusion against a twin that loops over latents, and its clock."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from neurofm_ml.nn.perceiver import GridFusion, GridMean
from neurofm_ml.types import TokenizedSequence


def tokens(dt: float, n: int, t0: float = 0.0, seed: int = 0) -> TokenizedSequence:
    values = torch.randn(2, n, 8, generator=torch.Generator().manual_seed(seed))
    times = t0 + torch.arange(n) * dt
    return TokenizedSequence(values, torch.rand(2, n) < 0.8, times.expand(2, -1), torch.full((2,), t0), torch.full((2,), dt), "spikes")


def twin(fusion: GridFusion, sequences: list[TokenizedSequence], times: torch.Tensor, grid_dt: float) -> torch.Tensor:
    """One latent, one token at a time."""
    out = torch.zeros(2, times.shape[1], 8)
    for b in range(2):
        for k, centre in enumerate(times[b].tolist()):
            scores, values = [], []
            for s in sequences:
                t0, dt = float(s.t0[b]), float(s.dt[b])
                if fusion.causal:
                    own = int((centre + grid_dt / 2 - t0) / dt + 1e-3) - 1
                    near = range(own - fusion.context + 1, own + 1)
                else:
                    own = int((centre - t0) // dt)
                    near = range(own - fusion.context // 2, own - fusion.context // 2 + fusion.context)
                for i in (i for i in near if 0 <= i < s.tokens.shape[1] and s.mask[b, i]):
                    key, value = fusion.key_value(s.tokens[b, i]).view(2, fusion.n_heads, -1)
                    scores.append((key * fusion.query).sum(-1) * 4**-0.5 - F.softplus(fusion.decay) * abs(i - own))
                    values.append(value)
            if scores:
                weights = torch.stack(scores).softmax(0)
                out[b, k] = (weights[..., None] * torch.stack(values)).sum(0).flatten()
    return fusion.out(out)


def test_equals_its_twin():
    torch.manual_seed(0)
    times = (torch.arange(12) + 0.5).expand(2, -1) * 0.5
    for causal in (False, True):
        fusion = GridFusion(8, 2, 3, causal)
        torch.nn.init.normal_(fusion.query)
        sequences = [tokens(0.5, 12), tokens(0.125, 48, seed=1), tokens(2.0, 3, seed=2), tokens(0.3, 15, t0=1.0, seed=3)]
        values, mask = fusion(sequences, times, torch.full((2,), 0.5))
        expected = twin(fusion, sequences, times, 0.5)
        assert torch.allclose(values, expected, atol=1e-5)
        assert (mask | torch.isclose(values, fusion.out.bias, atol=1e-6).all(-1)).all()


def test_starts_out_reading_its_own_bin():
    """A fresh fusion is nearly the identity in time: what it reads is mostly the token of the bin."""
    torch.manual_seed(0)
    fusion = GridFusion(8, 2, 4, causal=False)
    sequence = tokens(1.0, 20)
    spike = torch.zeros(2, 20, 8)
    spike[:, 10] = 1
    moved = TokenizedSequence(spike, torch.ones(2, 20, dtype=torch.bool), sequence.times, sequence.t0, sequence.dt, "spikes")
    still = TokenizedSequence(spike * 0, moved.mask, sequence.times, sequence.t0, sequence.dt, "spikes")
    times, dt = (torch.arange(20) + 0.5).expand(2, -1), torch.ones(2)
    change = (fusion([moved], times, dt)[0] - fusion([still], times, dt)[0]).norm(dim=-1)[0]
    assert int(change.argmax()) == 10
    assert change[10] > 2 * change[9]


def event_times(n: int, seed: int) -> torch.Tensor:
    return torch.rand(2, n, generator=torch.Generator().manual_seed(seed)).mul(7).sub(0.5).sort(dim=1).values


def events(n: int, padding: int = 0, seed: int = 0) -> TokenizedSequence:
    values = torch.randn(2, n + padding, 8, generator=torch.Generator().manual_seed(seed))
    times = F.pad(event_times(n, seed), (0, padding), mode="replicate") if padding else event_times(n, seed)
    mask = torch.arange(n + padding) < n
    return TokenizedSequence(values, mask.expand(2, -1), times, torch.zeros(2), torch.full((2,), torch.nan), "task")


def twin_of_events(fusion: GridFusion, s: TokenizedSequence, times: torch.Tensor, grid_dt: float) -> torch.Tensor:
    """One latent at a time: all events in the order of their distance, the first `context` of them."""
    out = torch.zeros(2, times.shape[1], 8)
    for b in range(2):
        for k, centre in enumerate(times[b].tolist()):
            there = [i for i in range(s.tokens.shape[1]) if s.mask[b, i]]
            if fusion.causal:
                near = [i for i in there if float(s.times[b, i]) <= centre + grid_dt / 2][-fusion.context :]
            else:
                near = sorted(there, key=lambda i: abs(float(s.times[b, i]) - centre))[: fusion.context]
            scores, values = [], []
            for i in near:
                key, value = fusion.key_value(s.tokens[b, i]).view(2, fusion.n_heads, -1)
                distance = abs(float(s.times[b, i]) - centre) / grid_dt
                scores.append((key * fusion.query).sum(-1) * 4**-0.5 - F.softplus(fusion.decay) * distance)
                values.append(value)
            if scores:
                weights = torch.stack(scores).softmax(0)
                out[b, k] = (weights[..., None] * torch.stack(values)).sum(0).flatten()
    return fusion.out(out)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", [1, 2, 30])
def test_events_equal_their_twin_and_padding_changes_nothing(causal: bool, n: int):
    torch.manual_seed(0)
    times = (torch.arange(12) + 0.5).expand(2, -1) * 0.5
    fusion = GridFusion(8, 2, 3, causal)
    torch.nn.init.normal_(fusion.query)
    for padding in (0, 4):
        values, mask = fusion([events(n, padding)], times, torch.full((2,), 0.5))
        expected = twin_of_events(fusion, events(n, padding), times, 0.5)
        assert torch.allclose(values, expected, atol=1e-5)
        assert torch.equal(mask, ~torch.isclose(expected, fusion.out.bias).all(-1))


def test_events_that_follow_a_bin_are_not_read_by_the_causal_form():
    torch.manual_seed(0)
    fusion, times, dt = GridFusion(8, 2, 3, causal=True), (torch.arange(12) + 0.5).expand(2, -1) * 0.5, torch.full((2,), 0.5)
    before = events(30)
    after = dataclasses.replace(before, tokens=torch.where(before.times[..., None] > 3.0, before.tokens + 9, before.tokens))
    a, b = (fusion([s], times, dt)[0] for s in (before, after))
    assert torch.equal(a[:, :6], b[:, :6])
    assert not torch.allclose(a[:, 6:], b[:, 6:])


def test_the_ablation_averages_what_attention_would_weigh() -> None:
    """With nothing to prefer a token by, attention is the mean."""
    torch.manual_seed(0)
    mean, fusion = GridMean(8, 2, 3, causal=False), GridFusion(8, 2, 3, causal=False)
    missing, unexpected = fusion.load_state_dict(mean.state_dict(), strict=False)
    assert (missing, unexpected) == (["query", "decay"], [])
    torch.nn.init.constant_(fusion.decay, -1e3)
    times, dt, sequences = (torch.arange(12) + 0.5).expand(2, -1) * 0.5, torch.full((2,), 0.5), [tokens(0.125, 48)]
    for a, b in zip(mean(sequences, times, dt), fusion(sequences, times, dt), strict=True):
        torch.testing.assert_close(a, b)
