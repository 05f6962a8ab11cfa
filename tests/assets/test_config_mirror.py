"""The mirror of the library's configs in Dagster: absent means inherit, what is given is validated by the library."""

import dataclasses
from typing import Any, Literal

import dagster as dg
import pytest

from neurofm_assets.config import Patch, dagster_config
from neurofm_ml import jobs, presets
from neurofm_ml.config import config


@config
class Stage:
    steps: int
    objective: Literal["mask", "decode"] = "mask"


@config
class Inner:
    lr: float = 1e-3
    every: int | None = 100


@config
class Outer:
    seed: int
    inner: Inner = Inner()
    names: tuple[str, ...] = ("a", "b")
    stages: tuple[Stage, ...] = (Stage(steps=10), Stage(steps=20, objective="decode"))
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    limit: int | None = 5


PRESET = Outer(seed=7)


def applied(values: dict[str, Any]) -> Outer:
    """`values` written in a launchpad, as the asset sees them after `apply`."""
    seen = []

    @dg.op
    def look(config: dagster_config(Outer, omit=("seed",))) -> None:  # type: ignore[valid-type]
        seen.append(config.apply(PRESET))  # type: ignore[attr-defined]

    @dg.job
    def whole() -> None:
        look()

    whole.execute_in_process(run_config={"ops": {"look": {"config": values}}})
    return seen[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, PRESET),
        ({"inner": {}}, PRESET),
        ({"inner": {"lr": 0.5}}, dataclasses.replace(PRESET, inner=Inner(lr=0.5))),
        ({"names": []}, dataclasses.replace(PRESET, names=())),
        ({"stages": [{"steps": 3}]}, dataclasses.replace(PRESET, stages=(Stage(steps=3),))),
        ({"stages": [{"steps": 3, "objective": "decode"}]}, dataclasses.replace(PRESET, stages=(Stage(steps=3, objective="decode"),))),
        ({"weights": {"x": 2.0}}, dataclasses.replace(PRESET, weights={"x": 2.0})),
        ({"limit": 6}, dataclasses.replace(PRESET, limit=6)),
        ({"unset": ["limit"]}, dataclasses.replace(PRESET, limit=None)),
        ({"inner": {"unset": ["every"]}}, dataclasses.replace(PRESET, inner=Inner(every=None))),
    ],
)
def test_only_what_is_given_changes(values: dict[str, Any], expected: Outer) -> None:
    assert applied(values) == expected


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        ({"seed": 1}, dg.DagsterInvalidConfigError, 'unexpected config entry "seed"'),
        ({"inner": {"l": 1}}, dg.DagsterInvalidConfigError, 'unexpected config entry "l"'),
        ({"stages": [{"steps": 1, "objective": "sleep"}]}, dg.DagsterInvalidConfigError, "not in enum type"),
        ({"stages": [{"objective": "mask"}]}, ValueError, r"Outer.stages\[0\] needs 'steps'"),
        ({"unset": ["names"]}, ValueError, "Outer.names is None"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        applied(values)


def test_a_preset_validates_what_was_patched() -> None:
    mirror = dagster_config(presets.PretrainConfig, omit=("size", "seed"))
    given: Patch = mirror(train={"lr": -1.0})
    with pytest.raises(ValueError, match=r"TrainConfig.lr is -1.0; it must be positive"):
        given.apply(presets.pretrain("tiny"))


@pytest.mark.parametrize("name", list(jobs.JOBS))
def test_every_jobs_config_has_a_mirror(name: str) -> None:
    assert dagster_config(jobs.JOBS[name].config).to_config_schema().config_type is not None
