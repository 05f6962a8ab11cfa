"""Model assets: checkpoints, one per size and seed. They run when a person or a sensor asks, never by condition.

Two per family of models: what it learned from every dataset that is here, and what it became on the tasks of some.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from neurofm_assets.assets.data import scaler, scalers_for, shards
from neurofm_assets.checks import specs_for
from neurofm_assets.compute import Compute
from neurofm_assets.conditions import WEEKLY
from neurofm_assets.config import dagster_config
from neurofm_assets.partitions import BY_SIZE, EVERY, LABELLED, RUNS, modalities_of, read_by, run_of, told_apart_by
from neurofm_assets.store import Store
from neurofm_ml import presets
from neurofm_ml.jobs import JOBS
from neurofm_ml.presets import RECIPES, resources

OWNERS = ["team:models"]
DATA = [dg.AssetDep(shards, partition_mapping=EVERY), dg.AssetDep(scaler, partition_mapping=EVERY)]

#: Datasets that each family can learn from.
LEARNED = {
    family: told_apart_by(recipe.modalities) if recipe.supervised else read_by(recipe.modalities) for family, recipe in RECIPES.items()
}
#: Datasets with labels that each family can tell apart.
TOLD_APART = {family: told_apart_by(recipe.modalities) for family, recipe in RECIPES.items()}


def common(name: str, job: str, partitions: dg.PartitionsDefinition) -> dict[str, Any]:
    """What all assets of this file are: made by a job, on a GPU."""
    return {
        "name": name,
        "partitions_def": partitions,
        "group_name": "models",
        "kinds": {"pytorch"},
        "owners": OWNERS,
        "pool": "gpu",
        "code_version": JOBS[job].version,
        "check_specs": specs_for(name, job, partitions),
    }


def pretrained(family: str) -> dg.AssetsDefinition:
    """``<family>_pretrained``: what the family learned from the training windows of every dataset it reads."""
    recipe, job, name = RECIPES[family], f"pretrain_{family}", f"{family}_pretrained"
    patch = dagster_config(recipe.config, omit=("size", "seed"))

    @dg.asset(
        description=recipe.about,
        deps=DATA,
        **common(name, job, RUNS),
        freshness_policy=WEEKLY if family == "neurofmx" else None,  # which a schedule makes again
    )
    def made(context: dg.AssetExecutionContext, config: patch, compute: Compute, store: Store) -> dg.MaterializeResult:  # type: ignore[valid-type]
        size, seed = run_of(context)
        cfg, chosen, left_out = store.choose(shards, config.apply(recipe.preset(size, seed)), LEARNED[family])  # type: ignore[attr-defined]
        scalers = scalers_for(store, chosen, modalities_of(chosen))
        spec = store.spec(context, job, cfg, shards=chosen.values(), scaler=scalers)
        return compute.launch(context, spec, resources(size), left_out)

    return made


def adapted(family: str, base: dg.AssetsDefinition, name: str, series: bool) -> dg.AssetsDefinition:
    """The pretrained model fitted to tasks: decoders of series, or of labels.

    A pretrained model that saw another version of these shards is refused: what is held out now may have been trained on then.
    """
    job = "adapt" if series else "adapt_labels"
    config_class, preset = (presets.AdaptConfig, presets.adapt) if series else (presets.AdaptLabelsConfig, presets.adapt_labels)
    patch = dagster_config(config_class, omit=("size", "seed"))
    among = LABELLED if series else TOLD_APART[family]

    @dg.asset(
        description=ABOUT[series],
        deps=[base, *DATA],
        **common(name, job, RUNS),
    )
    def made(context: dg.AssetExecutionContext, config: patch, compute: Compute, store: Store) -> dg.MaterializeResult:  # type: ignore[valid-type]
        size, seed = run_of(context)
        cfg, chosen, left_out = store.choose(shards, config.apply(preset(size, seed)), among)  # type: ignore[attr-defined]
        scalers = scalers_for(store, chosen, modalities_of(chosen))
        source = store.get(base, context.partition_key)
        store.require_no_other([source], "shards", list(chosen.values()))
        spec = store.spec(context, job, cfg, pretrained=[source], shards=chosen.values(), scaler=scalers)
        return compute.launch(context, spec, resources(size), left_out)

    return made


ABOUT: Mapping[bool, str] = {
    True: "The pretrained model fine-tuned on the decoding tasks of the labelled datasets: one decoder per recording.",
    False: "The pretrained model fitted to the labels of windows and people: one decoder per dataset.",
}

PRETRAINED = {family: pretrained(family) for family in RECIPES}
neurofmx_pretrained = PRETRAINED["neurofmx"]
neurofmx_adapted = adapted("neurofmx", neurofmx_pretrained, "neurofmx_adapted", series=True)
#: Families -> their decoders of labels; ``<family>_adapted``, but NeuroFMx has those of series besides.
LABEL_DECODERS = {
    family: adapted(family, base, "neurofmx_label_decoders" if family == "neurofmx" else f"{family}_adapted", series=False)
    for family, base in PRETRAINED.items()
    if TOLD_APART[family]
}
DECODERS = tuple(LABEL_DECODERS.values())


def study(name: str, job: str, preset: Callable[[str], Any], about: str) -> dg.AssetsDefinition:
    """An asset that pretrains NeuroFMx many times on the datasets with decoding tasks, one per size."""
    patch = dagster_config(JOBS[job].config, omit=("size",))

    @dg.asset(
        description=about,
        deps=DATA,
        **common(name, job, BY_SIZE),
    )
    def made(context: dg.AssetExecutionContext, config: patch, compute: Compute, store: Store) -> dg.MaterializeResult:  # type: ignore[valid-type]
        size = context.partition_key
        cfg = config.apply(preset(size))  # type: ignore[attr-defined]
        base, chosen, left_out = store.choose(shards, cfg.base, LABELLED)
        scalers = scalers_for(store, chosen, modalities_of(chosen))
        spec = store.spec(context, job, dataclasses.replace(cfg, base=base), shards=chosen.values(), scaler=scalers)
        return compute.launch(context, spec, resources(size), left_out)

    return made


scaling_law = study(
    "scaling_law", "fit_scaling", presets.scaling, "How the validation loss falls with parameters and compute: three widths, three seeds."
)
best_config = study("best_config", "search", presets.search, "The changes to the pretraining config with the smallest validation loss.")
