"""What starts by condition: contents that changed, of inputs that passed, and nothing on a GPU."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from neurofm_assets import automation
from neurofm_assets.assets.models import LABEL_DECODERS, PRETRAINED
from neurofm_assets.compute import InProcess
from neurofm_assets.definitions import ASSETS, build_defs
from neurofm_assets.partitions import CARDS, LABELLED, RUNS, run_key
from neurofm_assets.store import Store
from neurofm_ml.jobs import JobResult, JobSpec
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.presets import Resources

Ran = list[tuple[str, dict[str, Any]]]
Requested = dict[str, set[str]]
WORM, BRAIN = "worm_swf415", "abide_olin"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class House:
    """The graph with nothing behind it: runs that say what they are told to, and ticks of the conditions between."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.version, self.refused = "1", False
        self.assets = [self.stand_in(asset) for asset in ASSETS]
        self.watched = self.assets
        self.cursor: Any = None

    def stand_in(self, asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
        """An asset in every respect but its work; where it is refused, the first of its blocking checks fails."""
        checks = list(asset.check_specs)
        blocking = [check.name for check in checks if check.blocking]

        @dg.multi_asset(specs=list(asset.specs), check_specs=checks, name=asset.op.name, partitions_def=asset.partitions_def)
        def said() -> dg.MaterializeResult:
            failing = blocking[:1] if self.refused else []
            results = [dg.AssetCheckResult(check_name=check.name, passed=check.name not in failing) for check in checks]
            return dg.MaterializeResult(data_version=dg.DataVersion(self.version), check_results=results)

        return said

    def made(self, *assets: str, key: str = WORM, version: str = "1", refused: bool = False) -> None:
        """One run that makes the partition of these assets."""
        self.version, self.refused = version, refused
        run = dg.materialize(
            self.assets, selection=list(assets), partition_key=key, instance=self.instance, raise_on_error=False, run_config=QUIET
        )
        assert run.success != refused

    def tick(self) -> Requested:
        """What the conditions ask for now: asset -> partitions."""
        result = dg.evaluate_automation_conditions(self.watched, self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        found = {asset.key.to_user_string(): set(map(str, result.get_requested_partitions(asset.key))) for asset in ASSETS}
        return {name: keys for name, keys in found.items() if keys}

    def settle(self, version: str = "1") -> list[Requested]:
        """Ticks until nothing more is asked for, what is asked for being made between."""
        asked = []
        while wanted := self.tick():
            asked.append(wanted)
            for asset, keys in wanted.items():
                for key in sorted(keys):
                    self.made(asset, key=key, version=version)
        return asked

    def replace(self, name: str, condition: dg.AutomationCondition[Any]) -> None:
        """From here on the named asset has another condition."""
        change = {"automation_condition": condition}
        self.watched = [
            a.map_asset_specs(lambda s: s.replace_attributes(**change)) if a.key == dg.AssetKey(name) else a for a in self.assets
        ]
        assert self.tick() == {}


@pytest.fixture
def house() -> Iterator[House]:
    """Some things were made before the conditions were looked at for the first time; that starts nothing."""
    with dg.DagsterInstance.ephemeral() as instance:
        house = House(instance)
        house.made("recordings", "quality", key="simulation")
        assert house.tick() == {}
        yield house


# ---------------------------------------------------------------- what starts
def test_a_change_runs_down_to_the_baselines_and_no_further(house: House) -> None:
    house.made("recordings")
    assert house.settle() == [
        {"quality": {WORM}},
        {"shards": {WORM}},
        {"scaler": set(CARDS[WORM].modalities)},
        {"baselines": {WORM}},
    ]
    assert WORM in LABELLED


def test_what_came_out_the_same_starts_nothing(house: House) -> None:
    house.made("recordings")
    house.settle()
    house.made("recordings", "quality", "shards")
    assert house.tick() == {}


def test_what_was_made_by_other_means_is_not_made_again(house: House) -> None:
    house.made("recordings", "quality", "shards")
    assert set(house.tick()) == {"scaler"}


def test_a_change_of_one_dataset_leaves_the_others_alone(house: House) -> None:
    house.made("recordings")
    house.made("recordings", key=BRAIN)
    house.settle()
    house.made("recordings", key=BRAIN, version="2")
    assert house.settle(version="2") == [{"quality": {BRAIN}}, {"shards": {BRAIN}}, {"scaler": {"fmri"}}, {"baselines": {BRAIN}}]


def test_a_request_is_made_once_whatever_comes_of_it(house: House) -> None:
    house.made("recordings")
    assert house.tick() == {"quality": {WORM}}
    assert [house.tick() for _ in range(3)] == [{}] * 3


def test_a_release_follows_its_model_and_no_other(house: House) -> None:
    small = str(run_key("small", 0))
    house.made("neurofmx_pretrained", "neurofmx_adapted", key=small)
    assert house.settle() == [{"onnx": {small}}]
    house.made("scores", key=small)
    assert house.settle() == [{"model_card": {small}, "scorecard": {"small"}}, {"bundle": {small}}]


# ---------------------------------------------------------------- what does not
def test_nothing_is_made_of_what_was_refused_and_others_go_on(house: House) -> None:
    house.made("recordings")
    house.made("recordings", key=BRAIN, refused=True)
    assert house.tick() == {"quality": {WORM}}
    assert house.tick() == {}


def test_what_was_refused_goes_on_once_it_passes(house: House) -> None:
    house.made("recordings", refused=True)
    assert house.tick() == {}
    house.made("recordings", version="2")
    assert house.tick() == {"quality": {WORM}}


def test_a_scaler_waits_while_one_of_its_datasets_is_refused(house: House) -> None:
    house.made("recordings", "quality", key=BRAIN)
    house.made("shards", key=BRAIN, refused=True)
    assert house.tick() == {}


# ---------------------------------------------------------------- never on a GPU
def test_what_asks_for_a_gpu_has_no_condition(ran: Ran, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, int] = {}

    class Seen(InProcess):
        def compute(self, context: dg.AssetExecutionContext, spec: JobSpec, resources: Resources) -> JobResult:
            asked[context.asset_key.to_user_string()] = resources.gpus
            return super().compute(context, spec, resources)

    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path))
    resources = build_defs(store=store, compute=Seen()).resources
    scaled = [("scaler", modality) for modality in datasets()["simulation"].modalities]
    for name, key in [*((a, "simulation") for a in ("recordings", "quality", "shards")), *scaled, ("baselines", "simulation")]:
        dg.materialize(ASSETS, selection=[name], partition_key=key, resources=resources, run_config=QUIET)
    others = {
        LABEL_DECODERS["neurofmx"].key,
        *(a.key for family in automation.FAMILIES for a in (PRETRAINED[family], LABEL_DECODERS.get(family)) if a),
    }  # which the simulation does not serve
    after = [asset for asset in ASSETS if asset.partitions_def == RUNS and asset.key not in others and asset.key.path != ["planted"]]
    dg.materialize(ASSETS, selection=after, partition_key=run_key("small", 0), resources=resources, run_config=QUIET)
    on_gpu = {name for name, gpus in asked.items() if gpus}
    assert on_gpu == {"neurofmx_pretrained", "neurofmx_adapted", "features", "cross_modal", "signal_answers"}
    conditioned = {spec.key.to_user_string() for asset in ASSETS for spec in asset.specs if spec.automation_condition}
    assert conditioned == {"quality", "shards", "scaler", "baselines", "onnx", "model_card", "bundle", "scorecard"}
    pooled = {spec.key.to_user_string() for asset in ASSETS for spec in asset.specs if asset.op.pool == "gpu"}
    assert pooled == on_gpu | {key.to_user_string() for key in others} | {"scaling_law", "best_config", "planted"}


def test_one_unguarded_condition_would_launch_every_run(house: House) -> None:
    house.replace("neurofmx_pretrained", dg.AutomationCondition.any_deps_updated())
    house.made("recordings", "quality", "shards")
    assert house.tick()["neurofmx_pretrained"] == set(RUNS.get_partition_keys())


def test_eager_never_starts_a_scaler_while_a_dataset_is_absent(house: House) -> None:
    house.replace("scaler", dg.AutomationCondition.eager())
    house.made("recordings", "quality", "shards")
    assert house.tick() == {}


def test_eager_starts_on_what_came_out_the_same(house: House) -> None:
    house.made("recordings")
    house.settle()
    house.replace("quality", dg.AutomationCondition.eager())
    house.made("recordings")
    assert house.tick() == {"quality": {WORM}}


# ---------------------------------------------------------------- who looks at them
def test_each_condition_is_looked_at_by_one_sensor() -> None:
    graph = build_defs().resolve_asset_graph()
    sensors = {s.name: s for s in automation.CONDITION_SENSORS}
    names = {name: {key.to_user_string() for key in s.asset_selection.resolve(graph)} for name, s in sensors.items()}
    assert names == {
        "data_and_baselines": {"quality", "shards", "scaler", "baselines"},
        "after_training": {"onnx", "model_card", "bundle", "scorecard"},
    }
    assert sensors["data_and_baselines"].default_status == dg.DefaultSensorStatus.RUNNING
    assert sensors["after_training"].default_status == dg.DefaultSensorStatus.STOPPED


def test_what_a_schedule_makes_again_says_when_it_is_late() -> None:
    assert {s.key.to_user_string() for a in ASSETS for s in a.specs if s.freshness_policy} == {"quality", "neurofmx_pretrained"}
