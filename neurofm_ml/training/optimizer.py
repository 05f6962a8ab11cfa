"""AdamW with weight decay where it belongs, and its state as named tensors.

The state is keyed by parameter name, not by position, so a file of it can be read and checked.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from neurofm_ml.presets import TrainConfig
from neurofm_ml.training.sharding import Share, like, moved, shared

#: The number of updates, which is no share of anything.
COUNT = "step"


def adamw(model: nn.Module, cfg: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; norms, biases and embeddings are not decayed."""
    embedded = {id(p) for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for p in m.parameters()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trainable if p.ndim > 1 and id(p) not in embedded]
    others = [p for p in trainable if p.ndim <= 1 or id(p) in embedded]
    groups = [{"params": decayed, "weight_decay": cfg.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=cfg.lr, fused=True)


def pack_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor | Share]:
    """State of every parameter that has been updated, as ``{"<parameter>|<quantity>": tensor}``."""
    return {
        f"{name}|{key}": value if key == COUNT else shared(value, p)
        for name, p in model.named_parameters()
        for key, value in optimizer.state.get(moved(p), {}).items()
    }


def unpack_state(optimizer: torch.optim.Optimizer, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put whole tensors named as `pack_state` names them in place, as each parameter is laid out."""
    parameters = dict(model.named_parameters())
    for entry, value in state.items():
        name, key = entry.rsplit("|", 1)
        parameter = parameters[name]
        optimizer.state[moved(parameter)][key] = value.to(parameter.device) if key == COUNT else like(value, parameter)
