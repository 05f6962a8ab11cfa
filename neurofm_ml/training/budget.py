"""What a pretraining run of NeuroFMx takes, before it is launched: parameters, memory, FLOPs, hours, cost.

``python -m neurofm_ml.training.budget --size small --usd-per-hour 2.5`` prints it. No weights are allocated; the numbers
follow from the config in closed form. A FLOP is an addition or a multiplication; a training step counts three forward passes,
four with activation checkpointing. What is elementwise is left out, as is usual.

Letters: D width of the model, E inner width, H heads, N width of the state, G directions, L bins of a window, c bins of a chunk.
"""

import argparse

import torch

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models import NeuroFMx
from neurofm_ml.nn.ssm import CHUNK, SEGMENT
from neurofm_ml.presets import NeuroFMxConfig, PretrainConfig

#: FLOPs per second of a device at its best (dense, bf16 on GPUs; a CPU core: AVX-512 at 3 GHz).
PEAKS = {"h100": 989e12, "h200": 989e12, "b200": 2250e12, "a100": 312e12, "l40s": 362e12, "cpu core": 1e11}
#: Share of the peak that training reaches: the least of what torchtitan reports on H100.
MFU = 0.33
#: Bytes per parameter: weight, gradient, two moments of the optimiser, moving average; float32 all.
BYTES_PER_PARAMETER = {"weights_gb": 4, "gradients_gb": 4, "optimizer_gb": 8, "average_gb": 4}


def estimate(cfg: PretrainConfig, *, devices: int = 1, bins: int = 60, channels: int = 100) -> dict[str, float]:
    """Parameters; FLOPs, latent bins and gigabytes per device of a step; of the run tokens and FLOPs.

    A window is taken to have one signal of `channels` spiking units in `bins` bins, those of the grid.
    """
    train, n = cfg.train, parameters(cfg.model, channels)
    windows = train.batch_size * train.accumulate * devices
    passes = 4 if train.activation_checkpointing else 3
    flops = passes * windows * forward_flops(cfg.model, bins, channels)
    shared = devices if train.strategy in ("fsdp", "deepspeed") else 1
    memory = {name: n * size / shared / 1e9 for name, size in BYTES_PER_PARAMETER.items()}
    memory["activations_gb"] = activation_bytes(cfg, bins) / 1e9
    return {
        "parameters": n,
        "flops_per_step": flops,
        "tokens_per_step": windows * bins,
        **memory,
        "memory_gb": sum(memory.values()),
        "tokens": windows * bins * train.steps,
        "flops": flops * train.steps,
    }


def hours(flops: float, devices: int, peak: float, share: float = MFU) -> float:
    """Hours that `devices` take that reach `share` of their `peak` FLOPs per second."""
    return flops / (devices * peak * share) / 3600


def mfu(flops_per_step: float, seconds: float, peak: float) -> float:
    """Model FLOPs utilisation (Chowdhery et al. 2022): share of the peak that a step of `seconds` reaches."""
    return flops_per_step / seconds / peak


def peak_of(device: str) -> float | None:
    """Peak FLOPs per second of a device by its name, as CUDA says it; None where it is not known."""
    return next((peak for name, peak in PEAKS.items() if name in device.lower()), None)


def parameters(cfg: NeuroFMxConfig, channels: int = 100) -> int:
    """Parameters of a model that reads spikes, counted on the meta device."""
    names = tuple(f"any/one/spikes/{i}" for i in range(channels))
    with torch.device("meta"):
        return sum(p.numel() for p in NeuroFMx(cfg, Vocabulary({"spikes": names}, ("any/one",), {"any/behaviour": 2})).parameters())


def forward_flops(cfg: NeuroFMxConfig, bins: int, channels: int) -> float:
    """FLOPs of one window through tokenizer, fusion, backbone and the heads of behaviour and activity."""
    D, E, N, G = cfg.d_model, cfg.expand * cfg.d_model, cfg.d_state, 1 + cfg.bidirectional
    tokens = 2 * channels * D + 2 * D * 2 * D + 2 * D * D
    heads = 2 * D * D + 2 * D * channels + 2 * D * 2
    if cfg.backbone == "gru":
        hidden = 3 * D // 4
        return float(bins * (tokens + heads + cfg.n_layers // 2 * G * (6 * hidden * (D + hidden) + 2 * hidden * D)))
    linear = 2 * D * 2 * E + 2 * E * cfg.d_conv + 2 * E * (2 * G * N + cfg.n_heads) + 2 * E * D
    return float(bins * (tokens + heads + cfg.n_layers * (linear + scan_flops(cfg, bins))))


def scan_flops(cfg: NeuroFMxConfig, bins: int) -> float:
    """FLOPs per bin of the chunked scan: products inside chunks, states out of and into them, the recurrence over chunks."""
    E, N, G = cfg.expand * cfg.d_model, cfg.d_state, 1 + cfg.bidirectional
    segment = min(bins, SEGMENT)
    chunk = min(CHUNK, segment)
    chunks = -(-segment // chunk)
    filled = chunks * chunk / segment
    within = 2 * chunk * (G * N + E) + 4 * E * N
    return filled * within + 2 * (chunks + 1) ** 2 * E * N / segment


def activation_bytes(cfg: PretrainConfig, bins: int) -> float:
    """Bytes that the backward pass of one micro-batch needs: what blocks keep, or their inputs and one block.

    Counted per bin and block in numbers of the formulas of the scan; autocast halves about half of them.
    """
    m = cfg.model
    E = m.expand * m.d_model
    kept = 4 * m.d_model + 15 * E + 3 * m.n_heads * CHUNK + 6 * (1 + m.bidirectional) * m.d_state + 3 * E * m.d_state / CHUNK
    blocks = kept + m.n_layers * m.d_model if cfg.train.activation_checkpointing else m.n_layers * kept
    return cfg.train.batch_size * bins * blocks * (4 if cfg.train.precision == "32-true" else 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=presets.SIZES, required=True)
    parser.add_argument("--budget", choices=presets.BUDGETS, help="instead of the one that comes with the size")
    parser.add_argument("--gpus", type=int, help="how many; default: those that the size asks for")
    parser.add_argument("--device", choices=list(PEAKS), help="default: h100, or a CPU core where no GPU is asked for")
    parser.add_argument("--mfu", type=float, default=MFU, help="share of the peak that is reached")
    parser.add_argument("--usd-per-hour", type=float, help="of one GPU")
    parser.add_argument("--bins", type=int, default=60, help="of a window")
    parser.add_argument("--channels", type=int, default=100)
    options = parser.parse_args()
    asked = presets.resources(options.size)
    devices = options.gpus if options.gpus is not None else asked.nodes * asked.gpus
    device = options.device or ("h100" if devices else "cpu core")
    cfg = presets.pretrain(options.size)
    if options.budget:
        cfg = patch(cfg, presets.budget(options.budget))
    found = estimate(cfg, devices=max(devices, 1), bins=options.bins, channels=options.channels)
    expected = hours(found["flops"], max(devices, 1), PEAKS[device], options.mfu)
    print(f"{options.size}: {cfg.train.steps:,} steps on {max(devices, 1)} x {device}, {cfg.train.strategy}, {cfg.train.precision}")
    for name, value in found.items():
        print(
            f"{name:>18s}  {value:,.2f}"
            if name.endswith("_gb")
            else f"{name:>18s}  {value:,.3g}"
            if value > 1e9
            else f"{name:>18s}  {value:,.0f}"
        )
    print(f"{'hours':>18s}  {expected:,.2f} at {options.mfu:.0%} of the peak; the size asks for {asked.hours:g}")
    if options.usd_per_hour is not None:
        print(f"{'cost':>18s}  {expected * max(devices, 1) * options.usd_per_hour:,.2f} USD")


if __name__ == "__main__":
    main()
