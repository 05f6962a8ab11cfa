"""A picture of what an encoder makes of a window: its input above, its latents below, on one clock."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurofm_ml.types import Array, Batch


@torch.no_grad()
def draw_window(model: Any, batch: Batch, path: Path) -> None:
    """PNG of the first window of a batch: every input signal (z-scores, time by channel), then the latents (time by dimension)."""
    from matplotlib.figure import Figure

    latents = model.eval().encode(batch)
    panels = [
        (f"{name} ({stream.modality})", _valid(stream.times, stream.mask), _valid(stream.values, stream.mask))
        for name, stream in batch.streams.items()
        if bool(stream.mask[0].any())
    ]
    panels.append(("latents", _valid(latents.times, latents.mask), _valid(latents.values, latents.mask)))
    figure = Figure(figsize=(8, 1.9 * len(panels) + 0.6), layout="constrained")
    for axes, (title, times, values) in zip(figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0], panels, strict=True):
        limit = float(np.quantile(np.abs(values), 0.99)) or 1.0
        extent = (float(times[0]), float(times[-1]), values.shape[1], 0)
        axes.imshow(values.T, aspect="auto", extent=extent, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set(title=title, ylabel="channel" if title != "latents" else "dimension")
    axes.set_xlabel("seconds from the start of the window")
    figure.savefig(path, dpi=110)


def _valid(values: torch.Tensor, mask: torch.Tensor) -> Array:
    """The valid samples of the first window."""
    return np.asarray(values[0][mask[0]].float())
