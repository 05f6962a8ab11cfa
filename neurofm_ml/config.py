"""Configurations: frozen keyword-only dataclasses, nested, that survive a trip through JSON.

A config validates itself in ``__post_init__``. ``to_dict`` and ``from_dict`` are inverse to each
other, ``patch`` changes some leaves. The dataclasses themselves stand in ``presets``.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
def config(cls: type[T]) -> type[T]:
    """Class decorator: frozen, keyword-only dataclass."""
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def to_dict(cfg: Any) -> dict[str, Any]:
    """Plain JSON-ready dict of a config; tuples become lists."""
    return typing.cast(dict[str, Any], _plain(cfg))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build and validate a config from a plain dict.

    Raises ValueError naming the field for unknown or missing fields and for values of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls))}
    at = where or cls.__name__
    unknown = sorted(map(str, set(values) - set(fields)))
    if unknown:
        near = get_close_matches(unknown[0], fields, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{at} has no field {', '.join(map(repr, unknown))}.{hint} Its fields are {', '.join(sorted(fields))}.")
    missing = sorted(n for n, f in fields.items() if n not in values and _required(f))
    if missing:
        raise ValueError(f"{at} needs {', '.join(map(repr, missing))}.")
    coerced = {k: _coerce(hints[k], v, f"{at}.{k}") for k, v in values.items()}
    try:
        return cls(**coerced)
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from None


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _coerce(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` names, going into nested configs, tuples, mappings and unions."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(args, value, where)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        if isinstance(value, Mapping):
            return from_dict(typing.cast(type, hint), value, where)
    elif origin is typing.Literal:
        if value in args:
            return value
        raise ValueError(f"{where} is {value!r}; allowed: {', '.join(map(repr, args))}.")
    elif origin is tuple and isinstance(value, (list, tuple)):
        kinds = args[:1] * len(value) if args[-1:] == (Ellipsis,) else args
        if len(kinds) != len(value):
            raise ValueError(f"{where} is {value!r}; it needs exactly {len(kinds)} entries.")
        return tuple(_coerce(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    elif origin is dict and isinstance(value, Mapping):
        return {_coerce(args[0], k, where): _coerce(args[1], v, f"{where}[{k!r}]") for k, v in value.items()}
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ValueError(f"{where} is {value!r}; it needs {_spell(hint)}.")


def _coerce_union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in members:
        return None
    errors = []
    for member in (m for m in members if m is not type(None)):
        try:
            return _coerce(member, value, where)
        except ValueError as error:
            errors.append(str(error))
    raise ValueError(errors[0] if len(errors) == 1 else f"{where} is {value!r}; it fits none of {', '.join(map(_spell, members))}.")


_WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a word",
    tuple[str, ...]: "a list of words",
    tuple[float, ...]: "a list of numbers",
}


def _spell(hint: Any) -> str:
    if hint in _WORDS:
        return _WORDS[hint]
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint).replace("typing.", "")


def patch(cfg: T, changes: Mapping[str, Any]) -> T:
    """Copy of `cfg` with some leaves changed: ``patch(cfg, {"optim": {"lr": 1e-3}})``.

    Tuples and lists are replaced whole; a nested mapping changes only the leaves it names.
    """
    return from_dict(type(cfg), _merge(to_dict(cfg), changes))


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged
