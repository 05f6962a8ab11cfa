"""Job `fit_baselines`: what a model has to beat, tuned.

Every baseline is fitted on the training block alone and tuned on the validation block, exactly as
the models are: no baseline is fitted again on both, since no model is. (On monkey and rat
recordings that would lift ridge by .02 and kNN by .01 in the mean.)
A baseline of a series is one function in BASELINES; `Case.data` has the arrays, `Case.shards` and
`Case.scaler` what a trained one needs. Those of neural signals are in `forecasting` and `reconstruction`, those of labels in
`label_baselines`.
"""

import importlib.util
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from neurofm_ml.artifacts import save_work
from neurofm_ml.data.predictions import Prediction, load_predictions, save_prediction
from neurofm_ml.data.recordings import load_card
from neurofm_ml.evaluation.baselines.cebra_baseline import fit_cebra
from neurofm_ml.evaluation.baselines.factors import factor_analysis, fit_factors, principal_components
from neurofm_ml.evaluation.baselines.forecasting import FORECASTS, too_few_rows
from neurofm_ml.evaluation.baselines.gru import fit_from_scratch, fit_gru
from neurofm_ml.evaluation.baselines.inferred import NETWORKS, POPULATIONS, inferred, population_of
from neurofm_ml.evaluation.baselines.knn import fit_knn
from neurofm_ml.evaluation.baselines.reconstruction import RECONSTRUCTIONS, too_few_channels
from neurofm_ml.evaluation.baselines.ridge import Fit, fit_ridge
from neurofm_ml.evaluation.label_baselines import LABEL_BASELINES
from neurofm_ml.evaluation.scoring.repeats import ceilings
from neurofm_ml.evaluation.scoring.scores import AnyCase, control_check, mean_scores, score_predictions, write_scores
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase, find_label_cases, find_pooled_cases, leave_sites_out
from neurofm_ml.evaluation.tasks.signals import SignalCase, find_signals
from neurofm_ml.evaluation.tasks.tasks import Blocks, Case, DecodingData, find_cases, find_encoding_cases
from neurofm_ml.knowledge.pools import POOLS
from neurofm_ml.presets import BaselinesConfig
from neurofm_ml.registry import Registry
from neurofm_ml.types import Array, Report

log = logging.getLogger(__name__)

#: (case, config, artifact folder) -> prediction of the test block.
Baseline = Callable[[Case, BaselinesConfig, Path], Prediction]
BASELINES: Registry[Baseline] = Registry("baseline")
Methods = Registry[Any] | Mapping[str, Any]
#: A case, the baselines of its kind, and why one of them does not answer it.
Asked = tuple[Any, Methods, Callable[[Any, str], str]]


def roots(data: DecodingData) -> Blocks:
    """Spike counts square-rooted, which makes their noise alike; not scaled, which would lift the noise of silent units."""
    return {split: np.where(data.counts, np.sqrt(np.where(data.counts, x, 0.0)), x) for split, x in data.x.items()}


@BASELINES.register("ridge")
def ridge(case: Case, cfg: BaselinesConfig, out: Path) -> Prediction:
    """Ridge with lags on square-rooted counts."""
    features = roots(case.data)
    return measure(case, "ridge", "baseline", lambda data: fit_ridge(data, features), features["test"], cfg.seed)


@BASELINES.register("knn")
def knn(case: Case, cfg: BaselinesConfig, out: Path) -> Prediction:
    """k nearest neighbours on smoothed activity."""
    return measure(case, "knn", "baseline", fit_knn, case.data.x["test"], cfg.seed)


@BASELINES.register("pca")
def pca(case: Case, cfg: BaselinesConfig, out: Path) -> Prediction:
    """Principal components of square-rooted counts, then ridge with lags."""
    features = roots(case.data)
    return measure(case, "pca", "baseline", lambda d: fit_factors(d, features, principal_components), features["test"], cfg.seed)


@BASELINES.register("factor_analysis")
def factors(case: Case, cfg: BaselinesConfig, out: Path) -> Prediction:
    """Factor analysis of square-rooted counts, then ridge with lags."""
    features = roots(case.data)
    return measure(case, "factor_analysis", "baseline", lambda d: fit_factors(d, features, factor_analysis), features["test"], cfg.seed)


@BASELINES.register("lfads")
def lfads(case: Case, cfg: BaselinesConfig, out: Path) -> Prediction:
    """Rates that LFADS infers, then ridge with lags."""
    return _from_rates(case, "lfads", cfg, out)


@BASELINES.register("ndt")
def ndt(case: Case, cfg: BaselinesConfig, out: Path) -> Prediction:
    """Rates that a neural data transformer infers, then ridge with lags."""
    return _from_rates(case, "ndt", cfg, out)


def _from_rates(case: Case, method: str, cfg: BaselinesConfig, out: Path) -> Prediction:
    population = population_of(case)
    assert population is not None
    found = inferred(population, method, cfg, out)
    said = measure(case, method, "baseline", lambda data: fit_ridge(data, found.guess), found.guess["test"], cfg.seed)
    return replace(said, parameters=said.parameters + found.parameters, train_seconds=said.train_seconds + found.train_seconds)


@BASELINES.register("cebra")
def cebra(case: Case, cfg: BaselinesConfig, out: Path) -> Prediction:
    """CEBRA's embedding of square-rooted counts, then nearest neighbours. Too dear to be fitted again on rolled labels."""
    features = roots(case.data)
    fit = partial(fit_cebra, features=features, updates=cfg.cebra_updates, seed=cfg.seed)
    return measure(case, "cebra", "baseline", fit, features["test"], cfg.seed, controlled=False)


BASELINES.add("gru", fit_gru)
BASELINES.add("from_scratch", fit_from_scratch)


def why_not(case: Case, method: str) -> str:
    """Why a baseline does not answer a case; empty where it does."""
    if method == "cebra" and importlib.util.find_spec("cebra") is None:
        return "the package cebra is not installed (pip install neurofm[cebra])"
    if method in NETWORKS and population_of(case) is None:
        return "its input is not one population of cells"
    if method in ("pca", "factor_analysis") and len(case.data.counts) < 2:
        return "its input has one channel"
    return ""


def why_unasked(case: SignalCase, method: str) -> str:
    """The same of a forecast or reconstruction."""
    if method in NETWORKS and case.modality not in POPULATIONS:
        return "it is not a population of cells"
    return too_few_rows(case) if case.category == "forecasting" else too_few_channels(case)


def why_unfit(case: LabelCase, method: str) -> str:
    """The same of a label."""
    return "" if LABEL_BASELINES[method].applies(case) else "it is not made for such windows"


def measure(
    case: Case, method: str, family: str, fit: Callable[[DecodingData], Fit], test: Array, seed: int, controlled: bool = True
) -> Prediction:
    """Fit, time, predict the test block from its features `test` (T, N), and, `controlled`, do it again on rolled labels."""
    data, control = case.data, case.data.with_rolled_labels()
    start = time.perf_counter()
    fitted = fit(data)
    trained = time.perf_counter()
    guess = fitted.predict(test)
    seconds = time.perf_counter() - trained
    return Prediction(
        *case.key,
        method=method,
        family=family,
        y_true=data.y["test"],
        y_pred=guess,
        times=data.times["test"],
        mask=data.known["test"],
        parameters=fitted.parameters,
        train_seconds=trained - start,
        samples_per_second=len(guess) / seconds,
        trained_on=f"{case.dataset}/{case.recording}",
        seed=seed,
        metric=case.task.metric,
        control=case.score(control, fit(control).predict(test)) if controlled else float("nan"),
    )


# ---------------------------------------------------------------- the job
class Question(NamedTuple):
    """One method that is to answer one case."""

    case: AnyCase
    method: str
    answer: Callable[[], Prediction]


def questions(cfg: BaselinesConfig, shards: list[Path], scaler: list[Path], out: Path) -> Iterator[Question]:
    """Every baseline that applies, on every task; those that do not are named in the log."""
    cases = asked_of_pool(cfg.dataset, shards, scaler) if cfg.dataset in POOLS else asked(cfg, shards[0], scaler)
    for case, methods, why in cases:
        for name in methods:
            if reason := why(case, name):
                log.info("%s does not answer %s: %s.", name, "/".join(case.key), reason)
            else:
                yield Question(case, name, partial(methods[name], case, cfg, out))


def asked(cfg: BaselinesConfig, shards: Path, scaler: list[Path]) -> Iterator[Asked]:
    """Every case of a dataset, the baselines of its kind, and why one of them does not answer it (empty where it does)."""
    yield from ((case, BASELINES, why_not) for case in find_cases(shards, scaler))
    yield from ((case, {"ridge": ridge}, why_not) for case in find_encoding_cases(shards, scaler))
    for signal in find_signals(shards, scaler, cfg.horizons_s):
        yield signal, FORECASTS if signal.category == "forecasting" else RECONSTRUCTIONS, why_unasked
    yield from ((case, LABEL_BASELINES, why_unfit) for case in find_label_cases(shards, scaler))


def asked_of_pool(name: str, shards: list[Path], scaler: list[Path]) -> Iterator[Asked]:
    """The same of a pool: its tasks on the split of its datasets, and with each site left out. Raises ValueError where shards of a
    dataset are missing."""
    if missing := set(POOLS[name].datasets) - {load_card(path).name for path in shards}:
        raise ValueError(f"pool {name!r} lacks the shards of {', '.join(sorted(missing))}; give those of all its datasets.")
    for case in find_pooled_cases(shards, scaler):
        if case.dataset == name:
            yield from ((one, LABEL_BASELINES, why_unfit) for one in (case, *leave_sites_out(case)))


def fit_baselines(cfg: BaselinesConfig, shards: list[Path], scaler: list[Path], out: Path) -> Report:
    """Every baseline on every task of one dataset, or of a pool whose datasets' shards these are.

    What is fitted is saved at once, so a killed run goes on where it stood.
    """
    done = {(p.case, p.method) for p in load_predictions(out / "predictions")}
    cases: dict[tuple[str, str, str], AnyCase] = {}
    for case, method, answer in tqdm([*questions(cfg, shards, scaler, out)], desc=f"baselines of {cfg.dataset}", disable=None):
        cases[case.key] = case
        if (case.key, method) not in done:
            save_prediction(answer(), out / "predictions")
            save_work(out)
    predictions = load_predictions(out / "predictions")
    best = ceilings(case for case in cases.values() if isinstance(case, Case))
    fingerprint = out.name.removeprefix("work-")
    table = score_predictions(predictions, cases.values(), run="baselines", fingerprint=fingerprint, ceilings=best)
    write_scores(table, out / "scores.parquet")
    return Report({"tasks": len(cases), **mean_scores(table)}, control_check(predictions), {"scores": "scores.parquet"})
