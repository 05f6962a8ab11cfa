"""Jobs: which assets are made together, for one partition.

Dagster concept: asset jobs.
"""

import dagster as dg

from neurofm_assets.assets import atlas, data, evaluation, models, release

prepare = dg.define_asset_job("prepare", [data.recordings, data.quality, data.shards], description="One dataset, from raw files to shards.")
scale = dg.define_asset_job("scale", [data.scaler], description="Scalers of one modality.")
collect = dg.define_asset_job("collect", [atlas.foci], description="Coordinates of one corpus.")
tabulate = dg.define_asset_job("tabulate", [data.tables], description="One table of subjects, studies or regions.")
compare = dg.define_asset_job("compare", [evaluation.baselines], description="What simple methods reach on one dataset.")
train = dg.define_asset_job(
    "train",
    [models.neurofmx_pretrained, models.neurofmx_adapted, evaluation.scores, release.onnx, release.model_card, release.bundle],
    description="One run, from shards to the release bundle.",
)
#: Families beside the multimodal model -> the job of a run.
FAMILIES = {
    family: dg.define_asset_job(
        f"train_{family}",
        [asset for asset in (models.PRETRAINED[family], models.ADAPTED.get(family)) if asset],
        description=f"One run of {family}: pretraining and adaptation.",
    )
    for family in models.PRETRAINED
    if family != "neurofmx"
}
study = dg.define_asset_job("study", [models.scaling_law, models.best_config], description="Scaling law and best config at one size.")
judge = dg.define_asset_job("judge", [data.quality], description="Quality of one dataset, again.")

#: Jobs that make the whole graph, in the order of its making.
STEPS = (prepare, scale, collect, tabulate, compare, train)
