"""The scan's forms against the float64 loop, streaming against the whole, padding, direction, ONNX."""

import functools
import importlib.util
import re
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from neurofm_ml.nn.ssm import Scanned, SSMBlock, scan, scan_chunked, scan_few, scan_fused, scan_sequential

Form = Callable[..., Scanned]
NAMES = ("x", "dt", "A", "B", "C", "state")


def relative(ours: Tensor, reference: Tensor) -> float:
    """Relative L2 error."""
    ours, reference = ours.detach().double(), reference.detach().double()
    return float((ours - reference).norm() / reference.norm())


def inputs(T: int, *, groups: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
    """Batch 2, 4 heads of 6, state of 5; some steps have dt = 0, as padding does."""
    g = torch.Generator().manual_seed(seed)
    dt = torch.rand(2, T, 4, generator=g) * (torch.rand(2, T, 1, generator=g) > 0.1)
    B, C = (torch.randn(2, T, groups, 5, generator=g) for _ in range(2))
    return torch.randn(2, T, 4, 6, generator=g), dt, -torch.linspace(0.05, 4, 4), B, C, torch.randn(2, 4, 6, 5, generator=g)


def with_gradients(form: Form, args: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Values and gradients, of a loss that weighs y and the last state at random."""
    args = tuple(v.detach().clone().requires_grad_() for v in args)
    outputs = form(*args)
    g = torch.Generator().manual_seed(1)
    loss = sum((v * torch.randn(v.shape, generator=g).to(v)).sum() for v in outputs)
    return dict(zip(("y", "after", *NAMES), (*outputs, *torch.autograd.grad(loss, args)), strict=True))


@functools.cache
def truth(T: int) -> dict[str, Tensor]:
    return with_gradients(scan_sequential, tuple(v.double() for v in inputs(T)))


def assert_close(ours: dict[str, Tensor], reference: dict[str, Tensor], tolerance: float) -> None:
    errors = {name: relative(ours[name], reference[name]) for name in reference}
    assert max(errors.values()) <= tolerance, errors


def test_sequential_scan_of_an_impulse_is_its_closed_form() -> None:
    x = torch.zeros(1, 6, 1, 1, dtype=torch.float64)
    x[0, 0] = 2.0
    ones = torch.ones(1, 6, 1, 1, dtype=torch.float64)
    y, after = scan_sequential(x, 0.5 * ones[..., 0], torch.tensor([-3.0], dtype=torch.float64), 4 * ones, 7 * ones)
    np.testing.assert_allclose(y.flatten(), 0.5 * 2 * 4 * 7 * np.exp(-3 * 0.5 * np.arange(6)))
    assert float(after * 7) == pytest.approx(float(y[0, -1]))


@pytest.mark.parametrize("form", [scan_sequential, scan_chunked])
@pytest.mark.parametrize("T", [1, 7, 32, 33, 100, 1100])
def test_forms_agree_with_the_float64_loop_in_values_and_gradients(form: Form, T: int) -> None:
    assert_close(with_gradients(form, inputs(T)), truth(T), 1e-5)


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_chunk_length_and_groups_do_not_matter(chunk: int) -> None:
    args = tuple(v.double() for v in inputs(90, groups=1))
    reference = with_gradients(scan_sequential, args)
    assert_close(with_gradients(lambda *a: scan_chunked(*a, chunk=chunk), args), reference, 1e-12)


@pytest.mark.parametrize("reset", [10.0, 1e3, 1e6])
def test_steps_that_forget_everything_cost_the_others_no_digits(reset: float) -> None:
    x, dt, A, B, C, state = inputs(1100)
    erase = torch.rand(dt.shape, generator=torch.Generator().manual_seed(2)) < 0.3
    x, dt = torch.where(erase[..., None], x / reset, x), torch.where(erase, reset, 0.1 * dt)
    args = (x, dt, A, B, C, state)
    ours, reference = scan_chunked(*args), scan_sequential(*(v.double() for v in args))
    assert relative(ours[0], reference[0]) <= 1e-5
    assert relative(ours[1], reference[1]) <= 1e-5


@pytest.mark.parametrize("form", [scan_sequential, scan_chunked])
def test_state_carries_one_half_to_the_other(form: Form) -> None:
    x, dt, A, B, C, state = inputs(75)
    first, middle = form(x[:, :41], dt[:, :41], A, B[:, :41], C[:, :41], state)
    second, after = form(x[:, 41:], dt[:, 41:], A, B[:, 41:], C[:, 41:], middle)
    y, last = form(x, dt, A, B, C, state)
    assert relative(torch.cat([first, second], dim=1), y) <= 1e-6
    assert relative(after, last) <= 1e-6


def test_reduced_precision_stays_near_the_reference() -> None:
    args = inputs(100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = scan(*args)
    assert relative(y, scan_sequential(*args)[0]) <= 2e-2


@pytest.mark.gpu
@pytest.mark.skipif(importlib.util.find_spec("mamba_ssm") is None or not torch.cuda.is_available(), reason="needs mamba_ssm and CUDA")
def test_fused_kernels_agree_with_the_loop() -> None:
    g = torch.Generator().manual_seed(0)
    draw = [torch.randn(2, 300, *shape, generator=g) for shape in ((8, 64), (8,), (2, 32), (2, 32))]
    args = (draw[0], draw[1].sigmoid(), -torch.linspace(0.1, 4, 8), draw[2], draw[3], torch.randn(2, 8, 64, 32, generator=g))
    reference = with_gradients(scan_sequential, tuple(v.cuda().double() for v in args))
    assert_close(with_gradients(scan_fused, tuple(v.cuda() for v in args)), reference, 5e-3)  # kernels multiply in TF32


# ---------------------------------------------------------------- block
def block(*, bidirectional: bool, d_conv: int = 4, norm: bool = False) -> SSMBlock:
    torch.manual_seed(0)
    return SSMBlock(16, n_heads=4, d_state=8, d_conv=d_conv, expand=2, bidirectional=bidirectional, dropout=0.5, norm=norm).eval()


def tokens(T: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, T, 16, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("d_conv", "norm"), [(4, False), (9, True), (1, False)])
def test_streaming_equals_the_full_forward(d_conv: int, norm: bool) -> None:
    layer, x = block(bidirectional=False, d_conv=d_conv, norm=norm), tokens(70)
    state, outputs = layer.init_state(len(x)), []
    for t in range(x.shape[1]):
        y, state = layer.step(x[:, t], state)
        outputs.append(y)
    assert relative(torch.stack(outputs, dim=1) - x, layer(x) - x) <= 1e-5


@pytest.mark.parametrize("lengths", [(1, 2, 3, 8, 6), (9, 1, 10), (20,)], ids=str)
def test_advancing_by_any_number_of_steps_equals_the_full_forward(lengths: tuple[int, ...]) -> None:
    layer, x = block(bidirectional=False), tokens(20)
    mask = torch.rand(2, 20, generator=torch.Generator().manual_seed(5)) < 0.8
    state, outputs = layer.init_state(len(x)), []
    for part, there in zip(x.split(lengths, dim=1), mask.split(lengths, dim=1), strict=True):
        y, state = layer.advance(part, state, there)
        outputs.append(y)
    assert relative((torch.cat(outputs, dim=1) - x)[mask], (layer(x, mask) - x)[mask]) <= 1e-5


def test_a_few_steps_agree_with_the_float64_loop() -> None:
    for steps in (1, 2, 8):
        args = inputs(steps, groups=1)
        ours, reference = scan_few(*args), scan_sequential(*(v.double() for v in args))
        assert relative(ours[0], reference[0]) <= 1e-5
        assert relative(ours[1], reference[1]) <= 1e-5


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("d_conv", [4, 9])
def test_padding_never_changes_valid_tokens(bidirectional: bool, d_conv: int) -> None:
    layer, x = block(bidirectional=bidirectional, d_conv=d_conv), tokens(40)
    whole = layer(x)
    for before, after in ((0, 30), (30, 0), (3, 5)):
        padded = torch.nn.functional.pad(x, (0, 0, before, after), value=float("nan"))
        mask = padded.isfinite().all(dim=-1)
        torch.testing.assert_close(layer(padded, mask)[:, before : before + 40], whole, atol=1e-6, rtol=1e-5)


def test_masked_steps_amid_a_sequence_leave_no_trace_of_their_values() -> None:
    layer, x = block(bidirectional=True), tokens(40)
    mask = torch.ones(2, 40, dtype=torch.bool)
    mask[0, 10:20] = mask[1, 5] = False
    other = torch.where(mask[..., None], x, 100.0)
    assert torch.equal(layer(x, mask)[mask], layer(other, mask)[mask])
    assert not torch.allclose(layer(x, mask)[0, 20:], layer(x)[0, 20:])


@pytest.mark.parametrize(("bidirectional", "sees"), [(False, False), (True, True)])
def test_only_a_bidirectional_block_sees_the_future(bidirectional: bool, sees: bool) -> None:
    layer, x = block(bidirectional=bidirectional), tokens(60)
    changed = x.clone()
    changed[:, 50] += 5.0
    difference = (layer(x) - layer(changed)).abs().amax(dim=(0, 2))
    assert bool((difference[:45] > 1e-7).any()) is sees
    assert (difference[50:] > 1e-7).all()


def test_both_directions_are_mirror_images() -> None:
    layer, x = block(bidirectional=True, d_conv=3), tokens(50)
    mirrored = block(bidirectional=True, d_conv=3)
    with torch.no_grad():
        for name, parameter in swapped_directions(layer).items():
            mirrored.get_parameter(name).copy_(parameter)
    torch.testing.assert_close(mirrored(x.flip(1)), layer(x).flip(1), atol=1e-5, rtol=1e-5)


def swapped_directions(layer: SSMBlock) -> dict[str, Tensor]:
    """Parameters with the heads that run forwards and those that run backwards exchanged."""
    E, N, H = layer.d_inner, layer.d_state, layer.n_heads
    inner = torch.arange(E).roll(E // 2)
    rows = torch.cat([torch.arange(2 * N).roll(N), 2 * N + torch.arange(2 * N).roll(N), 4 * N + torch.arange(H).roll(H // 2)])
    both = torch.cat([inner, E + inner])
    conv = layer.conv
    assert conv.bias is not None
    return {
        "project_in.weight": layer.project_in.weight[both],
        "project_in.bias": layer.project_in.bias[both],
        "conv.weight": conv.weight.flip(-1)[inner],
        "conv.bias": conv.bias[inner],
        "select.weight": layer.select.weight[rows][:, inner],
        "select.bias": layer.select.bias[rows],
        "log_A": layer.log_A.roll(H // 2),
        "skip": layer.skip[inner],
        "project_out.weight": layer.project_out.weight[:, inner],
    }


def test_every_parameter_learns() -> None:
    layer = block(bidirectional=True, norm=True)
    layer(tokens(40)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in layer.parameters())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_onnx_export_keeps_batch_and_time_dynamic() -> None:
    layer, x = block(bidirectional=True), tokens(50)
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    example = (x, torch.ones(2, 50, dtype=torch.bool))
    program = torch.onnx.export(layer, example, dynamo=True, dynamic_shapes=(axes, axes), verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch, T in ((1, 1), (3, 64), (1, 77), (2, 1300)):
        x = tokens(T, batch)
        mask = torch.rand(batch, T, generator=torch.Generator().manual_seed(4)) > 0.2
        (y,) = session.run(None, {"x": x.numpy(), "mask": mask.numpy()})
        assert relative(torch.from_numpy(y) - x, layer(x, mask) - x) <= 1e-4


BAD_INPUT: list[tuple[Callable[[], object], str]] = [
    (lambda: SSMBlock(16, n_heads=3), "n_heads is 3; it must divide expand * d_model = 16"),
    (lambda: SSMBlock(15, n_heads=3, bidirectional=True), "n_heads is 3; a bidirectional block needs an even number"),
    (lambda: block(bidirectional=True).init_state(1), "build it with bidirectional=False"),
]


@pytest.mark.parametrize(("call", "match"), BAD_INPUT)
def test_bad_input(call: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=re.escape(match)):
        call()


@pytest.mark.skipif(importlib.util.find_spec("mamba_ssm") is not None, reason="the kernels are installed")
def test_fused_scan_without_kernels_names_the_remedy() -> None:
    with pytest.raises(ValueError, match="pip install mamba-ssm"):
        scan_fused(*inputs(4))
