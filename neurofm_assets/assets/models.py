"""Model assets: checkpoints, one per size and seed. They run when a person or a sensor asks, never by condition."""

from pathlib import Path

import dagster as dg

from neurofm_assets.assets.data import scaler, scalers_for, shards
from neurofm_assets.checks import specs_for
from neurofm_assets.compute import Compute
from neurofm_assets.conditions import WEEKLY
from neurofm_assets.config import dagster_config
from neurofm_assets.partitions import EVERY, LABELLED, LEARNED, RUNS, modalities_of, run_of
from neurofm_assets.store import Store
from neurofm_ml import presets
from neurofm_ml.jobs import JOBS, load_spec

OWNERS = ["team:models"]


class PretrainPatch(dagster_config(presets.PretrainConfig, omit=("size", "seed"))): ...  # type: ignore[misc]


class AdaptPatch(dagster_config(presets.AdaptConfig, omit=("size", "seed"))): ...  # type: ignore[misc]


@dg.asset(
    partitions_def=RUNS,
    group_name="models",
    kinds={"pytorch"},
    owners=OWNERS,
    pool="gpu",
    deps=[dg.AssetDep(shards, partition_mapping=EVERY), dg.AssetDep(scaler, partition_mapping=EVERY)],
    code_version=JOBS["pretrain"].version,
    check_specs=specs_for("neurofmx_pretrained", "pretrain", RUNS),
    freshness_policy=WEEKLY,
)
def neurofmx_pretrained(context: dg.AssetExecutionContext, config: PretrainPatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """Checkpoint of the multimodal model: masked modelling and behaviour decoding on the training blocks of every dataset that is here."""
    size, seed = run_of(context)
    cfg, chosen, left_out = store.choose(shards, config.apply(presets.pretrain(size, seed)), LEARNED)
    scalers = scalers_for(store, chosen, modalities_of(chosen))
    spec = store.spec(context, "pretrain", cfg, shards=chosen.values(), scaler=scalers)
    return compute.launch(context, spec, presets.resources(size), left_out)


@dg.asset(
    partitions_def=RUNS,
    group_name="models",
    kinds={"pytorch"},
    owners=OWNERS,
    pool="gpu",
    deps=[neurofmx_pretrained, dg.AssetDep(shards, partition_mapping=EVERY), dg.AssetDep(scaler, partition_mapping=EVERY)],
    code_version=JOBS["adapt"].version,
    check_specs=specs_for("neurofmx_adapted", "adapt", RUNS),
)
def neurofmx_adapted(context: dg.AssetExecutionContext, config: AdaptPatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """The pretrained model fine-tuned on the decoding tasks of the labelled datasets: one decoder per recording.

    A pretrained model that saw another version of these shards is refused: what is held out now may have been trained on then.
    """
    size, seed = run_of(context)
    cfg, chosen, left_out = store.choose(shards, config.apply(presets.adapt(size, seed)), LABELLED)
    scalers = scalers_for(store, chosen, modalities_of(chosen))
    pretrained = store.get(neurofmx_pretrained, context.partition_key)
    seen = load_spec(Path(pretrained)).config["datasets"]
    store.require_made_from([pretrained], "shards", [path for name, path in chosen.items() if name in seen])
    spec = store.spec(context, "adapt", cfg, pretrained=[pretrained], shards=chosen.values(), scaler=scalers)
    return compute.launch(context, spec, presets.resources(size), left_out)
