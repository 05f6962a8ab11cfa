"""Meta-learning: directions against an inner loop written out, episodes of one recording, and fewer updates on a planted family of tasks."""

import copy
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import build_vocabulary
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import MetaConfig, TrainConfig
from neurofm_ml.training.loop import fit
from neurofm_ml.training.meta import Episode, as_new, episodes, episodic

TOY = MetaConfig(
    seed=0, size="tiny", train=TrainConfig(steps=200, lr=0.02, ema=0.0, weight_decay=0.0, checkpoint_every=50), inner_steps=5, inner_lr=0.03
)


class Shared(nn.Module):
    """y = a' tanh(U x): a family of tasks shares U (2, D), and each has its own a."""

    def __init__(self, d: int = 12) -> None:
        super().__init__()
        self.U, self.a = nn.Linear(d, 6, bias=False), nn.Linear(6, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.a(self.U(x).tanh())[:, 0]
        return out


def squared(model: nn.Module, batch: Tensor, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
    return (model(batch[:, :-1]) - batch[:, -1]).square().mean(), {}


def task(k: int, n_batches: int, size: int = 24) -> tuple[Tensor, ...]:
    """Batches (size, D + 1) of task k: two of twelve inputs count, with weights of the task."""
    generator = torch.Generator().manual_seed(k)
    weights = torch.randn(2, generator=generator).sign() * (1 + torch.rand(2, generator=generator))
    x = torch.randn(n_batches * size, 12, generator=generator)
    return torch.cat([x, (x[:, :2] @ weights)[:, None]], 1).split(size)


class Tasks:
    """Endless episodes of tasks; position k is task k."""

    def __init__(self, n_batches: int) -> None:
        self.n_batches, self.position = n_batches, 0

    def __iter__(self) -> Iterator[Episode]:
        while True:
            self.position += 1
            yield Episode(task(self.position, self.n_batches))

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


def toy() -> Shared:
    torch.manual_seed(0)
    return Shared()


@pytest.mark.parametrize("method", ["reptile", "maml"])
def test_the_gradient_is_the_direction_of_an_inner_loop_written_out(method):
    cfg, model, batches = dataclasses.replace(TOY, method=method), toy(), task(5, 6)
    value, _ = episodic(squared, cfg)(model, Episode(batches), torch.Generator(), 0.0)
    value.backward()
    fast = copy.deepcopy(model)
    square = {p: torch.zeros_like(p) for p in fast.parameters()}
    for step, batch in enumerate(batches[:-1], 1):  # Adam without momentum
        gradients = torch.autograd.grad(squared(fast, batch, torch.Generator(), 0.0)[0], list(fast.parameters()))
        with torch.no_grad():
            for p, g in zip(fast.parameters(), gradients, strict=True):
                square[p] = 0.999 * square[p] + 0.001 * g**2
                p -= cfg.inner_lr * g / ((square[p] / (1 - 0.999**step)).sqrt() + 1e-8)
    last = squared(fast, batches[-1], torch.Generator(), 0.0)[0]
    assert value.item() == pytest.approx(last.item(), rel=1e-4)
    expected = (
        torch.autograd.grad(last, list(fast.parameters()))
        if method == "maml"
        else [(p - f).detach() / (cfg.inner_steps * cfg.inner_lr) for p, f in zip(model.parameters(), fast.parameters(), strict=True)]
    )
    for p, direction in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(p.grad, direction, rtol=1e-3, atol=1e-5)


def updates_needed(model: nn.Module, k: int, most: int = 60) -> int:
    """Updates on task k until R2 on fresh data is 0.8."""
    model = copy.deepcopy(model).train()
    *shown, unseen = task(k, most + 1, 64)
    optimizer = torch.optim.Adam(model.parameters(), lr=TOY.inner_lr, betas=(0.0, 0.999))
    for step, batch in enumerate(shown):
        with torch.no_grad():
            if squared(model, unseen, torch.Generator(), 0.0)[0] < 0.2 * unseen[:, -1].var():
                return step
        optimizer.zero_grad()
        squared(model, batch, torch.Generator(), 0.0)[0].backward()
        optimizer.step()
    return most


def pooled(model: nn.Module, episode: Episode, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
    """Plain pretraining on the same data."""
    return squared(model, torch.cat(episode.batches), generator, progress)


@pytest.mark.parametrize("method", ["reptile", "maml"])
def test_a_new_task_takes_fewer_updates_than_from_plain_pretraining_or_from_scratch(tmp_path: Path, method):
    starts = {"scratch": toy(), "plain": toy(), "meta": toy()}
    cfg = dataclasses.replace(TOY, method=method)
    fit(starts["plain"], Tasks(6), pooled, cfg.train, tmp_path / "plain", seed=0)
    fit(starts["meta"], Tasks(6), episodic(squared, cfg), cfg.train, tmp_path / "meta", seed=0)
    needed = {name: sum(updates_needed(model, 10_000 + k) for k in range(8)) for name, model in starts.items()}
    assert needed["meta"] < 0.8 * min(needed["plain"], needed["scratch"]), needed


# ---------------------------------------------------------------- recordings
CFG = patch(presets.neurofmx("tiny"), {"d_model": 16, "n_heads": 2, "d_state": 4})


def test_an_episode_is_of_one_recording_and_can_be_taken_up(problems, scaler, shards):
    own = [p for p in problems if p.inputs == ("spikes",)]
    torch.manual_seed(0)
    model = as_new(NeuroFMx(CFG, build_vocabulary([shards])), own, scaler, seed=0)
    assert all(m.weight.requires_grad is False for m in model.modules() if isinstance(m, nn.Embedding))
    assert not model.session.weight.any()
    cfg = patch(presets.meta_train("tiny"), {"inner_steps": 2, "train": {"batch_size": 3}})
    first, again = episodes(cfg, model, own, scaler), episodes(cfg, model, own, scaler)
    served = list(itertools.islice(first, 4))
    sessions = [{int(s) for batch in episode.batches for s in batch.session} for episode in served]
    assert [len(batch.times) for episode in served for batch in episode.batches] == [3] * 12
    assert all(len(s) == 1 for s in sessions)
    again.load_state_dict(first.state_dict())
    for a, b in zip(next(iter(first)).batches, next(iter(again)).batches, strict=True):
        assert torch.equal(a.rows, b.rows)
