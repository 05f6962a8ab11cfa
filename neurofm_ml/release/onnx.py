"""ONNX export of fitted decoders: raw signals in, behaviour in its own unit out, any length, any batch.

The scaler, the vocabulary rows and the unit of the target are part of the graph, so that whoever
runs it needs no Python and no side table. Each file is compared with torch at lengths other than
the one it was traced at.

Shapes: B batch, T samples, C channels, L bins, K target columns.
"""

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from neurofm_ml.config import to_dict
from neurofm_ml.data.scaler import SPIKE_LIMIT
from neurofm_ml.files import write_json
from neurofm_ml.presets import OnnxConfig
from neurofm_ml.tokenizers import SpikeTokenizer
from neurofm_ml.training.decoders import Decoder, load_decoders
from neurofm_ml.types import Check, Report, TokenizedSequence

if TYPE_CHECKING:
    import onnx

log = logging.getLogger(__name__)

#: Batch and length the graph is traced at, and those it is compared with torch at.
TRACED = (2, 64)
COMPARED = ((1, 64), (3, 100), (2, 257))


class Deployed(nn.Module):
    """A decoder by itself: one population (B, T, C) on the decoder's grid -> targets (B, T, K).

    Holds the rows of the embedding tables that its channels need instead of the tables, so that
    decoders of one modality differ in numbers alone and share one graph. Bins of any width are one
    unit of time here: tokens and latents lie on the same grid.
    """

    who: Tensor
    session: Tensor
    mean: Tensor
    std: Tensor
    offset: Tensor
    unit: Tensor
    token_shift: Tensor

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        model, about = decoder.model, decoder.about
        if not is_exportable(decoder):
            raise ValueError(
                f"decoder {about.name!r} reads {about.modality}; only populations on the grid (spikes, calcium) can be exported."
            )
        tokenizer = cast(SpikeTokenizer, model.tokenizer(about.modality))
        self.mix, self.modality = tokenizer.mix, about.modality
        self.tokenizer, self.fusion, self.backbone, self.norm = tokenizer, model.fusion, model.backbone, model.norm
        heads = [cast(nn.Linear, model.behaviour[task]) for task in about.tasks]
        self.readout = nn.Linear(model.cfg.d_model, len(about.target_names))
        with torch.no_grad():
            self.readout.weight.copy_(torch.cat([head.weight for head in heads]))
            self.readout.bias.copy_(torch.cat([head.bias for head in heads]))
            self.register_buffer("who", tokenizer.channels.table(torch.tensor(about.ids)))
            self.register_buffer("session", model.session.weight[about.session_row])
            self.register_buffer("token_shift", cast(Tensor, model.modality[about.modality]))
        for name, values in {"mean": about.mean, "std": about.std, "offset": about.target_mean, "unit": about.target_std}.items():
            self.register_buffer(name, torch.tensor(values))

    def forward(self, activity: Tensor) -> Tensor:
        """activity (B, T, C) as measured (counts, fluorescence) -> (B, T, K) in the targets' own units."""
        counts = self.modality == "spikes"
        z = ((activity.clamp(min=0).sqrt() if counts else activity) - self.mean) / self.std
        tokens = self.mix(z.clamp(-SPIKE_LIMIT, SPIKE_LIMIT) if counts else z, self.who)
        mask = torch.ones_like(tokens[..., 0], dtype=torch.bool)
        times = torch.cumsum(mask.to(tokens.dtype), 1) - 1
        start = torch.zeros_like(times[:, 0])
        sequence = TokenizedSequence(tokens + self.token_shift, mask, times, start, start + 1, self.modality)
        latents, _ = self.fusion([sequence], times + 0.5, start + 1)
        latents = latents + self.session
        for block in self.backbone:
            latents = block(latents, mask)
        return self.readout(self.norm(latents)) * self.unit + self.offset


def is_exportable(decoder: Decoder) -> bool:
    """Whether it reads a population."""
    return isinstance(decoder.model.tokenizer(decoder.about.modality), SpikeTokenizer)


def export(cfg: OnnxConfig, adapted: Path, out: Path) -> Report:
    """Export the decoders of an adapted artifact and compare each with torch; a worse file fails a blocking check.

    Decoders of other signals than populations on the grid are left out by name.
    """
    decoders = list(load_decoders(adapted))
    left_out = [decoder.about.name for decoder in decoders if not is_exportable(decoder)]
    if left_out:
        log.warning("not exported, since they read neither spikes nor calcium: %s", ", ".join(left_out))
    if len(left_out) == len(decoders):
        raise ValueError(f"no decoder of {adapted} reads spikes or calcium; adapt to a dataset with a task that does.")
    errors: dict[str, float] = {}
    graphs: dict[str, onnx.ModelProto] = {}
    for decoder in tqdm([d for d in decoders if is_exportable(d)], desc="onnx", disable=None):
        about, module = decoder.about, Deployed(decoder).eval()
        if about.modality not in graphs:
            graphs[about.modality] = trace(module, _example(decoder, *TRACED))
        folder = out / about.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "decoder.onnx").write_bytes(with_weights(graphs[about.modality], module).SerializeToString())
        write_json(folder / "decoder.json", to_dict(about))
        errors[about.name] = max(relative_error(module, folder / "decoder.onnx", _example(decoder, *shape)) for shape in COMPARED)
    worst = max(errors.values())
    parity = Check("onnx_matches_torch", worst <= cfg.tolerance, numbers=errors, threshold=f"relative L2 error <= {cfg.tolerance:g}")
    numbers = {"decoders": len(errors), "graphs": len(graphs), "worst_relative_error": worst}
    return Report({**numbers, "left_out": ", ".join(left_out)}, (parity,))


def trace(module: nn.Module, example: Tensor) -> "onnx.ModelProto":
    """The graph of a module of one input, with dynamic batch and time. Weights keep their names: ONNX Runtime optimises by itself."""
    dynamic = {"activity": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that are not needed here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["activity"],
            output_names=["behaviour"],
            dynamic_shapes=dynamic,
            dynamo=True,
            verbose=False,
            optimize=False,
        )
    assert program is not None
    return program.model_proto


def with_weights(graph: "onnx.ModelProto", module: nn.Module) -> "onnx.ModelProto":
    """A copy of a traced graph that carries the weights of another module of the same kind."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(graph)
    state = module.state_dict()
    for tensor in model.graph.initializer:
        if tensor.name in state:
            tensor.CopyFrom(onnx.numpy_helper.from_array(state[tensor.name].numpy(), tensor.name))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = len(state["mean"])
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = len(state["unit"])
    del model.graph.value_info[:]
    return model


def relative_error(module: nn.Module, path: Path, example: Tensor) -> float:
    """L2 norm of (ONNX Runtime - torch) over that of torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings speak of its own optimiser
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
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
