"""Which parameters an adaptation fits: all, the readout, the rows of a recording's own units, low-rank updates."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neurofm_ml.data.windows import read_channels
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import AdaptConfig
from neurofm_ml.training.lora import low_rank
from neurofm_ml.training.problems import Problem


@contextmanager
def fitting(model: NeuroFMx, cfg: AdaptConfig, problem: Problem) -> Iterator[None]:
    """Inside, exactly the parameters that `cfg.method` names are trainable; afterwards `model` is plain, with what was fitted in it."""
    if cfg.method == "full":
        yield
        return
    model.requires_grad_(False)
    with ExitStack() as stack:
        if cfg.method == "lora":
            stack.enter_context(low_rank(model, cfg.lora_rank, cfg.seed))
        if cfg.method in ("lora", "new_units"):
            for table, rows in own_rows(model, problem):
                stack.enter_context(only_rows(table, rows))
        for task in problem.task_names():
            model.behaviour[task].requires_grad_(True)
        yield
    model.requires_grad_(True)


def own_rows(model: NeuroFMx, problem: Problem) -> Iterator[tuple[nn.Embedding, list[int]]]:
    """The embedding tables that know the session of a problem and its channels, and their rows there."""
    session, channels = f"{problem.dataset}/{problem.session}", read_channels(problem.shards)[problem.session]
    rows: dict[str, list[int]] = defaultdict(list)
    for name in problem.inputs:
        modality = channels[name]["modality"]
        rows[modality] += model.vocabulary.channel_rows(modality, f"{session}/{name}", channels[name]["ch_names"])
    tables = [(model.tokenizer(modality).channels.table, own) for modality, own in rows.items()]
    for table, own in [*tables, (model.session, [model.vocabulary.session_row(session)])]:
        if known := [row for row in own if row]:  # 0: electrodes are known by their place
            yield table, known


class _Rows(nn.Module):
    """A table (N, D) of which some rows (n, D) are free."""

    table: Tensor
    rows: Tensor

    def __init__(self, table: Tensor, rows: list[int]) -> None:
        super().__init__()
        self.register_buffer("table", table.detach().clone())
        self.register_buffer("rows", torch.tensor(rows))

    def forward(self, free: Tensor) -> Tensor:
        return self.table.index_copy(0, self.rows, free)

    def right_inverse(self, table: Tensor) -> Tensor:
        return table[self.rows]


@contextmanager
def only_rows(table: nn.Embedding, rows: list[int]) -> Iterator[None]:
    """Inside, `rows` of a frozen table are a parameter of their own."""
    parametrize.register_parametrization(table, "weight", _Rows(table.weight, rows))
    cast(Any, table).parametrizations["weight"].original.requires_grad_(True)
    try:
        yield
    finally:
        parametrize.remove_parametrizations(table, "weight")
