"""Atlas assets: coordinates of published brain activations."""

import dagster as dg

from neurofm_assets.checks import specs_for
from neurofm_assets.compute import Compute
from neurofm_assets.partitions import CORPORA
from neurofm_assets.store import Store
from neurofm_ml import presets
from neurofm_ml.jobs import JOBS
from neurofm_ml.knowledge.corpora import corpora, corpus_files


@dg.asset(
    partitions_def=CORPORA,
    group_name="atlas",
    kinds={"parquet"},
    owners=["team:atlas"],
    code_version=JOBS["read_foci"].version,
    check_specs=specs_for("foci", "read_foci", CORPORA),
)
def foci(context: dg.AssetExecutionContext, compute: Compute, store: Store) -> dg.MaterializeResult:
    """Activation peaks of a corpus of studies: one row per peak, with study, contrast, direction and space."""
    corpus = context.partition_key
    cfg = presets.FociConfig(corpus=corpus)
    files = map(str, corpus_files(corpora()[corpus]))
    return compute.launch(context, store.spec(context, "read_foci", cfg, raw=files), presets.Resources())
