"""Low-rank adaptation (Hu et al. 2021, "LoRA"): W + (2 B A) with B A of small rank, in place of new weights.

The updates stand on the linear layers of fusion and backbone; depthwise convolutions, decays and norms stay as they
are. When the context ends they are merged, so nobody else needs peft.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

PARTS = ("fusion.", "backbone.")


@contextmanager
def low_rank(model: nn.Module, rank: int, seed: int) -> Iterator[None]:
    """Inside, the updates are the only trainable parameters of `model`; afterwards they are part of its plain weights."""
    from peft import LoraConfig, LoraModel

    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.startswith(PARTS)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wrapped = LoraModel(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers), "default")
    try:
        yield
    finally:
        wrapped.merge_and_unload()
