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
    [
        models.neurofmx_pretrained, models.neurofmx_adapted,
        evaluation.features, evaluation.leakage_audit, *evaluation.READINGS, evaluation.scores,
        release.onnx, release.model_card, release.bundle,
    ],
    description="One run, from shards to the release bundle.",
)  # fmt: skip
#: Families beside the multimodal model -> the job of a run.
FAMILIES = {
    family: dg.define_asset_job(
        f"train_{family}",
        [asset for asset in (models.PRETRAINED[family], models.LABEL_DECODERS.get(family)) if asset],
        description=f"One run of {family}: pretraining and adaptation.",
    )
    for family in models.PRETRAINED
    if family != "neurofmx"
}
label = dg.define_asset_job("label", [models.LABEL_DECODERS["neurofmx"]], description="One run's decoders of labels.")
prove = dg.define_asset_job("prove", [evaluation.planted], description="What a model finds of a planted truth.")
report = dg.define_asset_job("report", [evaluation.scorecard], description="The report of all runs of one size.")
#: Jobs of a run that need datasets of a certain kind -> those datasets.
NEEDED = {**{job.name: models.LEARNED[family] for family, job in FAMILIES.items()}, label.name: models.TOLD_APART["neurofmx"]}
study = dg.define_asset_job("study", [models.scaling_law, models.best_config], description="Scaling law and best config at one size.")
judge = dg.define_asset_job("judge", [data.quality], description="Quality of one dataset, again.")

#: Jobs that make the multimodal model's graph, in the order of its making; and the whole graph, where scores are made again
#: once there are more answers to be scored.
STEPS = (prepare, scale, collect, tabulate, compare, train, report)
ALL_STEPS = (*STEPS[:-1], *FAMILIES.values(), label, prove, train, report)
