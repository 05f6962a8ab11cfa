"""Configs survive JSON and name what is wrong with them."""

import dataclasses
import json
from typing import Any, Literal

import pytest

from neurofm_ml.config import config, from_dict, patch, to_dict


@config
class Inner:
    lr: float = 1e-3
    steps: int = 10

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Inner.steps is {self.steps}; it must be positive.")


@config
class Outer:
    name: str
    inner: Inner = Inner()
    stages: tuple[Inner, ...] = ()
    window: tuple[float, float] = (0.0, 1.0)
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    nested: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    limit: float | None = None
    chosen: Inner | None = None
    mode: Literal["fast", "slow"] = "fast"
    maybe: Literal["a", "b"] | None = None
    where: str | tuple[str, ...] = ""
    flag: bool = False
    anything: Any = None


FULL = Outer(
    name="x",
    inner=Inner(lr=0.1),
    stages=(Inner(steps=1), Inner(steps=2)),
    window=(1.5, 2.0),
    weights={"a": 1.0},
    nested={"k": (1, 2)},
    limit=2.5,
    chosen=Inner(),
    mode="slow",
    maybe="b",
    where=("p", "q"),
    flag=True,
    anything={"free": [1, None]},
)


@pytest.mark.parametrize("cfg", [Outer(name="x"), FULL], ids=["defaults", "everything"])
def test_there_and_back_through_json(cfg):
    assert from_dict(Outer, json.loads(json.dumps(to_dict(cfg)))) == cfg


def test_whole_numbers_become_floats():
    built = from_dict(Outer, {"name": "x", "limit": 3, "window": [1, 2]})
    assert [type(v) for v in (built.limit, *built.window)] == [float] * 3


def test_built_configs_are_taken_as_they_are():
    assert from_dict(Outer, {"name": "x", "inner": Inner(steps=3)}).inner.steps == 3


WRONG = [
    ({}, r"Outer needs 'name'\."),
    ({"name": "x", "mod": "fast"}, "Outer has no field 'mod'. Did you mean 'mode'. Its fields are anything, chosen, flag"),
    ({"name": "x", 5: 1, "b": 2}, "Outer has no field '5', 'b'"),
    ({"name": 3}, r"Outer\.name is 3; it needs a word\."),
    ({"name": "x", "inner": {"lr": "fast"}}, r"Outer\.inner\.lr is 'fast'; it needs a number\."),
    ({"name": "x", "inner": {"rate": 1}}, r"Outer\.inner has no field 'rate'"),
    ({"name": "x", "inner": 3}, r"Outer\.inner is 3; it needs Inner\."),
    ({"name": "x", "inner": {"steps": 1.5}}, r"Outer\.inner\.steps is 1\.5; it needs a whole number\."),
    ({"name": "x", "inner": {"steps": True}}, r"Outer\.inner\.steps is True; it needs a whole number\."),
    ({"name": "x", "inner": {"lr": True}}, r"Outer\.inner\.lr is True; it needs a number\."),
    ({"name": "x", "inner": {"steps": 0}}, r"Inner\.steps is 0; it must be positive\."),
    ({"name": "x", "inner": None}, r"Outer\.inner is None; it needs Inner\."),
    ({"name": "x", "stages": [{}, {"steps": "2"}]}, r"Outer\.stages\[1\]\.steps is '2'; it needs a whole number\."),
    ({"name": "x", "stages": {}}, r"Outer\.stages is {}; it needs tuple\[.*Inner, \.\.\.\]\."),
    ({"name": "x", "window": [1]}, r"Outer\.window is \[1\]; it needs exactly 2 entries\."),
    ({"name": "x", "weights": {"a": None}}, r"Outer\.weights\['a'\] is None; it needs a number\."),
    ({"name": "x", "weights": [1]}, r"Outer\.weights is \[1\]; it needs dict\[str, float\]\."),
    ({"name": "x", "nested": {"k": [1, "2"]}}, r"Outer\.nested\['k'\]\[1\] is '2'; it needs a whole number\."),
    ({"name": "x", "limit": "1"}, r"Outer\.limit is '1'; it needs a number\."),
    ({"name": "x", "chosen": {"steps": 0}}, r"Inner\.steps is 0"),
    ({"name": "x", "mode": "medium"}, r"Outer\.mode is 'medium'; allowed: 'fast', 'slow'\."),
    ({"name": "x", "maybe": "c"}, r"Outer\.maybe is 'c'; allowed: 'a', 'b'\."),
    ({"name": "x", "where": 3}, r"Outer\.where is 3; it fits none of a word, a list of words\."),
    ({"name": "x", "flag": 1}, r"Outer\.flag is 1; it needs true or false\."),
]


@pytest.mark.parametrize(("values", "message"), WRONG, ids=[m for _, m in WRONG])
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Outer, values)


def test_patch_changes_the_leaves_it_names():
    changed = patch(FULL, {"inner": {"steps": 7}, "stages": [{"lr": 2}], "weights": {"b": 2}, "chosen": None, "where": "z"})
    assert changed == dataclasses.replace(
        FULL, inner=Inner(lr=0.1, steps=7), stages=(Inner(lr=2.0),), weights={"a": 1.0, "b": 2.0}, chosen=None, where="z"
    )
    assert FULL.inner == Inner(lr=0.1)
    assert patch(FULL, {}) == FULL


@pytest.mark.parametrize(("changes", "message"), [({"innr": {}}, "Did you mean 'inner'"), ({"inner": {"steps": 0}}, "must be positive")])
def test_a_patch_is_validated(changes, message):
    with pytest.raises(ValueError, match=message):
        patch(FULL, changes)


def test_configs_are_frozen_and_take_keywords_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.name = "y"
    with pytest.raises(TypeError, match="positional"):
        Inner(1e-3)
