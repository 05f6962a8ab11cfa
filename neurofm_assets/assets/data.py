"""Data assets: raw files become recordings, quality is judged, windows are cut into shards, scalers are fitted."""

from collections.abc import Mapping, Sequence

import dagster as dg

from neurofm_assets.checks import specs_for
from neurofm_assets.compute import Compute
from neurofm_assets.conditions import NIGHTLY, when_changed, when_complete
from neurofm_assets.config import dagster_config
from neurofm_assets.partitions import CARDS, DATASET_TO_MODALITY, DATASETS, MODALITIES, TABLES
from neurofm_assets.store import Store
from neurofm_ml import presets
from neurofm_ml.jobs import JOBS
from neurofm_ml.knowledge.files import raw_files
from neurofm_ml.knowledge.tables import table_files
from neurofm_ml.knowledge.tables import tables as table_cards

OWNERS = ["team:data"]


class QualityPatch(dagster_config(presets.QualityConfig, omit=("dataset",))): ...  # type: ignore[misc]


class ShardsPatch(dagster_config(presets.ShardsConfig, omit=("dataset",))): ...  # type: ignore[misc]


class ScalerPatch(dagster_config(presets.ScalerConfig, omit=("modality",))): ...  # type: ignore[misc]


@dg.asset(
    partitions_def=DATASETS,
    group_name="data",
    kinds={"numpy", "parquet"},
    owners=OWNERS,
    code_version=JOBS["ingest"].version,
    check_specs=specs_for("recordings", "ingest", DATASETS),
)
def recordings(context: dg.AssetExecutionContext, compute: Compute, store: Store) -> dg.MaterializeResult:
    """Everything measured in one dataset, read from its raw files: series, intervals, subjects."""
    dataset = context.partition_key
    cfg = presets.IngestConfig(dataset=dataset)
    return compute.launch(context, store.spec(context, "ingest", cfg, raw=map(str, raw_files(CARDS[dataset]))), presets.preparation())


@dg.asset(
    partitions_def=DATASETS,
    group_name="data",
    kinds={"parquet"},
    owners=OWNERS,
    deps=[recordings],
    code_version=JOBS["assess_quality"].version,
    check_specs=specs_for("quality", "assess_quality", DATASETS),
    automation_condition=when_complete("recordings"),
    freshness_policy=NIGHTLY,
)
def quality(context: dg.AssetExecutionContext, config: QualityPatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """Whether the recordings can be trusted: flat channels, jumps, gaps, against the card's expectations."""
    dataset = context.partition_key
    cfg = config.apply(presets.QualityConfig(dataset=dataset))
    return compute.launch(
        context, store.spec(context, "assess_quality", cfg, recordings=[store.get(recordings, dataset)]), presets.preparation()
    )


@dg.asset(
    partitions_def=DATASETS,
    group_name="data",
    kinds={"webdataset", "parquet"},
    owners=OWNERS,
    deps=[recordings, quality],
    code_version=JOBS["write_shards"].version,
    check_specs=specs_for("shards", "write_shards", DATASETS),
    automation_condition=when_complete("recordings", "quality"),
)
def shards(context: dg.AssetExecutionContext, config: ShardsPatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """Windows of one dataset, split without leaks and packed for training. Made of recordings whose quality passed."""
    dataset = context.partition_key
    cfg = config.apply(presets.ShardsConfig(dataset=dataset))
    source = store.get(recordings, dataset)
    store.require_made_from([store.get(quality, dataset)], "recordings", [source])
    return compute.launch(context, store.spec(context, "write_shards", cfg, recordings=[source]), presets.preparation())


@dg.asset(
    partitions_def=MODALITIES,
    group_name="data",
    kinds={"parquet"},
    owners=OWNERS,
    deps=[dg.AssetDep(shards, partition_mapping=DATASET_TO_MODALITY)],
    code_version=JOBS["fit_scaler"].version,
    check_specs=specs_for("scaler", "fit_scaler", MODALITIES),
    automation_condition=when_changed("shards"),
)
def scaler(context: dg.AssetExecutionContext, config: ScalerPatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """Mean and deviation of each channel of one modality, over training windows only."""
    modality = context.partition_key
    with_modality = [name for name in CARDS if modality in CARDS[name].modalities]
    cfg, chosen, left_out = store.choose(shards, config.apply(presets.ScalerConfig(modality=modality)), with_modality)
    return compute.launch(context, store.spec(context, "fit_scaler", cfg, shards=chosen.values()), presets.preparation(), left_out)


def scalers_for(store: Store, chosen: Mapping[str, str], modalities: Sequence[str]) -> list[str]:
    """Current scalers of the modalities, each fitted to the very shards that are `chosen` (dataset -> artifact)."""
    found = dict(zip(modalities, store.gather(scaler, modalities), strict=True))
    for modality, artifact in found.items():
        store.require_made_from([artifact], "shards", [path for name, path in chosen.items() if modality in CARDS[name].modalities])
    return list(found.values())


@dg.asset(
    partitions_def=TABLES,
    group_name="data",
    kinds={"parquet"},
    owners=OWNERS,
    code_version=JOBS["read_table"].version,
    check_specs=specs_for("tables", "read_table", TABLES),
)
def tables(context: dg.AssetExecutionContext, compute: Compute, store: Store) -> dg.MaterializeResult:
    """Rows of subjects, studies or regions, joined from their files and judged by their card."""
    table = context.partition_key
    cfg = presets.TableConfig(table=table)
    files = map(str, table_files(table_cards()[table]))
    return compute.launch(context, store.spec(context, "read_table", cfg, raw=files), presets.Resources())
