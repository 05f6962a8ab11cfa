"""Cards in YAML other than datasets': the package's folder of a kind, and the user's under ``NEUROFM_CARDS``."""

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from neurofm_ml.config import from_dict
from neurofm_ml.knowledge.cards import data_root
from neurofm_ml.registry import Registry

T = TypeVar("T")


def read_yaml_card(cls: type[T], path: Path) -> T:
    """One card of the class `cls`. Raises ValueError naming file and field.

    A user's relative root that is not under NEUROFM_DATA starts from the card's folder.
    """
    try:
        card: Any = from_dict(cls, yaml.safe_load(path.read_text()) or {}, "card")
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from None
    root = data_root(card)
    if path.is_relative_to(Path(__file__).parent) or (card.root and root and root.is_dir()):
        return cast(T, card)
    return cast(T, replace(card, root=str(path.parent.absolute() / card.root)))


def cards_of(cls: type[T], kind: str, folder: str) -> Registry[T]:
    """Every card of a kind ("table"): those of the package's `folder` ("tables"), then of the same folder in NEUROFM_CARDS."""
    return cast(Registry[T], _cards(cast(Any, cls), kind, folder, os.environ.get("NEUROFM_CARDS", ""), os.environ.get("NEUROFM_DATA", "")))


@functools.cache
def _cards(cls: Any, kind: str, folder: str, users: str, _data: str) -> Registry[Any]:
    registry: Registry[Any] = Registry(kind)
    own = sorted(Path(users, folder).glob("*.y*ml")) if users else []
    for path in sorted((Path(__file__).parent / folder).glob("*.yaml")) + own:
        card = read_yaml_card(cls, path)
        if card.name in registry:
            raise ValueError(f"{path}: name {card.name!r} is taken by another card; choose another name.")
        registry.add(card.name, card)
    return registry
