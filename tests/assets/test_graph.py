"""The graph: what it is, and that all of it runs, in process and with light stand-ins for the jobs."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from neurofm_assets import demo, partitions
from neurofm_assets.compute import InProcess
from neurofm_assets.definitions import ASSETS
from neurofm_ml import jobs, presets
from neurofm_ml.knowledge.cards import datasets

PARTITIONS = ("DATASETS", "TASKED_DATASETS", "MODALITIES", "CORPORA", "TABLES", "BY_SIZE", "RUNS")
Ran = list[tuple[str, dict[str, Any]]]


def partitions_of(asset: dg.AssetsDefinition) -> str:
    return next(name for name in PARTITIONS if getattr(partitions, name) == asset.partitions_def)


def described(asset: dg.AssetsDefinition) -> dict[str, Any]:
    (spec,) = asset.specs
    return {
        "group": spec.group_name,
        "partitions": partitions_of(asset),
        "deps": {
            d.asset_key.to_user_string(): "same" if d.partition_mapping is None else type(d.partition_mapping).__name__ for d in spec.deps
        },
        "checks": {check.name: "blocks" if check.blocking else "warns" for check in asset.check_specs},
        "pool": asset.op.pool,
    }


def test_golden_graph(golden: Callable[[str, Any], Any]) -> None:
    graph = {asset.key.to_user_string(): described(asset) for asset in ASSETS}
    assert graph == golden("graph", graph)


def test_every_dependency_between_different_partitions_names_its_mapping() -> None:
    of = {asset.key: asset.partitions_def for asset in ASSETS}
    for asset in ASSETS:
        for dep in next(iter(asset.specs)).deps:
            assert dep.partition_mapping is not None or of[dep.asset_key] == asset.partitions_def, f"{asset.key} <- {dep.asset_key}"


def test_every_asset_says_what_it_is_and_whose() -> None:
    for asset in ASSETS:
        (spec,) = asset.specs
        assert spec.description
        assert spec.owners
        assert spec.kinds
        assert spec.code_version


@pytest.mark.parametrize("name", ["recordings", "shards", "neurofmx_pretrained", "onnx"])
def test_what_others_rest_on_blocks_when_it_is_wrong(name: str) -> None:
    (asset,) = (a for a in ASSETS if a.key == dg.AssetKey(name))
    assert any(check.blocking for check in asset.check_specs)


def test_a_scaler_depends_on_the_datasets_with_its_modality() -> None:
    mapping = partitions.DATASET_TO_MODALITY.downstream_partition_keys_by_upstream_partition_key
    assert {name: tuple(modalities) for name, modalities in mapping.items()} == {name: datasets()[name].modalities for name in datasets()}


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Raw files of two of the demo's datasets; the light jobs only look at their names and bytes."""
    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path / "data"))
    for name in ("worm_swf415", "abide_olin"):
        card = datasets()[name]
        spec = card.recordings[0].id if card.recordings else "Olin_0050102"
        path = tmp_path / "data" / card.root / card.pattern.replace("{id}", spec)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raw")
    return path


def test_the_demo_makes_everything_once_and_after_a_change_what_depends_on_it(
    ran: Ran, raw: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "instance", dg.DagsterInstance.ephemeral)

    def made() -> list[str]:
        ran.clear()
        assert demo.main([]) == 0, capsys.readouterr().err
        return [f"{name} {cfg.get('dataset') or cfg.get('modality') or ''}".strip() for name, cfg in ran]

    first = made()
    assert {"ingest simulation", "ingest worm_swf415", "ingest abide_olin", "fit_scaler fmri", "read_foci", "bundle"} <= set(first)
    assert len(first) == len(set(first))
    assert "not here: monkey_m1_chewie" in capsys.readouterr().out
    assert made() == []
    raw.write_text("other")
    changed = {f"{job} abide_olin" for job in ("ingest", "assess_quality", "write_shards", "fit_baselines")} | {"fit_scaler fmri"}
    read = {"extract_features", "probe", "few_shot", "zero_shot", "transfer", "represent", "cross_modal", "answer_signals"}
    of_the_run = {"pretrain_neurofmx", "adapt", "audit", "score", "export_onnx", "write_card", "bundle", "write_scorecard"}
    assert set(made()) == changed | read | of_the_run


def test_work_over_whole_datasets_has_room_and_time(ran: Ran, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def compute(self: InProcess, context: dg.AssetExecutionContext, spec: jobs.JobSpec, resources: presets.Resources) -> jobs.JobResult:
        asked[spec.job] = resources
        return jobs.run(spec)

    monkeypatch.setattr(InProcess, "compute", compute)
    assert demo.main([]) == 0
    over_data = {"ingest", "assess_quality", "write_shards", "fit_scaler", "fit_baselines", "audit"}
    over_features = {"probe", "few_shot", "zero_shot", "transfer", "represent", "score", "export_onnx"}
    assert {job for job, resources in asked.items() if resources == presets.preparation()} == over_data | over_features


def test_the_demo_stops_at_what_is_wrong(ran: Ran, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(cfg: Any, inputs: jobs.Inputs, out: Path) -> Any:
        raise ValueError("simulation: no electrodes; add them to the card.")

    monkeypatch.setenv("NEUROFM_DATA", "")
    monkeypatch.setitem(jobs.JOBS._members, "write_shards", dataclasses.replace(jobs.JOBS["write_shards"], function=broken))
    assert demo.main([]) == 1
    assert "stopped: simulation: no electrodes; add them to the card." in capsys.readouterr().err


def test_a_dataset_that_is_wrong_is_left_out_of_the_rest(
    ran: Ran, raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = jobs.JOBS["write_shards"].function

    def broken(cfg: Any, inputs: jobs.Inputs, out: Path) -> Any:
        if cfg.dataset == "abide_olin":
            raise ValueError("abide_olin: no electrodes; add them to the card.")
        return whole(cfg, inputs, out)

    monkeypatch.setitem(jobs.JOBS._members, "write_shards", dataclasses.replace(jobs.JOBS["write_shards"], function=broken))
    assert demo.main([]) == 1
    assert "left out: abide_olin: abide_olin: no electrodes; add them to the card." in capsys.readouterr().err
    assert [cfg["datasets"] for name, cfg in ran if name == "pretrain_neurofmx"] == [["simulation", "worm_swf415"]]
    assert "bundle" in [name for name, _ in ran]


def test_the_demo_says_how_to_go_on_when_it_is_interrupted(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "runs", interrupted)
    assert demo.main([]) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_the_demo_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        demo.main(["--ful"])
    assert "unrecognized arguments: --ful" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_with_real_jobs(neurofm_home: Path) -> None:
    """What `make demo` does, on the simulation: twice, and the second time for nothing."""
    environment = {**os.environ, "NEUROFM_HOME": str(neurofm_home), "NEUROFM_DATA": ""}
    outputs = [
        subprocess.run([sys.executable, "-m", "neurofm_assets.demo"], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert " 0 found" in outputs[0]
    assert "\n0 made" in outputs[1]
    assert (neurofm_home / "artifacts/bundle/tiny-0/current.json").exists()
