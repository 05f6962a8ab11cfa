"""Config classes of assets, generated from the library's: every leaf optional, absent means inherit.

An empty launchpad is the preset; what is written there changes those leaves and no others. Tuples
are replaced whole. Since absent means inherit, a field is set to None by naming it in `unset`:
``{"train": {"lr": 1e-3}, "unset": ["datasets"]}``.
Dagster concept: run configuration.
"""

import dataclasses
import enum
import functools
import types
import typing
from typing import Any, TypeVar

import dagster as dg
import pydantic

from neurofm_ml.config import patch

T = TypeVar("T")


class Patch(dg.Config):
    """Changes to a config of the library."""

    def apply(self, preset: T) -> T:
        """`preset` with the changes made, validated."""
        return patch(preset, _changes(self))


def _changes(given: Patch) -> dict[str, Any]:
    values = {name: _plain(getattr(given, name)) for name in type(given).model_fields}
    unset = values.pop("unset", None) or []
    return {k: v for k, v in values.items() if v is not None} | dict.fromkeys(unset)


def _plain(value: Any) -> Any:
    if isinstance(value, Patch):
        return _changes(value)
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value.value if isinstance(value, enum.Enum) else value


@functools.cache
def dagster_config(cls: type, omit: tuple[str, ...] = ()) -> type[Any]:
    """The Patch of a config dataclass, without the fields that the partition decides (`omit`)."""
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls) if f.name not in omit]
    fields: dict[str, Any] = {name: _field(f"{cls.__name__}_{name}", hints[name]) for name in names}
    if any(type(None) in typing.get_args(hints[name]) for name in names):
        fields["unset"] = (list[str] | None, pydantic.Field(default=None, description="Names of the fields to set to None."))
    return pydantic.create_model(f"{cls.__name__}Patch", __base__=Patch, __doc__=cls.__doc__, **fields)


def _field(name: str, hint: Any) -> tuple[Any, Any]:
    """Pydantic field of one leaf: its mirrored type, absent by default."""
    if dataclasses.is_dataclass(hint):
        inner = dagster_config(typing.cast(type, hint))
        return inner, inner()
    return _mirror(name, hint) | None, pydantic.Field(default=None, description=_spell(hint))


def _mirror(name: str, hint: Any) -> Any:
    """`hint` in terms Dagster accepts: enums for literals, lists for tuples, a Patch for a config."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return dagster_config(typing.cast(type, hint))
    if origin in (typing.Union, types.UnionType):
        (inner,) = (a for a in args if a is not type(None))
        return _mirror(name, inner)
    if origin is typing.Literal:
        return enum.Enum(name, {str(a): a for a in args})
    if origin is tuple:
        return list[_mirror(name, args[0])]  # type: ignore[misc]
    return dict[str, Any] if origin is dict else hint


def _spell(hint: Any) -> str:
    """The type as the launchpad shows it."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
