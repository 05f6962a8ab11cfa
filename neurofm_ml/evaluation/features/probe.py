"""Linear probes: what a linear readout finds in frozen features, layer by layer. Labelled a probe wherever it is shown.

Ridge for numbers and series, multinomial logistic regression for classes. A layer is factorised once for all penalties and for
all tasks that know the same rows. Penalty and layer are those that do best on the validation rows; the test rows are
answered once by each layer, for the curve over layers, of which the chosen one is the prediction.

Shapes: T rows (bins, or windows), D width, K target columns or classes, P penalties.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from neurofm_ml.data.predictions import Prediction, save_prediction
from neurofm_ml.data.recordings import load_card
from neurofm_ml.evaluation.features.features import Features, load_features
from neurofm_ml.evaluation.readouts.logistic import logistic_readouts
from neurofm_ml.evaluation.readouts.readout import Path as RidgePath
from neurofm_ml.evaluation.readouts.readout import Readout
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase, LabelData, find_label_cases, find_pooled_cases
from neurofm_ml.evaluation.tasks.tasks import Blocks, Case, find_cases
from neurofm_ml.metrics import SCORES
from neurofm_ml.presets import SPLITS, ProbeConfig
from neurofm_ml.types import Array, Check, Report

METHOD = "linear_probe"
#: Columns of layers.parquet: a task's score on validation and test rows, read from each layer, R2 of series; `chosen` is the best on
#: validation.
LAYER_COLUMNS = ("dataset", "recording", "task", "family", "layer", "depth", "metric", "validation", "value", "chance", "chosen")


@dataclass(frozen=True, eq=False)
class Fitted:
    """A readout (T, D) -> (T, K) of standardised features, and its score on validation rows."""

    readout: Readout
    validation: float


@dataclass(frozen=True, eq=False)
class Probe:
    """The prediction of the chosen layer, and a row of LAYER_COLUMNS for each."""

    prediction: Prediction
    layers: list[dict[str, Any]]


# ---------------------------------------------------------------- the job
def probe(cfg: ProbeConfig, features: Path, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Write predictions and ``layers.parquet``: every task of every dataset that has features, and of every pool of them.

    Tasks some of whose windows or inputs the model could not read are left out by name.
    """
    found, layers, left_out = load_features(features), list[dict[str, Any]](), list[str]()
    read = [path for path in shards if load_card(path).name in found]

    def answers() -> Iterator[Probe]:
        for path in tqdm(read, desc="probes", unit="dataset", disable=None):
            yield from _series_of(cfg, found[load_card(path).name], path, scaler, left_out)
            yield from _labels_of(cfg, found, find_label_cases(path, scaler), left_out)
        yield from _labels_of(cfg, found, find_pooled_cases(read, scaler), left_out)

    for answer in answers():
        save_prediction(answer.prediction, out / "predictions")
        layers += answer.layers
    table = pd.DataFrame(layers, columns=LAYER_COLUMNS)
    table.to_parquet(out / "layers.parquet", index=False)
    metrics: dict[str, float | int | str] = {"tasks": int(table.chosen.sum()), "left_out": ", ".join(left_out), **_mean_scores(table)}
    bad = int((~np.isfinite(table[["validation", "value"]].to_numpy(float))).sum())
    return Report(metrics, (Check("probes_are_finite", not bad, "error", {"not_finite": bad}, "0"),))


def _series_of(cfg: ProbeConfig, own: Features, shards: Path, scaler: Sequence[Path], left_out: list[str]) -> Iterator[Probe]:
    cases = sorted(find_cases(shards, scaler), key=_shared)
    for (recording, inputs), group in groupby(cases, key=_shared):
        together = list(group)
        if own.has_bins(recording, inputs):
            blocks = {layer: {s: own.bins(recording, s, layer, inputs) for s in SPLITS} for layer in own.layers}
            yield from probe_series(together, blocks, own.family, cfg.seed)
        else:
            left_out += ["/".join(case.key) for case in together]


def _shared(case: Case) -> tuple[str, tuple[str, ...]]:
    return case.recording, case.task.inputs


def _labels_of(cfg: ProbeConfig, found: Mapping[str, Features], cases: Sequence[LabelCase], left_out: list[str]) -> Iterator[Probe]:
    for case in cases:
        if all(own.key.isin(found[str(name)].windows.key).all() for name, own in case.data.rows.groupby("dataset")):
            yield probe_labels(found, case, cfg.seed)
        else:
            left_out.append("/".join(case.key))


def _mean_scores(table: pd.DataFrame) -> dict[str, float]:
    """Mean score of the chosen layers, and of each layer, per metric."""
    chosen = {f"mean_{metric}": round(float(rows.value.mean()), 4) for metric, rows in table[table.chosen].groupby("metric")}
    return chosen | {f"mean_{m}.{layer}": round(float(rows.value.mean()), 4) for (m, layer), rows in table.groupby(["metric", "layer"])}


# ---------------------------------------------------------------- series
def probe_series(cases: Sequence[Case], layers: Mapping[str, Blocks], family: str, seed: int) -> list[Probe]:
    """Probes of series tasks that read the same inputs of one recording; layers: name -> split -> (T, D) on the recording's grid."""
    start = time.perf_counter()
    known = {case.task.name: case.data for case in cases}
    for split in SPLITS:
        _require_rows(cases[0].key, len(next(iter(layers.values()))[split]), len(cases[0].data.y[split]))
    scaled = {layer: standardised(blocks) for layer, blocks in layers.items()}
    fits = {layer: fit_ridges(blocks, {task: data.y for task, data in known.items()}) for layer, blocks in scaled.items()}
    seconds = (time.perf_counter() - start) / len(cases)
    rolled = {task: data.with_rolled_labels().y for task, data in known.items()}
    controls = {layer: fit_ridges(blocks, rolled) for layer, blocks in scaled.items()}
    probes = []
    for case in cases:
        task, data, control = case.task.name, case.data, case.data.with_rolled_labels()
        own = {layer: fitted[task] for layer, fitted in fits.items()}
        said = {layer: fitted.readout(scaled[layer]["test"]) for layer, fitted in own.items()}
        best, rival = _best(own), _best({layer: fitted[task] for layer, fitted in controls.items()})
        answer = Prediction(
            *case.key,
            method=METHOD,
            family=family,
            y_true=data.y["test"],
            y_pred=said[best],
            times=data.times["test"],
            mask=data.known["test"],
            parameters=own[best].readout.parameters,
            train_seconds=seconds,
            samples_per_second=_speed(own[best].readout, scaled[best]["test"]),
            trained_on=f"{case.dataset}/{case.recording}",
            seed=seed,
            metric=case.task.metric,
            control=case.score(control, controls[rival][task].readout(scaled[rival]["test"])),
        )
        rows = _layer_rows(answer, "r2", own, {layer: data.r2("test", guess) for layer, guess in said.items()}, best, 0.0)
        probes.append(Probe(answer, rows))
    return probes


def fit_ridges(x: Blocks, targets: Mapping[str, Blocks]) -> dict[str, Fitted]:
    """Task -> the ridge that has the best mean R2 on validation rows; targets: task -> split -> (T, K), NaN where unknown.

    Tasks that are known in the same training rows are solved together, for all penalties.
    """
    groups: dict[bytes, list[str]] = {}
    for task, y in targets.items():
        groups.setdefault(_known(y["train"]).tobytes(), []).append(task)
    found: dict[str, Fitted] = {}
    for tasks in groups.values():
        known = _known(targets[tasks[0]]["train"])
        path = RidgePath.of(x["train"][known], np.concatenate([targets[task]["train"][known] for task in tasks], axis=1))
        guesses, at = path.predictions(x["validation"]), 0
        for task in tasks:
            truth = targets[task]["validation"]
            columns = slice(at, at := at + truth.shape[1])
            scores = _r2s(truth, guesses[:, :, columns])
            weights, intercept = path.readout(k := _last_best(scores))
            found[task] = Fitted(Readout(weights[:, columns], intercept[columns]), float(scores[k]))
    return found


def _r2s(y: Array, guesses: Array) -> Array:
    """(P,) mean R2 over columns of guesses (P, T, K) where y (T, K) is known."""
    known = _known(y)
    y, guesses = y[known], guesses[:, known]
    return np.asarray((1 - ((y - guesses) ** 2).sum(1) / ((y - y.mean(0)) ** 2).sum(0)).mean(1))


def _known(y: Array) -> Array:
    return np.asarray(np.isfinite(y).all(1))


# ---------------------------------------------------------------- labels
def probe_labels(features: Mapping[str, Features], case: LabelCase, seed: int) -> Probe:
    """The probe of a label task: pooled features of each window, the answers of a person's windows averaged.

    The control is the whole method, layer and penalty chosen again, on labels exchanged between trials or people.
    """
    own = features[case.data.rows.dataset[0]]
    layers = {layer: standardised(_label_blocks(features, case, layer)) for layer in own.layers}
    start = time.perf_counter()
    fits = {layer: fit_labels(blocks, case.data) for layer, blocks in layers.items()}
    seconds, best = time.perf_counter() - start, _best(fits)
    said = {layer: fitted.readout(layers[layer]["test"]) for layer, fitted in fits.items()}
    shuffled = case.data.with_permuted_labels(seed)
    controls = {layer: fit_labels(blocks, shuffled) for layer, blocks in layers.items()}
    rival = _best(controls)
    answer = case.prediction(
        METHOD,
        own.family,
        said[best],
        seed=seed,
        parameters=fits[best].readout.parameters,
        train_seconds=seconds,
        samples_per_second=_speed(fits[best].readout, layers[best]["test"]),
        control=shuffled.score("test", controls[rival].readout(layers[rival]["test"])),
    )
    values = {layer: case.data.score("test", guess) for layer, guess in said.items()}
    return Probe(answer, _layer_rows(answer, answer.metric, fits, values, best, answer.score.at_chance(answer.y_true)))


def _label_blocks(features: Mapping[str, Features], case: LabelCase, layer: str) -> Blocks:
    """Split -> (n, D) pooled features, in the order of the case's rows."""
    rows, name = case.data.rows, ["dataset", "key"]
    owners = [features[str(dataset)] for dataset in rows.dataset.unique()]
    windows, pooled = pd.concat([own.windows[name] for own in owners]), np.concatenate([own.pooled(layer) for own in owners])
    place = pd.MultiIndex.from_frame(windows).get_indexer(pd.MultiIndex.from_frame(rows[name]))
    _require_rows(case.key, int((place >= 0).sum()), len(rows))
    return {split: pooled[place[rows.split == split]] for split in SPLITS}


def fit_labels(x: Blocks, data: LabelData) -> Fitted:
    """Logistic regression of classes, which count alike, or ridge of a number; the penalty with the best score on validation."""
    y, sign = data.labels("train"), SCORES[data.task.metric].sign
    path = RidgePath.of(x["train"], y[:, None])
    if data.classes:
        readouts = logistic_readouts(path, y.astype(int), len(data.classes), range(len(path.penalties)))
    else:
        readouts = [path.readout(k) for k in range(len(path.penalties))]
    scores = [sign * data.score("validation", readout(x["validation"])) for readout in readouts]
    k = _last_best(np.array(scores))
    return Fitted(readouts[k], scores[k])


# ---------------------------------------------------------------- shared
def standardised(x: Blocks) -> Blocks:
    """Split -> (T, D) float64 with mean 0 and deviation 1 on the training rows; what stands still there is 0."""
    mean, std = x["train"].mean(0, dtype=np.float64), x["train"].std(0, dtype=np.float64)
    return {split: (values - mean) / np.where(std > 0, std, np.inf) for split, values in x.items()}


def _last_best(scores: Array) -> int:
    """Of penalties that score alike the largest."""
    return len(scores) - 1 - int(np.argmax(scores[::-1]))


def _best(fits: Mapping[str, Fitted]) -> str:
    return max(fits, key=lambda layer: fits[layer].validation)


def _speed(readout: Readout, x: Array) -> float:
    """Rows answered per second."""
    start = time.perf_counter()
    readout(x)
    return len(x) / (time.perf_counter() - start)


def _require_rows(key: tuple[str, str, str], found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(
            f"{'/'.join(key)}: features of {found} rows, but the task has {wanted}; extract the features from the same shards."
        )


def _layer_rows(
    answer: Prediction, metric: str, fits: Mapping[str, Fitted], values: Mapping[str, float], best: str, chance: float
) -> list[dict[str, Any]]:
    about = {**dict(zip(("dataset", "recording", "task"), answer.case, strict=True)), "family": answer.family, "metric": metric}
    return [
        {**about, "layer": layer, "depth": depth, "validation": SCORES[metric].sign * f.validation}
        | {"value": values[layer], "chance": chance, "chosen": layer == best}
        for depth, (layer, f) in enumerate(fits.items())
    ]
