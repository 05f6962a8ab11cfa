"""Jobs of the evaluation group: leaks, baselines, what is read from frozen features, scores, the report.

Imports stand inside: a process that only plans work must not pay for torch.
"""

from pathlib import Path

from neurofm_ml import presets
from neurofm_ml.jobs.spec import Inputs, claims, job
from neurofm_ml.types import Report

LEAKS = (
    "no_recording_in_two_splits", "no_session_in_two_splits", "no_subject_in_two_splits", "no_family_in_two_splits",
    "no_site_in_two_splits", "no_time_overlap", "no_window_repeated", "scaler_is_of_training_windows",
)  # fmt: skip


@job("audit", presets.AuditConfig, "3", checks=claims(*LEAKS))
def audit(cfg: presets.AuditConfig, inputs: Inputs, out: Path) -> Report:
    """All shards that a run learned from or is scored on, and their scalers -> the leaks between their splits."""
    from neurofm_ml.evaluation.audit.job import audit

    return audit(cfg, inputs["shards"], inputs["scaler"], out)


@job("fit_baselines", presets.BaselinesConfig, "4", checks=claims(warn=("controls_at_chance",)), resumes=True)
def fit_baselines(cfg: presets.BaselinesConfig, inputs: Inputs, out: Path) -> Report:
    """Shards of one dataset with tasks, or of all datasets of a pool -> predictions and scores of the tuned baselines."""
    from neurofm_ml.evaluation.baselines.baselines import fit_baselines

    return fit_baselines(cfg, inputs["shards"], inputs["scaler"], out)


@job("extract_features", presets.FeaturesConfig, "1", checks=claims("features_are_finite"), resumes=True)
def extract_features(cfg: presets.FeaturesConfig, inputs: Inputs, out: Path) -> Report:
    """A pretrained model of any family, shards -> every layer's features of every window and bin."""
    from neurofm_ml.evaluation.features.features import extract

    return extract(cfg, inputs["pretrained"][0], inputs["shards"], inputs["scaler"], out)


@job("probe", presets.ProbeConfig, "2", checks=claims("probes_are_finite"))
def probe(cfg: presets.ProbeConfig, inputs: Inputs, out: Path) -> Report:
    """Features -> predictions of linear probes, and a score of each layer."""
    from neurofm_ml.evaluation.features.probe import probe

    return probe(cfg, inputs["features"][0], inputs["shards"], inputs["scaler"], out)


@job("few_shot", presets.FewShotConfig, "3", checks=claims("table_is_valid", warn=("controls_at_chance",)))
def few_shot(cfg: presets.FewShotConfig, inputs: Inputs, out: Path) -> Report:
    """Features -> scores of readouts from few labels, beside the same from raw inputs."""
    from neurofm_ml.evaluation.shots.few_shot import few_shot

    return few_shot(cfg, inputs["features"][0], inputs["shards"], inputs["scaler"], out)


@job("zero_shot", presets.ZeroShotConfig, "3", checks=claims("table_is_valid"))
def zero_shot(cfg: presets.ZeroShotConfig, inputs: Inputs, out: Path) -> Report:
    """Features -> scores of readouts that saw no label of their target."""
    from neurofm_ml.evaluation.transfer.zero_shot import zero_shot

    return zero_shot(cfg, inputs["features"][0], inputs["shards"], inputs["scaler"], out)


@job("transfer", presets.TransferConfig, "3", checks=claims("table_is_valid", warn=("places_read_themselves",)))
def transfer(cfg: presets.TransferConfig, inputs: Inputs, out: Path) -> Report:
    """Features -> matrices of readouts fitted in one place and scored in another."""
    from neurofm_ml.evaluation.transfer.transfer import transfer

    return transfer(cfg, inputs["features"][0], inputs["shards"], inputs["scaler"], out)


@job("cross_modal", presets.CrossModalConfig, "1", checks=claims("table_is_valid"))
def cross_modal(cfg: presets.CrossModalConfig, inputs: Inputs, out: Path) -> Report:
    """A pretrained model, recordings of several modalities -> what one tells of another, and what is lost without."""
    from neurofm_ml.evaluation.transfer.cross_modal import cross_modal

    return cross_modal(cfg, inputs["pretrained"][0], inputs["shards"], inputs["scaler"], out)


@job("answer_signals", presets.SignalsConfig, "2", resumes=True)
def answer_signals(cfg: presets.SignalsConfig, inputs: Inputs, out: Path) -> Report:
    """A pretrained model, shards -> its forecasts and reconstructions of neural signals."""
    from neurofm_ml.evaluation.scoring.signal_answers import answer_signals

    return answer_signals(cfg, inputs["pretrained"][0], inputs["shards"], inputs["scaler"], out)


@job("prove", presets.PlantedConfig, "1", checks=claims(warn=("latent_is_recovered", "beats_best_baseline")), resumes=True)
def prove(cfg: presets.PlantedConfig, inputs: Inputs, out: Path) -> Report:
    """Nothing but a seed -> how much of a planted latent a pretrained model's features tell, beside simpler methods."""
    from neurofm_ml.evaluation.features.planted import planted

    return planted(cfg, out)


@job("represent", presets.RepresentationConfig, "1", checks=claims(warn=("identity_is_not_all",)))
def represent(cfg: presets.RepresentationConfig, inputs: Inputs, out: Path) -> Report:
    """Features -> who and what they tell apart, how similar they are to behaviour, whether they hold for new people."""
    from neurofm_ml.evaluation.features.representation import representation

    return representation(cfg, inputs["features"][0], out)


@job("score", presets.ScoreConfig, "6", checks=claims("table_is_valid", warn=("controls_at_chance", "not_above_ceiling")))
def score(cfg: presets.ScoreConfig, inputs: Inputs, out: Path) -> Report:
    """Artifacts that answer tasks, shards, baselines -> the scores table."""
    from neurofm_ml.evaluation.scoring.score import score

    return score(cfg, inputs["answers"], inputs["shards"], inputs["scaler"], inputs["baselines"], out)


@job("write_scorecard", presets.ScorecardConfig, "4", checks=claims("every_number_is_traced"))
def write_scorecard(cfg: presets.ScorecardConfig, inputs: Inputs, out: Path) -> Report:
    """Every table of a size -> the report, its cards, the targets."""
    from neurofm_ml.evaluation.scorecard.job import write_scorecard

    return write_scorecard(cfg, inputs, out)
