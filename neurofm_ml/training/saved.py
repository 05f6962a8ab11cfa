"""Finished models on disk: weights, and everything needed to build them again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from neurofm_ml.config import from_dict, to_dict
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models import MODELS
from neurofm_ml.training.checkpoints import load_weights, save_weights


def save_model(folder: Path, model: Any, more: Mapping[str, Any] | None = None) -> None:
    """Weights and ``model.json`` (family, config, vocabulary, and what `more` adds)."""
    family = next(name for name in MODELS if MODELS[name] is type(model))
    about = {"family": family, "config": to_dict(model.cfg), "vocabulary": to_dict(model.vocabulary)}
    save_weights(folder, model.state_dict(), {**about, **(more or {})})


def load_model(folder: Path) -> Any:
    """The model saved in `folder`, in eval mode. Raises ValueError when it is damaged."""
    return load_described(folder)[0]


def load_described(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model saved in `folder`, and its ``model.json``."""
    weights, about = load_weights(folder)
    family: Any = MODELS[about["family"]]
    model: nn.Module = family(from_dict(family.Config, about["config"]), from_dict(Vocabulary, about["vocabulary"]))
    model.load_state_dict(weights)
    return model.eval(), about
