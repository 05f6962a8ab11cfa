"""Evaluation assets: what simple methods reach on each dataset, and what a run reaches beside them."""

from pathlib import Path

import dagster as dg

from neurofm_assets.assets.data import scaler, scalers_for, shards
from neurofm_assets.assets.models import neurofmx_adapted, neurofmx_pretrained
from neurofm_assets.checks import specs_for
from neurofm_assets.compute import Compute
from neurofm_assets.conditions import when_complete
from neurofm_assets.config import dagster_config
from neurofm_assets.partitions import (
    CARDS,
    DATASET_TO_LABELLED,
    EVERY,
    LABELLED_DATASETS,
    MODALITY_TO_LABELLED,
    RUNS,
    run_of,
    task_modalities,
)
from neurofm_assets.store import Store
from neurofm_ml import presets
from neurofm_ml.jobs import JOBS, load_spec

OWNERS = ["team:evaluation"]


class BaselinesPatch(dagster_config(presets.BaselinesConfig, omit=("dataset",))): ...  # type: ignore[misc]


class ScorePatch(dagster_config(presets.ScoreConfig, omit=("size", "seed"))): ...  # type: ignore[misc]


@dg.asset(
    partitions_def=LABELLED_DATASETS,
    group_name="evaluation",
    kinds={"scikitlearn", "pytorch"},
    owners=OWNERS,
    deps=[dg.AssetDep(shards, partition_mapping=DATASET_TO_LABELLED), dg.AssetDep(scaler, partition_mapping=MODALITY_TO_LABELLED)],
    code_version=JOBS["fit_baselines"].version,
    check_specs=specs_for("baselines", "fit_baselines", LABELLED_DATASETS),
    automation_condition=when_complete("shards", "scaler"),
)
def baselines(context: dg.AssetExecutionContext, config: BaselinesPatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """Tuned ridge, nearest neighbours and a recurrent network of equal budget on one dataset's tasks."""
    dataset = context.partition_key
    cfg = config.apply(presets.BaselinesConfig(dataset=dataset))
    source = store.get(shards, dataset)
    scalers = scalers_for(store, {dataset: source}, sorted(task_modalities(CARDS[dataset])))
    return compute.launch(context, store.spec(context, "fit_baselines", cfg, shards=[source], scaler=scalers), presets.Resources())


@dg.asset(
    partitions_def=RUNS,
    group_name="evaluation",
    kinds={"parquet"},
    owners=OWNERS,
    pool="gpu",
    deps=[neurofmx_pretrained, neurofmx_adapted, *(dg.AssetDep(a, partition_mapping=EVERY) for a in (shards, scaler, baselines))],
    code_version=JOBS["score"].version,
    check_specs=specs_for("scores", "score", RUNS),
)
def scores(context: dg.AssetExecutionContext, config: ScorePatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """The scores table of one run: probe and fine-tuned decoding beside the baselines, with intervals and controls.

    Scored on the very shards the run was adapted on, so that the held-out part is the held-out part.
    """
    size, seed = run_of(context)
    cfg = config.apply(presets.ScoreConfig(size=size, seed=seed))  # type: ignore[arg-type]
    pretrained, adapted = (store.get(a, context.partition_key) for a in (neurofmx_pretrained, neurofmx_adapted))
    asked = load_spec(Path(adapted))
    used = {role: asked.inputs[role] for role in ("shards", "scaler")}
    references = store.gather(baselines, asked.config["datasets"])
    store.require_made_from(references, "shards", used["shards"])
    spec = store.spec(context, "score", cfg, pretrained=[pretrained], adapted=[adapted], baselines=references, **used)
    return compute.launch(context, spec, presets.resources(size))
