"""The scores table to read: Markdown and one picture. Everything comes from the table; losses are shown like wins."""

from pathlib import Path

import pandas as pd

from neurofm_ml import markdown
from neurofm_ml.evaluation.scoring.scores import BEATS, LOSES, NO_VERDICT, TIES, best_first

#: Differences are drawn up to here; the table has them as they are.
FARTHEST = 1.0
COLOURS = {BEATS: "tab:green", TIES: "0.6", LOSES: "tab:red", NO_VERDICT: "0.85"}

LEGEND = """\
Each task in its own metric, on its test windows: the held-out last block of a recording, or recordings, sessions or people
that were held out whole. Everything is fitted on the training windows and tuned on the validation windows. 95 % intervals:
circular block bootstrap of a series, bootstrap of whole people and trials of labels. `control`: the same method on labels
rolled in time or exchanged, or, where fitting again is dear, on its own answers shifted or exchanged. `p`: against these.
The stamp is a paired test against the best baseline of the task, taken as the best on the test windows themselves; where the
units are so few that no answers could decide it, it is "too few to tell".
"""


def write_markdown(table: pd.DataFrame, comparisons: pd.DataFrame, path: Path) -> None:
    """One line per task and method, best first."""
    stamps = {(r.dataset, r.recording, r.task, r.method): r for r in comparisons.itertuples()}
    head = ["dataset", "recording", "task", "metric", "method", "value [95 % interval]", "control", "p", "parameters", "train s", "stamp"]
    rows = []
    for r in best_first(table).itertuples():
        found = stamps.get((r.dataset, r.recording, r.task, r.method))
        against = f"{found.stamp} ({found.baseline}: {found.difference:+.3f} [{found.ci_low:+.3f}, {found.ci_high:+.3f}])" if found else ""
        interval = f"{r.value:.3f} [{r.ci_low:.3f}, {r.ci_high:.3f}]"
        cells = [
            r.dataset,
            r.recording,
            r.task,
            r.metric,
            r.method,
            interval,
            f"{r.control:.3f}",
            f"{r.p:.2g}",
            r.parameters,
            f"{r.train_seconds:.1f}",
        ]
        rows.append([*cells, against])
    path.write_text("\n".join(["# Scores", "", LEGEND, *markdown.table(head, rows)]) + "\n")


def draw_differences(comparisons: pd.DataFrame, path: Path) -> None:
    """A row of dots per method, one for each task: how much better than the best baseline, shown up to FARTHEST either way."""
    from matplotlib.figure import Figure

    methods = sorted(comparisons.method.unique())
    figure = Figure(figsize=(8, 1.5 + 0.5 * len(methods)), layout="constrained")
    axes = figure.subplots()
    for stamp, colour in COLOURS.items():
        rows = comparisons[comparisons.stamp == stamp]
        heights = [methods.index(name) + 0.6 * (k % 7 / 6 - 0.5) for k, name in enumerate(rows.method)]  # dots do not hide each other
        axes.scatter(rows.difference.clip(-FARTHEST, FARTHEST), heights, 14, colour, label=stamp, alpha=0.7)
    axes.set_yticks(range(len(methods)), methods)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("score less that of the best baseline of the task")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=120)
