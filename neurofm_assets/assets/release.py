"""Release assets: what leaves the house, one folder per run."""

import dagster as dg

from neurofm_assets.assets.evaluation import scores
from neurofm_assets.assets.models import neurofmx_adapted, neurofmx_pretrained
from neurofm_assets.checks import specs_for
from neurofm_assets.compute import Compute
from neurofm_assets.conditions import when_complete
from neurofm_assets.config import dagster_config
from neurofm_assets.partitions import RUNS, run_of
from neurofm_assets.store import Store
from neurofm_ml import presets
from neurofm_ml.jobs import JOBS

OWNERS = ["team:release"]


class OnnxPatch(dagster_config(presets.OnnxConfig)): ...  # type: ignore[misc]


@dg.asset(
    partitions_def=RUNS,
    group_name="release",
    kinds={"onnx"},
    owners=OWNERS,
    deps=[neurofmx_adapted],
    code_version=JOBS["export_onnx"].version,
    check_specs=specs_for("onnx", "export_onnx", RUNS),
    automation_condition=when_complete("neurofmx_adapted"),
)
def onnx(context: dg.AssetExecutionContext, config: OnnxPatch, compute: Compute, store: Store) -> dg.MaterializeResult:
    """The decoders as ONNX files, each compared with the model it came from."""
    cfg = config.apply(presets.OnnxConfig())
    adapted = store.get(neurofmx_adapted, context.partition_key)
    return compute.launch(context, store.spec(context, "export_onnx", cfg, adapted=[adapted]), presets.preparation())


@dg.asset(
    partitions_def=RUNS,
    group_name="release",
    kinds={"markdown"},
    owners=OWNERS,
    deps=[scores, neurofmx_pretrained, neurofmx_adapted],
    code_version=JOBS["write_card"].version,
    check_specs=specs_for("model_card", "write_card", RUNS),
    automation_condition=when_complete("scores"),
)
def model_card(context: dg.AssetExecutionContext, compute: Compute, store: Store) -> dg.MaterializeResult:
    """What the model is, what it learned from, under which licences, and its scores beside the baselines."""
    size, seed = run_of(context)
    cfg = presets.CardConfig(size=size, seed=seed)  # type: ignore[arg-type]
    inputs = {"scores": scores, "pretrained": neurofmx_pretrained, "adapted": neurofmx_adapted}
    return compute.launch(
        context, store.spec(context, "write_card", cfg, **store.get_each(inputs, context.partition_key)), presets.Resources()
    )


@dg.asset(
    partitions_def=RUNS,
    group_name="release",
    kinds={"safetensors", "onnx"},
    owners=OWNERS,
    deps=[neurofmx_pretrained, neurofmx_adapted, onnx, scores, model_card],
    code_version=JOBS["bundle"].version,
    check_specs=specs_for("bundle", "bundle", RUNS),
    automation_condition=when_complete("model_card"),
)
def bundle(context: dg.AssetExecutionContext, compute: Compute, store: Store) -> dg.MaterializeResult:
    """The release folder: weights, ONNX, scores, card and a manifest with the hash of each file."""
    size, seed = run_of(context)
    cfg = presets.BundleConfig(size=size, seed=seed)  # type: ignore[arg-type]
    inputs = {
        "pretrained": neurofmx_pretrained,
        "adapted": neurofmx_adapted,
        "onnx": onnx,
        "scores": scores,
        "model_card": model_card,
    }
    return compute.launch(context, store.spec(context, "bundle", cfg, **store.get_each(inputs, context.partition_key)), presets.Resources())
