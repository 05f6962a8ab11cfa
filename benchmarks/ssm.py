"""The chunked state-space scan against its sequential loop and a GRU: time, growth with T, exactness, ONNX.

Batch 8, T = 1024, 8 heads of 32 (width 256), state of 16, float32, 2 threads. Contenders take turns and the median
of the turns counts. `ratio` = loop / chunked, forward. The GRU (width 256 in and out) is set against the scan and
against the whole block, which has projections, convolution and gate besides. The slope is that of log time over
log T for T = 512 to 8192. Errors are relative L2.
"""

import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm_ml.nn.ssm import Scanned, SSMBlock, scan_chunked, scan_sequential

BATCH, T, HEADS, HEAD, STATE = 8, 1024, 8, 32, 16
WIDTH = HEADS * HEAD
LENGTHS = (512, 1024, 2048, 4096, 8192)
TURNS = 7


def inputs(batch: int, steps: int) -> tuple[Tensor, ...]:
    """x, dt, A, B, C at random."""
    x, dt = torch.randn(batch, steps, HEADS, HEAD), F.softplus(torch.randn(batch, steps, HEADS))
    B, C = torch.randn(2, batch, steps, 1, STATE)
    return x, dt, -torch.linspace(0.1, 1.0, HEADS), B, C


def relative(ours: Tensor, reference: Tensor) -> float:
    ours, reference = ours.detach().double(), reference.detach().double()
    return float((ours - reference).norm() / reference.norm())


def medians(contenders: Mapping[str, Callable[[], object]], turns: int = TURNS) -> dict[str, float]:
    """Median seconds of each contender; they take turns, the first turn warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def forward_times() -> dict[str, float]:
    args, x = inputs(BATCH, T), torch.randn(BATCH, T, WIDTH)
    gru, block = nn.GRU(WIDTH, WIDTH, batch_first=True), SSMBlock(WIDTH, HEADS, STATE, d_conv=4)
    with torch.inference_mode():
        return medians({
            "chunked scan": lambda: scan_chunked(*args),
            "sequential loop": lambda: scan_sequential(*args),
            "block": lambda: block(x),
            "GRU": lambda: gru(x),
        })  # fmt: skip


def training_times() -> dict[str, float]:
    args, x = inputs(BATCH, T), torch.randn(BATCH, T, WIDTH, requires_grad=True)
    gru, block = nn.GRU(WIDTH, WIDTH, batch_first=True), SSMBlock(WIDTH, HEADS, STATE, d_conv=4)
    for v in args:
        v.requires_grad_()
    return medians({
        "chunked scan": lambda: scan_chunked(*args)[0].sum().backward(),
        "sequential loop": lambda: scan_sequential(*args)[0].sum().backward(),
        "block": lambda: block(x).sum().backward(),
        "GRU": lambda: gru(x)[0].sum().backward(),
    }, turns=3)  # fmt: skip


def growth() -> tuple[dict[str, float], float]:
    """Seconds at each length, and the slope of their logarithms."""

    def timed(args: tuple[Tensor, ...]) -> Callable[[], object]:
        return lambda: scan_chunked(*args)

    with torch.inference_mode():
        seconds = medians({str(steps): timed(inputs(BATCH, steps)) for steps in LENGTHS})
    return seconds, float(np.polyfit(np.log(LENGTHS), np.log(list(seconds.values())), 1)[0])


# ---------------------------------------------------------------- exactness
def values_and_gradients(form: Callable[..., Scanned], args: tuple[Tensor, ...], weights: Tensor) -> list[Tensor]:
    args = tuple(v.detach().requires_grad_() for v in args)
    y, after = form(*args)
    return [y, after, *torch.autograd.grad((y * weights.to(y)).sum() + after.sum(), args)]


def scan_errors() -> tuple[float, float]:
    """Largest error of values, and of gradients, of the chunked form in float32 against the loop in float64."""
    args = inputs(2, T)
    weights = torch.randn_like(args[0])
    reference = values_and_gradients(scan_sequential, tuple(v.double() for v in args), weights)
    errors = [relative(a, b) for a, b in zip(values_and_gradients(scan_chunked, args, weights), reference, strict=True)]
    return max(errors[:2]), max(errors[2:])


@torch.inference_mode()
def streaming_error() -> float:
    """One step at a time in float32 against the full forward in float64, residual aside."""
    block, x = SSMBlock(64, d_state=STATE), torch.randn(2, T, 64)
    state, steps = block.init_state(2), []
    for t in range(T):
        y, state = block.step(x[:, t], state)
        steps.append(y)
    streamed = torch.stack(steps, dim=1) - x
    return relative(streamed, block.double()(x.double()) - x)


def onnx_error() -> float:
    """ONNX Runtime against torch at batches and lengths other than the traced ones; the largest error."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    block, axes = SSMBlock(64, d_state=STATE, bidirectional=True).eval(), {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(block, (torch.randn(2, 50, 64),), dynamo=True, dynamic_shapes=(axes,), verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    errors = []
    for batch, steps in ((1, 1), (3, 77), (2, 1024), (1, 4000)):
        x = torch.randn(batch, steps, 64)
        with torch.inference_mode():
            errors.append(relative(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]) - x, block(x) - x))
    return max(errors)


def main() -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    forward, training = forward_times(), training_times()
    lengths, slope = growth()
    values, gradients = scan_errors()
    print(f"{'':20s}{'forward ms':>12s}{'and backward ms':>18s}")
    for name in forward:
        print(f"{name:20s}{1e3 * forward[name]:12.1f}{1e3 * training[name]:18.1f}")
    for title, times in (("forward", forward), ("with backward", training)):
        chunked, loop, block, gru = (times[name] for name in ("chunked scan", "sequential loop", "block", "GRU"))
        print(
            f"{title}: loop / chunked {loop / chunked:.1f} (>= 3), GRU / chunked {gru / chunked:.1f} (>= 1.5), GRU / block {gru / block:.1f}"
        )
    print("chunked by T, ms: " + ", ".join(f"{steps} {1e3 * s:.1f}" for steps, s in lengths.items()) + f"; slope {slope:.2f} (<= 1.1)")
    print(f"error against float64: values {values:.1e}, gradients {gradients:.1e}, streaming {streaming_error():.1e} (<= 1e-5)")
    print(f"error of ONNX with dynamic batch and time: {onnx_error():.1e} (<= 1e-4)")
    ours, peer = 1e3 * forward["chunked scan"], 1e3 * forward["sequential loop"]
    print(json.dumps({"name": "ssm", "ours": round(ours, 2), "peer": round(peer, 2), "ratio": round(peer / ours, 2), "unit": "ms"}))


if __name__ == "__main__":
    main()
