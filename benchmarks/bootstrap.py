"""10,000 bootstrap resamples of a score: ours, all at once, against a loop that scores the rows of each resample.

Ours is `evaluation.statistics.resampling.resample`; the loop calls the same metric (`metrics.r2`, `metrics.auroc`, `metrics.balanced_accuracy`) on
the rows of each draw, which is how it is mostly done. Both get the same draws: circular blocks of a decoded series, whole people of a
task with labels, and single rows, each its own unit, which help ours least. That every value is the same is asserted. Both times hold
the drawing of the rows; one thread; ours is the least of three runs.

`ratio` = the least of the three speed-ups with people or blocks / 20.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from neurofm_ml import metrics
from neurofm_ml.evaluation.statistics.resampling import Blocks, Units, resample
from neurofm_ml.metrics import SCORES
from neurofm_ml.types import Array

N_BOOT, CLAIM = 10_000, 20
PEOPLE, WINDOWS, BINS, BLOCK, ROWS = 40, 50, 2000, 25, 1000


@dataclass(frozen=True)
class Task:
    """Truth (T, K) or (T, 1), guess (T, K) or (T, C), and how its rows are drawn."""

    metric: str
    rows: str
    y_true: Array
    y_pred: Array
    draw: Callable[[], Blocks | Units]


def tasks() -> list[Task]:
    rng = np.random.default_rng(0)
    series = np.cumsum(rng.normal(size=(BINS, 2)), axis=0) / 10
    found = [
        Task(
            "r2",
            f"{BINS} bins in blocks of {BLOCK}",
            series,
            series + rng.normal(size=series.shape),
            lambda: Blocks(BINS, BLOCK, N_BOOT, 0),
        )
    ]
    for n_units, n_rows, about in ((PEOPLE, WINDOWS, f"{PEOPLE} people x {WINDOWS} windows"), (ROWS, 1, f"{ROWS} single rows")):
        units = np.repeat(np.arange(n_units), n_rows)
        for metric, n in (("auroc", 2), ("balanced_accuracy", 5)):
            y = rng.integers(0, n, (len(units), 1)).astype(float)
            p = rng.normal(size=(len(y), n)) + np.eye(n)[y[:, 0].astype(int)]
            found.append(Task(metric, about, y, p, lambda units=units: Units(units, N_BOOT, 0)))
    return found


def rows_of(drawn: Blocks | Units) -> Callable[[int], Array]:
    """Resample -> its rows."""
    if isinstance(drawn, Blocks):
        return lambda b: ((drawn.starts[b][:, None] + np.arange(drawn.block)) % drawn.n).ravel()
    members = np.stack([np.flatnonzero(drawn.place == unit) for unit in range(int(drawn.pieces))])
    return lambda b: members[drawn.drawn[b]].ravel()


def plain(task: Task) -> Callable[[Array], float]:
    """Rows -> the metric on them; classes are told from scores before, once."""
    function, (y, p) = getattr(metrics, task.metric), (task.y_true, task.y_pred)
    if task.metric == "r2":
        return lambda rows: function(y[rows], p[rows])
    truth, said = y[:, 0], p[:, 1] if task.metric == "auroc" else p.argmax(1)
    return lambda rows: function(truth[rows], said[rows])


def timed(work: Callable[[], Array], runs: int) -> tuple[float, Array]:
    """Least seconds of some runs, and the result."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), found


def loop(task: Task) -> Array:
    score, rows = plain(task), rows_of(task.draw())
    return np.array([score(rows(b)) for b in range(N_BOOT)])


def main() -> None:
    print(f"{N_BOOT} resamples\n{'metric':18s} {'rows':28s} {'ours s':>8s} {'loop s':>8s} {'ratio':>7s}  largest difference of values")
    ratios = []
    for task in tasks():
        ours_s, ours = timed(lambda task=task: resample(SCORES[task.metric], task.y_true, task.y_pred, task.draw()), 3)
        loop_s, peer = timed(lambda task=task: loop(task), 1)
        difference = float(np.abs(ours - peer).max())
        assert difference < 1e-9, f"{task.metric}: the values differ by {difference}"
        ratios.append((loop_s / ours_s, ours_s, loop_s))
        print(f"{task.metric:18s} {task.rows:28s} {ours_s:8.3f} {loop_s:8.2f} {ratios[-1][0]:7.1f}  {difference:.1e}", flush=True)
    ratio, ours_s, loop_s = min(ratios[:3])
    print(
        json.dumps({"name": "bootstrap", "ours": round(ours_s, 4), "peer": round(loop_s, 3), "ratio": round(ratio / CLAIM, 3), "unit": "s"})
    )


if __name__ == "__main__":
    main()
