"""Finished models on disk: weights, and everything needed to build them again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from neurofm_ml.config import from_dict, to_dict
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models import MODELS
from neurofm_ml.training.checkpoints import load_weights, save_weights

Model = TypeVar("Model", bound=Any)


def save_model(folder: Path, model: Any, more: Mapping[str, Any] | None = None) -> None:
    """Weights and ``model.json`` (family, config, vocabulary, and what `more` adds)."""
    save_weights(folder, model.state_dict(), {**described(model), **(more or {})})


def described(model: Any) -> dict[str, Any]:
    """What `built` needs to build a model like this one."""
    family = next(name for name in MODELS if MODELS[name] is type(model))
    return {"family": family, "config": to_dict(model.cfg), "vocabulary": to_dict(model.vocabulary)}


def built(about: Mapping[str, Any]) -> Any:
    """A fresh model of the family, config and vocabulary that `about` names."""
    family: Any = MODELS[about["family"]]
    return family(from_dict(family.Config, about["config"]), from_dict(Vocabulary, about["vocabulary"]))


def load_model(folder: Path) -> Any:
    """The model saved in `folder`, in eval mode. Raises ValueError when it is damaged."""
    return load_described(folder)[0]


def load_described(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model saved in `folder`, and its ``model.json``."""
    weights, about = load_weights(folder)
    model: nn.Module = built(about)
    model.load_state_dict(weights)
    return model.eval(), about


def extend(model: Model, vocabulary: Vocabulary, seed: int) -> Model:
    """A copy of `model`, of any family, that also knows the channels, sessions and tasks of `vocabulary`.

    What both know is copied, rows in use keep their place, what is new starts fresh.
    """
    torch.manual_seed(seed)
    wider = type(model)(model.cfg, model.vocabulary.union(vocabulary))
    state = wider.state_dict()
    for name, value in model.state_dict().items():
        if all(n <= m for n, m in zip(value.shape, state[name].shape, strict=True)):
            state[name][tuple(slice(n) for n in value.shape)] = value
        else:  # what the model learned of the data and a fresh one does not have, such as reference parcels
            state[name] = value
    wider.load_state_dict(state)
    return wider
