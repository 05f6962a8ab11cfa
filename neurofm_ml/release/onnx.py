"""ONNX export of fitted decoders: raw signals in, behaviour in its own unit out, any length, any batch.

The scaler, the vocabulary rows and the unit of the target are part of the graph, so that whoever
runs it needs no Python and no side table. Each file is compared with torch at lengths other than
the one it was traced at.

Shapes: B batch, T samples, C channels, L bins, K target columns.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from neurofm_ml.config import to_dict
from neurofm_ml.data.batches import SPIKE_LIMIT
from neurofm_ml.files import write_json
from neurofm_ml.presets import OnnxConfig
from neurofm_ml.training.decoders import Decoder, load_decoders
from neurofm_ml.types import Batch, Check, Report, StreamBatch

#: Batch and length the graph is traced at, and those it is compared with torch at.
TRACED = (2, 64)
COMPARED = ((1, 64), (3, 100), (2, 257))


class Deployed(nn.Module):
    """A decoder with its scaler inside: one population (B, T, C) on the decoder's grid -> targets (B, T, K)."""

    ids: Tensor
    mean: Tensor
    std: Tensor
    offset: Tensor
    unit: Tensor

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.model, self.about = decoder.model, decoder.about
        self.register_buffer("ids", torch.tensor(decoder.about.ids))
        self.register_buffer("mean", torch.tensor(decoder.about.mean))
        self.register_buffer("std", torch.tensor(decoder.about.std))
        self.register_buffer("offset", torch.tensor(decoder.about.target_mean))
        self.register_buffer("unit", torch.tensor(decoder.about.target_std))

    def forward(self, activity: Tensor) -> Tensor:
        """activity (B, T, C) as measured (counts, fluorescence) -> (B, T, K) in the targets' own units."""
        latents = self.model.encode(self._batch(activity), {}).values
        guesses = [self.model.behaviour[task](latents) for task in self.about.tasks]
        return torch.cat(guesses, -1) * self.unit + self.offset

    def _batch(self, activity: Tensor) -> Batch:
        b = activity.shape[0]
        about = self.about
        ones = torch.ones_like(activity[:, :, 0], dtype=torch.bool)
        each = torch.ones_like(activity[:, 0, 0])
        steps = torch.cumsum(ones.to(activity.dtype), 1) - 1
        values = ((activity.clamp(min=0).sqrt() if about.modality == "spikes" else activity) - self.mean) / self.std
        stream = StreamBatch(
            modality=about.modality,
            values=values.clamp(-SPIKE_LIMIT, SPIKE_LIMIT) if about.modality == "spikes" else values,
            mask=ones,
            times=steps * about.dt,
            t0=each * 0,
            dt=each * about.dt,
            ids=self.ids.expand(b, -1),
            channel_mask=torch.ones_like(activity[:, 0], dtype=torch.bool),
        )
        return Batch(
            streams={about.signal: stream},
            times=(steps + 0.5) * about.dt,
            dt=each * about.dt,
            mask=ones,
            session=(each * about.session_row).long(),
            rows=each.long(),
            starts=each,
        )


def export(cfg: OnnxConfig, adapted: Path, out: Path) -> Report:
    """Export every decoder of an adapted artifact and compare each with torch; a worse file fails a blocking check."""
    errors = {}
    for decoder in tqdm(list(load_decoders(adapted)), desc="onnx", disable=None):
        errors[decoder.about.name] = export_decoder(decoder, out / decoder.about.name)
    worst = max(errors.values())
    parity = Check("onnx_matches_torch", worst <= cfg.tolerance, numbers=errors, threshold=f"relative L2 error <= {cfg.tolerance:g}")
    return Report({"decoders": len(errors), "worst_relative_error": worst}, (parity,))


def export_decoder(decoder: Decoder, folder: Path) -> float:
    """Write ``decoder.onnx`` and ``decoder.json`` (names of inputs and outputs); return the worst relative L2 error."""
    folder.mkdir(parents=True, exist_ok=True)
    module = Deployed(decoder).eval()
    path = folder / "decoder.onnx"
    to_onnx(module, _example(decoder, *TRACED), path)
    write_json(folder / "decoder.json", to_dict(decoder.about))
    return max(relative_error(module, path, _example(decoder, *shape)) for shape in COMPARED)


def to_onnx(module: nn.Module, example: Tensor, path: Path) -> None:
    """Trace a module of one input with dynamic batch and time."""
    dynamic = {"activity": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            path,
            input_names=["activity"],
            output_names=["behaviour"],
            dynamic_shapes=dynamic,
            dynamo=True,
            verbose=False,
            external_data=False,
        )


def relative_error(module: nn.Module, path: Path, example: Tensor) -> float:
    """L2 norm of (ONNX Runtime - torch) over that of torch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = module(example).numpy()
    found = session.run(None, {"activity": example.numpy()})[0]
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _example(decoder: Decoder, batch: int, length: int) -> Tensor:
    """Activity as the decoder knows it: around its means, counts whole."""
    about = decoder.about
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    z = torch.randn(batch, length, len(about.ids), generator=generator) * torch.tensor(about.std) + torch.tensor(about.mean)
    return z.clamp(min=0).square().round() if about.modality == "spikes" else z
