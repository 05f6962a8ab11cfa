"""The code location: everything Dagster loads. Must load in under 3 s and without torch.

Dagster concept: definitions.
"""

import os
from typing import Any

import dagster as dg

from neurofm_assets import automation
from neurofm_assets.assets import atlas, data, evaluation, models, release
from neurofm_assets.resources import resources_for

ASSETS: list[dg.AssetsDefinition] = [
    data.recordings,
    data.quality,
    data.shards,
    data.scaler,
    data.tables,
    atlas.foci,
    *models.PRETRAINED.values(),
    models.neurofmx_adapted,
    *models.DECODERS,
    models.scaling_law,
    models.best_config,
    evaluation.baselines,
    evaluation.features,
    evaluation.leakage_audit,
    *evaluation.READINGS,
    evaluation.planted,
    evaluation.scores,
    evaluation.scorecard,
    release.onnx,
    release.model_card,
    release.bundle,
]


def build_defs(**overrides: Any) -> dg.Definitions:
    """The definitions, with some resources replaced: ``build_defs(compute=..., store=...)``."""
    return dg.Definitions(
        assets=ASSETS,
        jobs=automation.JOBS,
        schedules=automation.SCHEDULES,
        sensors=automation.SENSORS,
        resources={**resources_for(os.environ.get("NEUROFM_ENV", "local")), **overrides},
    )


defs = build_defs()
