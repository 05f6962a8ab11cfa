"""Cards in YAML: those of the package's folder of a kind, and the user's. A user's datasets lie in the folder ``NEUROFM_CARDS``, cards of
other kinds in folders under it that are called as the package's."""

import functools
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from neurofm_ml.config import from_dict
from neurofm_ml.knowledge.roots import root_beside
from neurofm_ml.registry import Registry

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


def read_yaml_card(cls: type[T], path: Path) -> T:
    """One card of the class `cls`. Raises ValueError naming file and field."""
    try:
        values = yaml.safe_load(path.read_text())
        if not isinstance(values, dict):
            raise ValueError("it holds no fields; write 'name: ...', 'title: ...' and so on.")
        card: Any = from_dict(cls, values, "card")
    except yaml.YAMLError as error:
        raise ValueError(f"{path}{_unreadable(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return cast(T, replace(card, root=root_beside(card, path)))


def _unreadable(error: yaml.YAMLError) -> str:
    """What is wrong with YAML on one line, to follow the file's name."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f", line {error.problem_mark.line + 1}, is no YAML: {error.problem}; look at that line and the one before."
    return f" is no YAML: {error}."


def cards_of(cls: type[T], kind: str, folder: str) -> Registry[T]:
    """Every card of a kind ("table"): those of the package's `folder` ("tables"), then the user's.

    A wrong card among these is left out, and the log says why: one typing error must not take the others away.
    """
    return cast(Registry[T], _read_all(cls, kind, folder)[0])


def mistakes_in(cls: type[T], kind: str, folder: str) -> tuple[str, ...]:
    """What is wrong with the cards of a kind that were left out: one line each, naming file and field."""
    return _read_all(cls, kind, folder)[1]


def _read_all(cls: type[T], kind: str, folder: str) -> tuple[Registry[Any], tuple[str, ...]]:
    return _cards(cast(Any, cls), kind, folder, os.environ.get("NEUROFM_CARDS", ""), os.environ.get("NEUROFM_DATA", ""))


@functools.cache
def _cards(cls: Any, kind: str, folder: str, users: str, _data: str) -> tuple[Registry[Any], tuple[str, ...]]:
    registry: Registry[Any] = Registry(kind)
    for path in sorted((Path(__file__).parent / folder).glob("*.yaml")):
        card = read_yaml_card(cls, path)
        registry.add(card.name, card)
    wrong = []
    beneath = "" if folder == "datasets" else folder
    for path in sorted(Path(users, beneath).glob("*.y*ml")) if users else []:
        try:
            card = read_yaml_card(cls, path)
            registry.add(card.name, card)
        except ValueError as error:
            said = str(error)
            wrong.append(said if said.startswith(str(path)) else f"{path}: {said}")
            _LOG.warning("a card is left out: %s", wrong[-1])
    return registry, tuple(wrong)
