"""Linear probes of every layer on every task: ours against a loop over scikit-learn.

A planted set of the size of an evaluation: 6 layers of width 128, 3000 bins each of training, validation and test rows, 12
series tasks of two columns that are known in the same rows, 15 penalties. Both standardise the features beforehand, choose the
penalty of each task and layer by the mean R2 on the validation rows, and answer the test rows; one thread. The peer is a loop
over layers and tasks of `RidgeCV` with the validation rows as its one fold (`PredefinedSplit`), then `Ridge` on the training
rows at its penalty, so that both answers come from training rows alone. For comparison, scikit-learn as fast as it gets: one
`Ridge` per layer and penalty for all tasks at once.

`ratio` = seconds of the loop over seconds of ours. Scores have to be the same; the largest difference is printed.
"""

import json
import time
from collections.abc import Callable, Mapping

import numpy as np
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import PredefinedSplit
from threadpoolctl import threadpool_limits

from neurofm_ml.evaluation.features.probe import fit_ridges, standardised
from neurofm_ml.evaluation.readouts.readout import PENALTIES
from neurofm_ml.metrics import r2
from neurofm_ml.presets import SPLITS
from neurofm_ml.types import Array

LAYERS, WIDTH, ROWS, TASKS, COLUMNS = 6, 128, 3000, 12, 2
REPEATS = 3
Blocks = Mapping[str, Array]
Scores = dict[tuple[int, str], float]


def made(seed: int = 0) -> tuple[list[Blocks], dict[str, Blocks]]:
    """Layers that hold the targets ever better, and the targets."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(3 * ROWS, 20))
    layers = [
        latent @ rng.normal(size=(20, WIDTH)) * np.linspace(0.1, 2, WIDTH) + (8 - k) * rng.normal(size=(3 * ROWS, WIDTH))
        for k in range(LAYERS)
    ]
    targets = {f"task_{t}": latent @ rng.normal(size=(20, COLUMNS)) + 4 * rng.normal(size=(3 * ROWS, COLUMNS)) for t in range(TASKS)}
    return [standardised(cut(x)) for x in layers], {task: cut(y) for task, y in targets.items()}


def cut(values: Array) -> Blocks:
    return dict(zip(SPLITS, np.split(values, 3), strict=True))


def ours(layers: list[Blocks], targets: dict[str, Blocks]) -> Scores:
    return {
        (k, task): r2(targets[task]["test"], fitted.readout(x["test"]))
        for k, x in enumerate(layers)
        for task, fitted in fit_ridges(x, targets).items()
    }


def penalties(x: Blocks) -> Array:
    """Ours, as scikit-learn counts them: rows times the mean variance of a feature."""
    return PENALTIES * float(((x["train"] - x["train"].mean(0)) ** 2).sum()) / x["train"].shape[1]


def loop(layers: list[Blocks], targets: dict[str, Blocks]) -> Scores:
    fold = PredefinedSplit(np.repeat([-1, 0], ROWS))
    scores = {}
    for k, x in enumerate(layers):
        both = np.concatenate([x["train"], x["validation"]])
        for task, y in targets.items():
            chosen = RidgeCV(penalties(x), cv=fold, scoring="r2").fit(both, np.concatenate([y["train"], y["validation"]])).alpha_
            scores[k, task] = r2(y["test"], Ridge(chosen).fit(x["train"], y["train"]).predict(x["test"]))
    return scores


def together(layers: list[Blocks], targets: dict[str, Blocks]) -> Scores:
    scores = {}
    for k, x in enumerate(layers):
        y = np.concatenate([own["train"] for own in targets.values()], axis=1)
        fits = [Ridge(alpha).fit(x["train"], y) for alpha in penalties(x)]
        held_out, asked = ([fit.predict(x[split]) for fit in fits] for split in ("validation", "test"))
        for i, (task, own) in enumerate(targets.items()):
            columns = slice(i * COLUMNS, (i + 1) * COLUMNS)
            best = int(np.argmax([r2(own["validation"], said[:, columns]) for said in held_out]))
            scores[k, task] = r2(own["test"], asked[best][:, columns])
    return scores


def timed(method: Callable[[list[Blocks], dict[str, Blocks]], Scores], *work: object) -> tuple[float, Scores]:
    """The least of some repeats, in seconds."""
    seconds, scores = [], {}
    for _ in range(REPEATS):
        start = time.perf_counter()
        scores = method(*work)  # type: ignore[arg-type]
        seconds.append(time.perf_counter() - start)
    return min(seconds), scores


def main() -> None:
    layers, targets = made()
    with threadpool_limits(1):
        found = {method.__name__: timed(method, layers, targets) for method in (ours, loop, together)}
    print(f"{LAYERS} layers of width {WIDTH}, {TASKS} tasks, {len(PENALTIES)} penalties, {ROWS} training rows")
    for name, (seconds, scores) in found.items():
        difference = max(abs(scores[key] - found["ours"][1][key]) for key in scores)
        print(f"  {name:9s} {seconds:8.3f} s   mean R2 {np.mean(list(scores.values())):.4f}   largest difference {difference:.1e}")
    own, peer, fastest = (found[name][0] for name in ("ours", "loop", "together"))
    summary = {"name": "probe", "ours": round(own, 4), "peer": round(peer, 4), "ratio": round(peer / own, 2), "unit": "s"}
    print(json.dumps({**summary, "ratio_together": round(fastest / own, 2)}))


if __name__ == "__main__":
    main()
