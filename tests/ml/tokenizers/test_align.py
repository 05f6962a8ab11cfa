"""One clock for sequences of any rates: against closed forms and a twin that looks at one tick and one token at a time."""

import math

import pytest
import torch

from neurofm_ml.tokenizers import align
from neurofm_ml.types import TokenizedSequence

HOWS = ("nearest", "interpolate", "aggregate")


def regular(n: int, dt: float, t0: float = 0.0, gaps: tuple[int, ...] = (), values: torch.Tensor | None = None) -> TokenizedSequence:
    """Tokens that say at which second the middle of what they cover lies, unless they have other values (T,)."""
    middles = t0 + (torch.arange(n, dtype=torch.float64) + 0.5) * dt
    tokens = (middles if values is None else values).float()[None, :, None]
    mask = torch.ones(1, n, dtype=torch.bool)
    mask[:, list(gaps)] = False
    times = (t0 + torch.arange(n) * dt)[None].float()
    return TokenizedSequence(tokens * mask[..., None], mask, times, torch.tensor([t0]), torch.tensor([dt]), "eeg")


def irregular(times: list[float], n_valid: int | None = None) -> TokenizedSequence:
    own = torch.tensor([times])
    mask = torch.arange(len(times))[None] < (len(times) if n_valid is None else n_valid)
    return TokenizedSequence(own[..., None] * mask[..., None], mask, own, torch.zeros(1), torch.tensor([torch.nan]), "task")


def on(sequence: TokenizedSequence, n: int, dt: float, how: str, t0: float = 0.0) -> tuple[list[float], list[bool]]:
    """Values and mask on a clock of `n` ticks; 0 where the mask is False."""
    (out,) = align([sequence], torch.tensor([t0]), torch.tensor([dt]), n, how)  # type: ignore[arg-type]
    assert torch.allclose(out.times[0], t0 + torch.arange(n) * dt, atol=1e-6)
    assert (out.tokens[~out.mask] == 0).all()
    return out.tokens[0, :, 0].tolist(), out.mask[0].tolist()


# ---------------------------------------------------------------- closed forms
@pytest.mark.parametrize(("rate", "clock"), [(250.0, 10.0), (300.0, 7.0), (0.5, 8.0), (8.0, 8.0), (4.995, 20.0)])
@pytest.mark.parametrize("offset", [0.0, 0.013, -0.4])
def test_a_ramp_interpolated_is_the_time_of_the_tick(rate, clock, offset):
    n = round(20 * rate)
    values, mask = on(regular(n, 1 / rate, offset), 160, 1 / clock, "interpolate")
    ticks = [(k + 0.5) / clock for k in range(160)]
    first, last = offset + 0.5 / rate, offset + (n - 0.5) / rate
    assert mask == [first - 1e-6 <= tick <= last + 1e-6 for tick in ticks]
    assert [v for v, there in zip(values, mask, strict=True) if there] == pytest.approx(
        [t for t, m in zip(ticks, mask, strict=True) if m], abs=2e-5
    )


@pytest.mark.parametrize(
    ("rate", "clock", "sample"), [(250.0, 10.0, 618), (1000.0, 20.0, 999), (1000.0, 20.0, 1000), (1000.0, 1000.0, 12345)]
)
def test_an_impulse_lands_in_the_tick_that_holds_its_sample(rate, clock, sample):
    n = 15_000
    impulse = torch.zeros(n)
    impulse[sample] = 1
    each = rate / clock
    values, mask = on(regular(n, 1 / rate, values=impulse), int(n / each), 1 / clock, "aggregate")
    assert all(mask)
    assert [k for k, v in enumerate(values) if v] == [sample // each]
    assert values[int(sample // each)] == pytest.approx(1 / each)


@pytest.mark.parametrize("how", HOWS)
def test_a_sequence_on_its_own_clock_is_itself(how):
    """Hours of a thousand samples a second, whose step float32 does not hold."""
    sequence = regular(200_000, 1e-3, values=torch.arange(200_000) % 1000, gaps=(5, 6, 77_777))
    (out,) = align([sequence], sequence.t0, sequence.dt, 200_000, how)  # type: ignore[arg-type]
    assert torch.equal(out.mask, sequence.mask)
    assert torch.allclose(out.tokens, sequence.tokens)


def test_slow_tokens_stand_for_the_time_they_cover():
    """Volumes of 2 s on a clock of 2 Hz: each is read by its four ticks."""
    values, mask = on(regular(3, 2.0), 12, 0.5, "nearest")
    assert values == [1.0] * 4 + [3.0] * 4 + [5.0] * 4
    assert all(mask)


def test_fast_tokens_are_averaged():
    values, _ = on(regular(40, 0.25), 10, 1.0, "aggregate")
    assert values == pytest.approx([k + 0.5 for k in range(10)])


@pytest.mark.parametrize(
    ("how", "mask"),
    [
        ("nearest", [True, True, False, False, True, True]),
        ("aggregate", [True, True, False, False, True, True]),
        ("interpolate", [True, True, False, False, True, True]),
    ],
)
def test_nothing_is_carried_across_a_gap(how, mask):
    assert on(regular(6, 1.0, gaps=(2, 3)), 6, 1.0, how)[1] == mask


def test_a_gap_ends_where_tokens_have_no_neighbour():
    """Ticks half a token late lie between two tokens, and 1.5 to 4.5 has lost one of them."""
    values, mask = on(regular(6, 1.0, gaps=(2, 3)), 6, 1.0, "interpolate", t0=0.5)
    assert mask == [True, False, False, False, True, False]
    assert [values[0], values[4]] == pytest.approx([1.0, 5.0])


@pytest.mark.parametrize(
    ("how", "values", "mask"),
    [
        ("nearest", [0.25, 1.2, 0, 0, 4.75], [True, True, False, False, True]),
        ("interpolate", [0.5, 1.5, 2.5, 3.5, 4.5], [True, True, True, True, True]),
        ("aggregate", [0.25, 1.5, 0, 0, 4.75], [True, True, False, False, True]),
    ],
)
def test_events_lie_where_they_happened(how, values, mask):
    """0.25 s; 1.2 and 1.8 s; 4.75 s. Of two tokens as near, the earlier."""
    found, there = on(irregular([0.25, 1.2, 1.8, 4.75, 4.75], n_valid=4), 5, 1.0, how)
    assert there == mask
    assert found == pytest.approx(values)


@pytest.mark.parametrize("how", HOWS)
def test_no_token_is_no_tick(how):
    assert on(irregular([0.5, 0.5], n_valid=0), 3, 1.0, how) == ([0, 0, 0], [False] * 3)


@pytest.mark.parametrize("how", HOWS)
def test_nothing_beyond_the_ends(how):
    _, mask = on(regular(3, 1.0, t0=10.0), 20, 1.0, how)
    assert [k for k, there in enumerate(mask) if there] == [10, 11, 12]


# ---------------------------------------------------------------- twin
def twin(sequence: TokenizedSequence, row: int, t0: float, dt: float, n: int, how: str) -> tuple[list[float], list[bool]]:
    step = float(sequence.dt[row])
    tokens = [
        (float(sequence.times[row, i]) if math.isnan(step) else float(sequence.t0[row]) + (i + 0.5) * step, i)
        for i in range(sequence.mask.shape[1])
        if sequence.mask[row, i]
    ]
    values, mask = [], []
    for k in range(n):
        middle = t0 + (k + 0.5) * dt
        found = None
        if how == "aggregate":
            inside = [float(sequence.tokens[row, i, 0]) for time, i in tokens if -dt / 2 <= time - middle < dt / 2]
            found = sum(inside) / len(inside) if inside else None
        elif how == "nearest" and tokens:
            time, i = min(tokens, key=lambda token: (abs(token[0] - middle), token[0]))
            reach = dt / 2 if math.isnan(step) else max(dt, step) / 2
            found = float(sequence.tokens[row, i, 0]) if abs(time - middle) <= reach else None
        elif how == "interpolate":
            before, after = ([t for t in tokens if t[0] <= middle] or [None])[-1], ([t for t in tokens if t[0] > middle] or [None])[0]
            if before and after and (math.isnan(step) or after[1] == before[1] + 1):
                share = (middle - before[0]) / (after[0] - before[0])
                a, b = (float(sequence.tokens[row, t[1], 0]) for t in (before, after))
                found = a + share * (b - a)
        values.append(found or 0.0)
        mask.append(found is not None)
    return values, mask


@pytest.mark.parametrize("how", HOWS)
def test_equals_its_twin(how):
    """Three windows of their own clocks; tokens regular and not, with holes. No tick lies on a token or between two as near."""
    generator = torch.Generator().manual_seed(0)
    dts = torch.tensor([0.1234, 0.517, 0.0331])
    steps = torch.arange(40) * dts[:, None]
    ours = TokenizedSequence(
        torch.randn(3, 40, 1, generator=generator),
        torch.rand(3, 40, generator=generator) < 0.7,
        0.07 + steps,
        torch.full((3,), 0.07),
        dts,
        "eeg",
    )
    times = (torch.rand(3, 25, generator=generator) * 6).sort(1).values
    events = TokenizedSequence(
        torch.randn(3, 25, 1, generator=generator), torch.arange(25) < torch.tensor([[25], [11], [0]]), times, torch.zeros(3),
        torch.full((3,), torch.nan), "task",
    )  # fmt: skip
    t0, dt = torch.tensor([0.0, -0.3, 0.2]), torch.tensor([0.21, 0.09, 0.4])
    for sequence, out in zip((ours, events), align([ours, events], t0, dt, 30, how), strict=True):
        for row in range(3):
            values, mask = twin(sequence, row, float(t0[row]), float(dt[row]), 30, how)
            assert out.mask[row].tolist() == mask
            assert out.tokens[row, :, 0].tolist() == pytest.approx(values, abs=1e-4)


def test_gradients_flow_and_the_clock_is_the_one_asked_for():
    sequence = regular(10, 0.3)
    tokens = sequence.tokens.clone().requires_grad_()
    for how in HOWS:
        (out,) = align([TokenizedSequence(tokens, *[getattr(sequence, f) for f in ("mask", "times", "t0", "dt", "modality")])], sequence.t0, sequence.dt * 2, 5, how)  # type: ignore[arg-type]  # fmt: skip
        out.tokens.sum().backward()
        assert torch.equal(out.dt, sequence.dt * 2)
        assert out.modality == "eeg"
    assert tokens.grad is not None
    assert tokens.grad.isfinite().all()


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="how is 'median'; allowed: nearest, interpolate, aggregate"):
        on(regular(3, 1.0), 3, 1.0, "median")
