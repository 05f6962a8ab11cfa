"""The report's interactive plots, as Plotly figures without colours of their own for paper and text: the page sets those."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.scorecard.evidence import CASE, Evidence, half_width, of_signals, rows_of
from neurofm_ml.evaluation.scoring.scores import BASELINE, BEATS, LOSES, NO_VERDICT, TIES
from neurofm_ml.metrics import SCORES
from neurofm_ml.types import Array

if TYPE_CHECKING:
    import plotly.graph_objects as go

GREYS = ("#9aa0a6", "#80868b", "#bdc1c6", "#5f6368", "#a8adb3", "#6f757b")
COLOURS = ("#1a73e8", "#e8710a", "#12a150", "#a142f4", "#d01884", "#00a3a3")
#: An R2 has no lower bound: plots are cut here, tables are not.
LEAST_SHOWN = -0.5
ROW_PX = 26


def figures(evidence: Evidence) -> Iterator[tuple[str, "go.Figure"]]:
    """(caption, figure) of every plot that has something to show."""
    table = evidence.summary
    for metric, what, part in _kinds(table):
        yield f"{what}: {metric} of every method, 95 % intervals; grey: tuned baselines", dots(part, metric)
    if len(evidence.comparisons):
        yield "Ours less the best baseline of the task, paired, 95 % intervals; right of the line is better", differences(table)
    for metric, what, part in _kinds(table):
        if len(part[CASE].drop_duplicates()) > 1:
            yield f"{what} as a map: {metric}, tasks by methods", heat_map(part, metric)
    for few, part in evidence.few_shot.groupby("metric", sort=False):
        yield f"Few-shot curves: mean {few} over tasks against labelled examples, interval over tasks", curves(part, str(few))
    for axis, part in evidence.transfer.groupby("axis", sort=False) if len(evidence.transfer) else ():
        yield f"Transfer between {axis}s: read out from rows, tested on columns, above chance; * is q < .05", matrix(part)
    if len(evidence.scaling):
        yield (
            "Scaling curves: validation loss of pretraining against shared parameters, and against compute; a dot per seed",
            scaling(evidence.scaling),
        )


def _kinds(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(metric, what is asked, rows); what is asked of signals themselves stands apart from tasks."""
    for metric, part in table.groupby("metric", sort=False):
        signals = of_signals(part)
        for what, rows in (("tasks", part[~signals]), ("forecasts and reconstructions", part[signals])):
            if len(rows):
                yield str(metric), what, rows


def names(table: pd.DataFrame) -> pd.Series:
    """dataset / recording / task of each row, recordings that are all of a dataset left out."""
    parts = [(r.dataset, *(() if r.recording in ("all", r.dataset) else (r.recording,)), r.task) for r in rows_of(table)]
    return pd.Series([" / ".join(part) for part in parts], index=table.index, dtype=object)


def colours(table: pd.DataFrame) -> dict[str, str]:
    """method -> colour: greys for baselines."""
    methods = table[["family", "method"]].drop_duplicates().sort_values(["family", "method"])
    grey = methods[methods.family == BASELINE].method
    own = methods[methods.family != BASELINE].method
    return {m: c[i % len(c)] for found, c in ((grey, GREYS), (own, COLOURS)) for i, m in enumerate(found)}


def dots(table: pd.DataFrame, metric: str) -> "go.Figure":
    """One line per task, one dot with its interval per method."""
    import plotly.graph_objects as go

    figure, label = go.Figure(), names(table)
    for method, colour in colours(table).items():
        rows = table[table.method == method]
        value = rows.value.clip(lower=LEAST_SHOWN)
        figure.add_scatter(
            x=value,
            y=label[rows.index],
            name=method,
            mode="markers",
            marker={"color": colour, "size": 9},
            error_x={
                "array": (rows.ci_high - value).clip(0),
                "arrayminus": (value - rows.ci_low).clip(upper=value - LEAST_SHOWN),
                "width": 0,
            },
            customdata=rows[["value", "ci_low", "ci_high", "control", "seeds", "fingerprints"]],
            hovertemplate=f"<b>{method}</b> %{{y}}<br>{metric} %{{customdata[0]:.3f}} [%{{customdata[1]:.3f}}, %{{customdata[2]:.3f}}]"
            "<br>control %{customdata[3]:.3f}, %{customdata[4]} seeds<br>artifact %{customdata[5]}<extra></extra>",
        )
    figure.update_layout(height=140 + ROW_PX * label.nunique(), xaxis_title=metric, yaxis={"automargin": True, "autorange": "reversed"})
    return figure


def differences(table: pd.DataFrame) -> "go.Figure":
    """Paired differences to the best baseline, coloured by verdict."""
    import plotly.graph_objects as go

    ours = table[table.difference.notna()].sort_values(CASE)
    label = names(ours) + " · " + ours.method
    figure = go.Figure()
    for verdict, colour in ((BEATS, "#12a150"), (TIES, "#9aa0a6"), (LOSES, "#d93025"), (NO_VERDICT, "#dadce0")):
        rows = ours[ours.verdict == verdict]
        shown = rows.difference.clip(lower=-1, upper=1)
        figure.add_scatter(
            x=shown,
            y=label[rows.index],
            name=verdict,
            mode="markers",
            marker={"color": colour, "size": 9},
            error_x={"array": (rows.difference_high - shown).clip(0), "arrayminus": (shown - rows.difference_low).clip(0), "width": 0},
            customdata=rows[["difference", "difference_low", "difference_high", "baseline"]],
            hovertemplate="%{y}<br>%{customdata[0]:+.3f} [%{customdata[1]:+.3f}, %{customdata[2]:+.3f}] against %{customdata[3]}<extra></extra>",
        )
    figure.add_vline(x=0, line_width=1)
    figure.update_layout(height=140 + ROW_PX * len(ours), xaxis_title="difference", yaxis={"automargin": True, "autorange": "reversed"})
    return figure


def heat_map(table: pd.DataFrame, metric: str) -> "go.Figure":
    """Tasks by methods."""
    import plotly.graph_objects as go

    grid = table.assign(case=names(table)).pivot_table(index="case", columns="method", values="value", sort=False)
    low, high = max(LEAST_SHOWN, float(np.nanmin(grid.to_numpy()))), float(np.nanmax(grid.to_numpy()))
    score = SCORES[metric]
    text = grid.map(lambda v: "" if np.isnan(v) else f"{v:.2f}")
    figure = go.Figure(
        go.Heatmap(
            z=grid,
            x=grid.columns,
            y=grid.index,
            text=text,
            texttemplate="%{text}",
            colorscale="Viridis_r" if score.lower_is_better else "Viridis",
            zmin=low,
            zmax=min(score.most, high),
        )
    )
    figure.update_layout(height=160 + ROW_PX * len(grid), yaxis={"automargin": True, "autorange": "reversed"})
    return figure


def curves(table: pd.DataFrame, metric: str) -> "go.Figure":
    """Mean over tasks against examples; the interval is that of tasks."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for method, colour in colours(table).items():
        rows = table[(table.method == method) & table.k_shot.notna()]
        per_task = rows.groupby([*CASE, "k_shot"]).value.mean().unstack("k_shot")
        mean, half = per_task.mean(), per_task.apply(lambda values: half_width(values.dropna()))
        figure.add_scatter(x=mean.index, y=mean, name=method, mode="lines+markers", marker_color=colour, error_y={"array": half.fillna(0)})
    figure.update_layout(height=420, xaxis={"type": "log", "title": "labelled examples (K)"}, yaxis_title=metric)
    return figure


def scaling(cells: pd.DataFrame) -> "go.Figure":
    """Loss of every cell against its size on either measure, and the mean over seeds."""
    from plotly.subplots import make_subplots

    measures = {"parameters": "parameters", "flops": "FLOPs of training"}
    figure = make_subplots(rows=1, cols=len(measures), shared_yaxes=True)
    for k, (name, title) in enumerate(measures.items(), 1):
        mean = cells.groupby(name).loss.mean()
        figure.add_scatter(x=cells[name], y=cells.loss, mode="markers", marker_color=GREYS[0], showlegend=False, row=1, col=k)
        figure.add_scatter(x=mean.index, y=mean, mode="lines+markers", marker_color=COLOURS[0], showlegend=False, row=1, col=k)
        figure.update_xaxes(type="log", title=title, row=1, col=k)
    figure.update_layout(height=420, yaxis_title="validation loss")
    return figure


def matrix(cells: pd.DataFrame) -> "go.Figure":
    """Sources by targets, what lies above chance, several tasks of a pair averaged; starred where each is found."""
    import plotly.graph_objects as go

    ends = sorted({*cells.source, *cells.target})
    above = cells.assign(value=cells.value - cells.chance)
    value, q = _grid(above, "value", "mean", ends), _grid(above, "q", "max", ends)
    text = [[_cell(v, s) for v, s in zip(row, sure, strict=True)] for row, sure in zip(value, q, strict=True)]
    largest = max(float(np.nanmax(np.abs(np.clip(value, LEAST_SHOWN, 1)))), 0.1)
    figure = go.Figure(
        go.Heatmap(z=value, x=ends, y=ends, text=text, texttemplate="%{text}", colorscale="RdBu", zmid=0, zmin=-largest, zmax=largest)
    )
    figure.update_layout(height=220 + ROW_PX * len(ends), yaxis={"automargin": True, "autorange": "reversed"}, xaxis={"automargin": True})
    return figure


def _grid(cells: pd.DataFrame, name: str, joined: Literal["mean", "max"], ends: list[str]) -> Array:
    found = cells.pivot_table(index="source", columns="target", values=name, aggfunc=joined)
    return found.reindex(index=ends, columns=ends).to_numpy(float)


def _cell(value: float, q: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}{'*' if q < 0.05 else ''}"
