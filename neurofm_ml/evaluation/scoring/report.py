"""The scores table to read: Markdown and one picture. Everything comes from the table; losses are shown like wins."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.scoring.scores import BASELINE

CASE = ["dataset", "recording", "task"]
#: An R2 has no lower bound; below this the picture is cut (the table is not).
LEAST_SHOWN = -0.5

LEGEND = """\
Each task in its own metric, on its test windows: the held-out last block of a recording, or recordings, sessions or people
that were held out whole. Everything is fitted on the training windows and tuned on the validation windows. 95 % intervals:
circular block bootstrap of a series, bootstrap of whole people and trials of labels. `control`: the same method on labels
rolled in time or exchanged, or, where fitting again is dear, on its own answers shifted or exchanged. `p`: against these.
The stamp is a paired test against the best baseline of the task, taken as the best on the test windows themselves.
"""


def write_markdown(table: pd.DataFrame, comparisons: pd.DataFrame, path: Path) -> None:
    """One line per task and method, best first."""
    stamps = {(r.dataset, r.recording, r.task, r.method): r for r in comparisons.itertuples()}
    head = ["dataset", "recording", "task", "metric", "method", "value [95 % interval]", "control", "p", "parameters", "train s", "stamp"]
    lines = ["# Scores", "", LEGEND, _line(head), _line(["---"] * len(head))]
    for r in table.sort_values([*CASE, "value"], ascending=[True, True, True, False]).itertuples():
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
        lines.append(_line([*cells, against]))
    path.write_text("\n".join(lines) + "\n")


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def draw_scores(table: pd.DataFrame, path: Path) -> None:
    """Bars with intervals, one group per task in its metric; baselines grey, ours coloured. The axis ends at LEAST_SHOWN."""
    from matplotlib.figure import Figure

    values = table.set_index([*CASE, "family", "method"])[["value", "ci_low", "ci_high"]].unstack(["family", "method"])
    names = sorted({(f, m) for f, m in zip(table.family, table.method, strict=True)}, key=lambda name: (name[0] != BASELINE, name))
    greys, colours = cycle(("0.85", "0.65", "0.45", "0.25")), cycle(("tab:blue", "tab:orange", "tab:green", "tab:purple"))
    figure = Figure(figsize=(2 + 0.25 * len(values) * max(len(names), 3), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / max(len(names), 1)
    for i, name in enumerate(names):
        value, low, high = (values[column][name].to_numpy() for column in ("value", "ci_low", "ci_high"))
        colour = next(greys if name[0] == BASELINE else colours)
        axes.bar(np.arange(len(values)) + i * width, value, width, yerr=[value - low, high - value], color=colour, label=name[1], capsize=2)
    axes.set_xticks(np.arange(len(values)) + 0.4 - width / 2, ["\n".join(case) for case in values.index], fontsize=6, rotation=30)
    axes.margins(x=0.01)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylabel("score on held-out windows, 95 % interval")
    axes.set_ylim(LEAST_SHOWN if (table.ci_low < LEAST_SHOWN).any() else None, 1.02)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)
