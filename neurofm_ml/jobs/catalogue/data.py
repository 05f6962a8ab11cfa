"""Jobs of the data group: from raw files to shards, scalers, tables and foci.

Imports stand inside: a process that only plans work must not pay for torch.
"""

from pathlib import Path

from neurofm_ml import presets
from neurofm_ml.config import to_dict
from neurofm_ml.jobs.results import before
from neurofm_ml.jobs.spec import JOBS, Inputs, claims, job
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.knowledge.corpora import corpora
from neurofm_ml.knowledge.tables import tables
from neurofm_ml.types import Report


@job(
    "ingest",
    presets.IngestConfig,
    "3",
    checks=claims("expected_numbers", "table_is_valid"),
    reads=lambda cfg: to_dict(datasets()[cfg.dataset]),
)
def ingest(cfg: presets.IngestConfig, inputs: Inputs, out: Path) -> Report:
    """Raw files of a dataset -> recordings."""
    from neurofm_ml.data.ingest import ingest

    return ingest(cfg, inputs["raw"], out, before(out, JOBS["ingest"].version))


QUALITY = claims(
    "values_are_finite",
    "clock_is_sane",
    "channels_vary",
    "sampling_rates_fit",
    "intervals_share_the_clock",
    "no_input_gives_the_target_away",
    "gap_covers_the_overlap",
    "table_is_valid",
    warn=(
        "no_channel_is_flat",
        "behaviour_is_complete",
        "nothing_is_infinite",
        "signals_cover_the_recording",
        "rows_agree",
        "no_long_gaps",
        "clocks_hold",
        "nothing_is_frozen",
        "nothing_is_clipped",
        "no_value_stands_for_missing",
        "amplitudes_are_plausible",
        "positions_are_plausible",
        "no_channel_is_noisy",
        "no_channel_is_alone",
        "no_channel_is_repeated",
        "mains_are_quiet",
        "mains_are_in_place",
        "spectra_reach_nyquist",
        "counts_are_whole",
        "counts_do_not_overlap",
        "rates_are_plausible",
        "spike_times_are_precise",
        "units_fire",
        "refractory_periods_hold",
        "no_artefact_is_sorted",
        "heart_rate_is_plausible",
        "head_motion_is_low",
        "volumes_are_steady",
        "intervals_lie_inside",
        "labels_are_mixed",
        "no_recording_is_repeated",
        "no_person_is_repeated",
    ),
)


@job("assess_quality", presets.QualityConfig, "2", checks=QUALITY)
def assess_quality(cfg: presets.QualityConfig, inputs: Inputs, out: Path) -> Report:
    """Recordings -> quality table and blocking checks."""
    from neurofm_ml.data.quality import assess

    return assess(cfg, inputs["recordings"][0], out)


SHARDS = claims(
    "splits_are_disjoint",
    "no_window_is_repeated_across_splits",
    "shards_verify",
    "neural_signals_are_finite",
    "table_is_valid",
    warn=("splits_are_filled", "recordings_are_used"),
)


@job("write_shards", presets.ShardsConfig, "3", checks=SHARDS)
def write_shards(cfg: presets.ShardsConfig, inputs: Inputs, out: Path) -> Report:
    """Recordings -> windows, splits, shards."""
    from neurofm_ml.data.windows import shard_recordings

    return shard_recordings(cfg, inputs["recordings"][0], out)


@job("fit_scaler", presets.ScalerConfig, "1", checks=claims("scaler_is_finite"))
def fit_scaler(cfg: presets.ScalerConfig, inputs: Inputs, out: Path) -> Report:
    """Training windows of every dataset with this modality -> mean and deviation per channel."""
    from neurofm_ml.data.scaler import fit

    return fit(cfg, inputs["shards"], out)


FOCI = claims("counts_match_the_corpus", "peaks_are_finite", "table_is_valid", warn=("peaks_are_in_the_brain",))


@job("read_foci", presets.FociConfig, "3", checks=FOCI, reads=lambda cfg: to_dict(corpora()[cfg.corpus]))
def read_foci(cfg: presets.FociConfig, inputs: Inputs, out: Path) -> Report:
    """A corpus of coordinates -> one table of peaks."""
    from neurofm_ml.data.foci.job import ingest_foci

    return ingest_foci(cfg, inputs["raw"], out)


TABLE = claims(
    "keys_are_unique",
    "types_hold",
    "ranges_hold",
    "expected_numbers",
    warn=("rows_are_in_every_file", "no_column_is_empty", "files_are_named"),
)


@job("read_table", presets.TableConfig, "1", checks=TABLE, reads=lambda cfg: to_dict(tables()[cfg.table]))
def read_table(cfg: presets.TableConfig, inputs: Inputs, out: Path) -> Report:
    """Files of a table card -> one table, a summary of its columns, and whether the card's words hold."""
    from neurofm_ml.data.tables.job import read_table

    return read_table(cfg, inputs["raw"], out)
