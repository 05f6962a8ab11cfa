"""Model assets: checkpoints, one per size and seed. They run when a person or a sensor asks, never by condition."""

import dagster as dg

from neurofm_assets.assets.data import scaler, shards
from neurofm_assets.checks import specs_for
from neurofm_assets.compute import Compute
from neurofm_assets.config import dagster_config
from neurofm_assets.partitions import CARDS, EVERY, LABELLED, RUNS, modalities_of, run_of
from neurofm_assets.store import Store
from neurofm_ml import presets
from neurofm_ml.jobs import JOBS

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
    check_specs=specs_for("neurofmx_pretrained", "pretrain"),
)
def neurofmx_pretrained(context: dg.AssetExecutionContext, config: PretrainPatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """Checkpoint of the multimodal model: masked modelling and behaviour decoding on the training blocks of every dataset that is here."""
    size, seed = run_of(context)
    cfg, found, left_out = store.choose(shards, config.apply(presets.pretrain(size, seed)), list(CARDS))
    scalers = store.gather(scaler, modalities_of(cfg.datasets))
    spec = store.spec(context, "pretrain", cfg, shards=found, scaler=scalers)
    return compute.launch(context, spec, presets.resources(size), left_out)


@dg.asset(
    partitions_def=RUNS,
    group_name="models",
    kinds={"pytorch"},
    owners=OWNERS,
    pool="gpu",
    deps=[neurofmx_pretrained, dg.AssetDep(shards, partition_mapping=EVERY), dg.AssetDep(scaler, partition_mapping=EVERY)],
    code_version=JOBS["adapt"].version,
    check_specs=specs_for("neurofmx_adapted", "adapt"),
)
def neurofmx_adapted(context: dg.AssetExecutionContext, config: AdaptPatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """The pretrained model fine-tuned on the decoding tasks of the labelled datasets: one decoder per recording."""
    size, seed = run_of(context)
    cfg, found, left_out = store.choose(shards, config.apply(presets.adapt(size, seed)), LABELLED)
    scalers = store.gather(scaler, modalities_of(cfg.datasets))
    pretrained = store.get(neurofmx_pretrained, context.partition_key)
    spec = store.spec(context, "adapt", cfg, pretrained=[pretrained], shards=found, scaler=scalers)
    return compute.launch(context, spec, presets.resources(size), left_out)
