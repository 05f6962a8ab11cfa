"""Job `fit_baselines`: what a model has to beat, tuned.

Every baseline is fitted on the training block alone and tuned on the validation block, exactly as
the models are: no baseline is fitted again on both, since no model is. (On monkey and rat
recordings that would lift ridge by .02 and kNN by .01 in the mean.)
A baseline is one function in BASELINES; `Case.data` has the arrays, `Case.shards` and
`Case.scaler` what a trained one needs.
"""

import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Protocol

import numpy as np

from neurofm_ml.artifacts import save_work
from neurofm_ml.data.predictions import Prediction, load_predictions, save_prediction
from neurofm_ml.evaluation.gru import fit_gru
from neurofm_ml.evaluation.knn import fit_knn
from neurofm_ml.evaluation.ridge import fit_ridge
from neurofm_ml.evaluation.scores import control_check, mean_scores, score_predictions, write_scores
from neurofm_ml.evaluation.tasks import Blocks, Case, DecodingData, find_cases
from neurofm_ml.presets import BaselinesConfig
from neurofm_ml.registry import Registry
from neurofm_ml.types import Array, Report

#: (case, config, artifact folder) -> prediction of the test block.
Baseline = Callable[[Case, BaselinesConfig, Path], Prediction]
BASELINES: Registry[Baseline] = Registry("baseline")


class Fit(Protocol):
    """What a closed-form method returns: it predicts (T, K) from the (T, N) it was fitted on."""

    @property
    def parameters(self) -> int: ...

    def predict(self, x: Array) -> Array: ...


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


BASELINES.add("gru", fit_gru)


def measure(case: Case, method: str, family: str, fit: Callable[[DecodingData], Fit], test: Array, seed: int) -> Prediction:
    """Fit, time, predict the test block from its features `test` (T, N), and do it again on rolled labels as a control."""
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
        control=control.r2("test", fit(control).predict(test)),
    )


def fit_baselines(cfg: BaselinesConfig, shards: Path, scaler: list[Path], out: Path) -> Report:
    """Every baseline on every decoding task of one dataset; a dataset without tasks gets an empty table.

    What is fitted is saved at once, so a killed run goes on where it stood.
    """
    cases = find_cases(shards, scaler)
    done = {(p.case, p.method) for p in load_predictions(out / "predictions")}
    for case, name in product(cases, BASELINES):
        if (case.key, name) not in done:
            save_prediction(BASELINES[name](case, cfg, out), out / "predictions")
            save_work(out)
    predictions = load_predictions(out / "predictions")
    table = score_predictions(predictions, cases, run="baselines", fingerprint=out.name.removeprefix("work-"))
    write_scores(table, out / "scores.parquet")
    return Report({"tasks": len(cases), **mean_scores(table)}, control_check(predictions), {"scores": "scores.parquet"})
