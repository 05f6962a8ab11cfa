"""The store hands out finished artifacts only, and none that is blocked."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from neurofm_assets.assets.data import quality, recordings, shards
from neurofm_assets.assets.models import neurofmx_adapted, neurofmx_pretrained
from neurofm_assets.partitions import LABELLED, run_key
from neurofm_assets.store import Store
from neurofm_ml import jobs, presets
from neurofm_ml.types import Report

Materialize = Callable[..., dg.ExecuteInProcessResult]
Ran = list[tuple[str, dict[str, Any]]]


def fail_claim(monkeypatch: pytest.MonkeyPatch, job: str, claim: str) -> None:
    entry = jobs.JOBS[job]

    def function(cfg: Any, inputs: jobs.Inputs, out: Path) -> Report:
        made = entry.function(cfg, inputs, out)
        return dataclasses.replace(made, checks=tuple(dataclasses.replace(c, passed=c.name != claim) for c in made.checks))

    monkeypatch.setitem(jobs.JOBS._members, job, dataclasses.replace(entry, function=function))


def test_what_is_missing_is_named(store: Store) -> None:
    with pytest.raises(ValueError, match=r"recordings\[simulation\] is not here; materialise it first"):
        store.get(recordings, "simulation")
    with pytest.raises(ValueError, match="none of simulation, uci_eeg is here as shards; materialise one first"):
        store.choose(shards, presets.ScalerConfig(modality="eeg"), ["simulation", "uci_eeg"])
    with pytest.raises(ValueError, match=r"Unknown dataset 'uci_egg'. Did you mean 'uci_eeg'"):
        store.choose(shards, presets.ScalerConfig(modality="eeg", datasets=("uci_egg",)), ["simulation", "uci_eeg"])


def test_a_failed_blocking_check_stops_this_run_and_every_later_one(
    ran: Ran, materialize: Materialize, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_claim(monkeypatch, "assess_quality", "values_are_finite")
    result = materialize("recordings", "quality", "shards", key="simulation", raise_on_error=False)
    assert not result.success
    assert [name for name, _ in ran] == ["ingest", "assess_quality"]
    with pytest.raises(ValueError, match=r"quality\[simulation\] is blocked: values_are_finite failed"):
        materialize("shards", key="simulation")
    assert store.here(quality, ["simulation"]) == ["simulation"]


def test_a_warning_stops_nothing(ran: Ran, materialize: Materialize, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_claim(monkeypatch, "assess_quality", "units_fire")
    assert materialize("recordings", "quality", "shards", key="simulation").success
    (check,) = [c for c in jobs.load_result(Path(store.get(quality, "simulation"))).checks if not c["passed"]]
    assert check["name"] == "units_fire"


def test_quality_must_have_judged_these_recordings(ran: Ran, materialize: Materialize, monkeypatch: pytest.MonkeyPatch) -> None:
    materialize("recordings", "quality", key="simulation")
    entry = dataclasses.replace(jobs.JOBS["ingest"], reads=lambda cfg: "another card")

    def other_content(cfg: Any, inputs: jobs.Inputs, out: Path) -> Report:
        (out / "more").write_text("another recording")
        return entry.function(cfg, inputs, out)

    monkeypatch.setitem(jobs.JOBS._members, "ingest", dataclasses.replace(entry, function=other_content))
    materialize("recordings", key="simulation")
    with pytest.raises(ValueError, match=r"quality.* was made from another version of .*recordings"):
        materialize("shards", key="simulation")
    assert materialize("quality", "shards", key="simulation").success


def test_a_run_learns_from_what_is_here_and_says_what_is_not(ran: Ran, materialize: Materialize, store: Store) -> None:
    prepare(materialize, "simulation")
    run = run_key("tiny", 0)
    (event,) = materialize("neurofmx_pretrained", key=run).get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    assert ran[-1][1]["datasets"] == ["simulation"]
    assert "worm_swf415" in str(metadata["left_out"].value)
    explicit = {"neurofmx_pretrained": {"datasets": ["simulation"]}}
    before = len(ran)
    materialize("neurofmx_pretrained", key=run, config=explicit)
    assert len(ran) == before, "naming the datasets that were found anyway is the same run"
    with pytest.raises(ValueError, match=r"shards\[worm_swf415\] is not here"):
        materialize("neurofmx_pretrained", key=run, config={"neurofmx_pretrained": {"datasets": ["simulation", "worm_swf415"]}})
    materialize("neurofmx_adapted", key=run)
    assert ran[-1][1]["datasets"] == [name for name in LABELLED if name == "simulation"]
    assert Path(store.get(neurofmx_adapted, run)).parent.name == "tiny-0"
    assert store.get(neurofmx_pretrained, run) in jobs.load_spec(Path(store.get(neurofmx_adapted, run))).inputs["pretrained"]


def prepare(materialize: Materialize, dataset: str) -> None:
    materialize("recordings", "quality", "shards", key=dataset)
    fit_scalers(materialize)


def fit_scalers(materialize: Materialize) -> None:
    for modality in ("spikes", "calcium", "eeg", "fmri", "pose"):
        materialize("scaler", key=modality)


def test_nothing_is_mixed_with_another_version_of_the_shards(ran: Ran, materialize: Materialize) -> None:
    """After shards change, each asset refuses what was made of the old ones, so no held-out bin was trained on."""
    run = run_key("tiny", 0)
    prepare(materialize, "simulation")
    materialize("baselines", key="simulation")
    whole = ("neurofmx_pretrained", "neurofmx_adapted", "features", "leakage_audit", "probes", "signal_answers")
    materialize(*whole, key=run)
    materialize("shards", key="simulation", config={"shards": {"shard_mb": 1.0}})
    for asset, key in (("neurofmx_pretrained", run), ("neurofmx_adapted", run), ("baselines", "simulation")):
        with pytest.raises(ValueError, match=r"scaler/.* was made from another version of .*shards/simulation"):
            materialize(asset, key=key)
    fit_scalers(materialize)
    for asset in ("neurofmx_adapted", "features"):
        with pytest.raises(ValueError, match=r"neurofmx_pretrained/.* was made from another version of .*shards/simulation"):
            materialize(asset, key=run)
    materialize("baselines", key="simulation")
    with pytest.raises(ValueError, match=r"baselines/.* was made from another version of .*shards/simulation"):
        materialize("scores", key=run)
    assert materialize(*whole, "scores", key=run).success
