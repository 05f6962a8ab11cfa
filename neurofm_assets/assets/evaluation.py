"""Evaluation assets: what simple methods reach on each dataset, what a run reaches beside them, and whether it may be believed."""

from pathlib import Path
from typing import Any

import dagster as dg

from neurofm_assets.assets.data import scaler, scalers_for, shards
from neurofm_assets.assets.models import DECODERS, neurofmx_adapted, neurofmx_pretrained, scaling_law
from neurofm_assets.checks import specs_for
from neurofm_assets.compute import Compute
from neurofm_assets.conditions import when_changed, when_complete
from neurofm_assets.config import dagster_config
from neurofm_assets.partitions import (
    BY_SIZE,
    CARDS,
    DATASET_TO_TASKED,
    EVERY,
    MODALITY_TO_TASKED,
    RUNS,
    SIZE_TO_RUNS,
    TASKED,
    TASKED_DATASETS,
    members,
    modalities_of,
    pools_of,
    run_key,
    run_of,
    task_modalities,
)
from neurofm_assets.store import Store
from neurofm_ml import presets
from neurofm_ml.jobs import JOBS, load_spec

OWNERS = ["team:evaluation"]
DATA = [dg.AssetDep(shards, partition_mapping=EVERY), dg.AssetDep(scaler, partition_mapping=EVERY)]


class BaselinesPatch(dagster_config(presets.BaselinesConfig, omit=("dataset",))): ...  # type: ignore[misc]


class FeaturesPatch(dagster_config(presets.FeaturesConfig)): ...  # type: ignore[misc]


class AuditPatch(dagster_config(presets.AuditConfig)): ...  # type: ignore[misc]


class PlantedPatch(dagster_config(presets.PlantedConfig, omit=("seed",))): ...  # type: ignore[misc]


class ScorePatch(dagster_config(presets.ScoreConfig, omit=("size", "seed"))): ...  # type: ignore[misc]


def common(name: str, job: str, *kinds: str) -> dict[str, Any]:
    """What all assets of a run are in this file."""
    return {
        "name": name,
        "partitions_def": RUNS,
        "group_name": "evaluation",
        "kinds": set(kinds),
        "owners": OWNERS,
        "code_version": JOBS[job].version,
        "check_specs": specs_for(name, job, RUNS),
    }


@dg.asset(
    partitions_def=TASKED_DATASETS,
    group_name="evaluation",
    kinds={"scikitlearn", "pytorch"},
    owners=OWNERS,
    deps=[dg.AssetDep(shards, partition_mapping=DATASET_TO_TASKED), dg.AssetDep(scaler, partition_mapping=MODALITY_TO_TASKED)],
    code_version=JOBS["fit_baselines"].version,
    check_specs=specs_for("baselines", "fit_baselines", TASKED_DATASETS),
    automation_condition=when_complete("shards", "scaler"),
)
def baselines(context: dg.AssetExecutionContext, config: BaselinesPatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """Tuned baselines of the tasks of one dataset, or of a pool: linear, nearest neighbours, trees, small networks, each with the same budget."""
    key = context.partition_key
    cfg = config.apply(presets.BaselinesConfig(dataset=key))
    sources = {dataset: store.get(shards, dataset) for dataset in members(key)}
    scalers = scalers_for(store, sources, sorted({m for dataset in sources for m in task_modalities(CARDS[dataset])}))
    spec = store.spec(context, "fit_baselines", cfg, shards=sources.values(), scaler=scalers)
    return compute.launch(context, spec, presets.preparation())


@dg.asset(deps=[neurofmx_pretrained, *DATA], pool="gpu", **common("features", "extract_features", "numpy"))
def features(context: dg.AssetExecutionContext, config: FeaturesPatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """Every layer of the frozen model on every window and bin of the datasets with tasks: read once, used by all that follows."""
    size, _ = run_of(context)
    cfg, chosen, left_out = store.choose(shards, config.apply(presets.FeaturesConfig()), TASKED)
    source = store.get(neurofmx_pretrained, context.partition_key)
    store.require_no_other([source], "shards", list(chosen.values()))
    scalers = scalers_for(store, chosen, modalities_of(chosen))
    spec = store.spec(context, "extract_features", cfg, pretrained=[source], shards=chosen.values(), scaler=scalers)
    return compute.launch(context, spec, presets.resources(size), left_out)


@dg.asset(deps=[neurofmx_pretrained, features, *DATA], **common("leakage_audit", "audit", "parquet"))
def leakage_audit(context: dg.AssetExecutionContext, config: AuditPatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """Whether anything that a run was tested on stands, under whatever name, among what it learned from. It blocks the scores."""
    made = [load_spec(Path(store.get(asset, context.partition_key))).inputs for asset in (neurofmx_pretrained, features)]
    used = {role: sorted({path for inputs in made for path in inputs[role]}) for role in ("shards", "scaler")}
    spec = store.spec(context, "audit", config.apply(presets.AuditConfig()), **used)
    return compute.launch(context, spec, presets.preparation())


def reading(
    name: str, job: str, about: str, *, of: dg.AssetsDefinition = features, names: tuple[str, ...] = ("seed",)
) -> dg.AssetsDefinition:
    """An asset that is read from features, or once more from the pretrained model, over the shards that the features were read from.

    `names` are the fields of its config that say which run it is.
    """
    patch, role = dagster_config(JOBS[job].config, omit=names), "features" if of is features else "pretrained"
    deps = dict.fromkeys((of, features))

    @dg.asset(description=about, deps=[*deps, *DATA], pool=None if of is features else "gpu", **common(name, job, "parquet"))
    def made(context: dg.AssetExecutionContext, config: patch, compute: Compute, store: Store) -> dg.MaterializeResult:  # type: ignore[valid-type]
        size, seed = run_of(context)
        cfg = config.apply(JOBS[job].config(**{field: {"size": size, "seed": seed}[field] for field in names}))  # type: ignore[attr-defined]
        source = store.get(of, context.partition_key)
        used = {role: load_spec(Path(store.get(features, context.partition_key))).inputs[role] for role in ("shards", "scaler")}
        resources = presets.preparation() if of is features else presets.resources(size)
        return compute.launch(context, store.spec(context, job, cfg, **{role: [source]}, **used), resources)

    return made


RUN = ("size", "seed")
probes = reading("probes", "probe", "What linear readouts of the frozen model say, of the best layer, and a score of each layer.")
few_shot = reading("few_shot", "few_shot", "Readouts from 1, 5, 10, 25, 50 labelled examples, of the model and of raw inputs.", names=RUN)
zero_shot = reading("zero_shot", "zero_shot", "Readouts fitted elsewhere, with no label of the target.", names=RUN)
transfer_matrix = reading(
    "transfer_matrix", "transfer", "Readouts fitted in each place and scored in every other, with false discovery rate."
)
representation = reading("representation", "represent", "Whether features tell people or what they did apart, and hold for new people.")
cross_modal = reading("cross_modal", "cross_modal", "What one modality tells of another, and what is lost without.", of=neurofmx_pretrained)
signal_answers = reading("signal_answers", "answer_signals", "Forecasts and reconstructions of neural signals.", of=neurofmx_pretrained)
READINGS = (probes, few_shot, zero_shot, transfer_matrix, representation, cross_modal, signal_answers)


@dg.asset(pool="gpu", **common("planted", "prove", "parquet"))
def planted(context: dg.AssetExecutionContext, config: PlantedPatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """A latent planted in simulated recordings of several modalities, and how much of it a small model pretrained on them tells."""
    cfg = config.apply(presets.PlantedConfig(seed=run_of(context)[1]))
    return compute.launch(context, store.spec(context, "prove", cfg), presets.Resources())


@dg.asset(
    deps=[neurofmx_adapted, *DECODERS, probes, signal_answers, leakage_audit, *DATA, dg.AssetDep(baselines, partition_mapping=EVERY)],
    **common("scores", "score", "parquet"),
)
def scores(context: dg.AssetExecutionContext, config: ScorePatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """The scores table of one run: fine-tuned decoders and probes beside the baselines, with intervals and controls.

    Scored on the very shards that the features were read from, so that the held-out part is the held-out part. Decoders of
    labels, of any family, stand in it where they have been made.
    """
    size, seed = run_of(context)
    cfg = config.apply(presets.ScoreConfig(size=size, seed=seed))  # type: ignore[arg-type]
    key = context.partition_key
    store.get(leakage_audit, key)
    asked = load_spec(Path(store.get(features, key)))
    used = {role: asked.inputs[role] for role in ("shards", "scaler")}
    answers = [
        store.get(asset, key) for asset in (neurofmx_adapted, probes, signal_answers, *(a for a in DECODERS if store.here(a, [key])))
    ]
    datasets = asked.config["datasets"]
    references = store.gather(baselines, [*datasets, *pools_of(datasets)])
    store.require_no_other([*references, *answers], "shards", used["shards"])
    return compute.launch(context, store.spec(context, "score", cfg, answers=answers, baselines=references, **used), presets.preparation())


@dg.asset(
    partitions_def=BY_SIZE,
    group_name="evaluation",
    kinds={"plotly", "markdown"},
    owners=OWNERS,
    deps=[scaling_law, *(dg.AssetDep(a, partition_mapping=SIZE_TO_RUNS) for a in (scores, *READINGS))],
    code_version=JOBS["write_scorecard"].version,
    check_specs=specs_for("scorecard", "write_scorecard", BY_SIZE),
    automation_condition=when_changed("scores"),
)
def scorecard(context: dg.AssetExecutionContext, compute: Compute, store: Store) -> dg.MaterializeResult:
    """The report of a size: every run's scores, few-shot curves, transfer, scaling, the targets, each number with its origin."""
    size = context.partition_key
    keys = [run_key(size, seed) for seed in range(5)]
    partitions = {scaling_law: [size], **dict.fromkeys((scores, *READINGS), keys)}
    tables = {asset.key.path[-1]: store.gather(asset, store.here(asset, own)) for asset, own in partitions.items()}
    cfg = presets.ScorecardConfig(size=size)
    return compute.launch(context, store.spec(context, "write_scorecard", cfg, **tables), presets.Resources())
