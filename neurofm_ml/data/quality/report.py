"""The quality table for people: what failed and what to do, what was measured, one picture of the numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml import markdown
from neurofm_ml.data.quality.judge import TWICE, Claim
from neurofm_ml.types import Check

#: Panels in a row, and recordings whose names fit below one.
ACROSS, NAMES_FIT = 4, 12
#: Numbers of the summary, each the worst of a signal's recordings.
SUMMARY = ("missing", "flat", "clipped", "noisy", "line_share", "rate_max_hz", "jumps", "longest_gap_s")


def write_markdown(table: pd.DataFrame, checks: Sequence[Check], claims: Sequence[Claim], path: Path) -> None:
    """A row per failed check with its worst offenders and what to do, then a row per signal."""
    remedies = {claim.name: claim.remedy for claim in claims} | dict.fromkeys(("no_recording_is_repeated", "no_person_is_repeated"), TWICE)
    failed = sorted((c for c in checks if not c.passed), key=lambda c: c.severity)
    lines = [f"{len(checks) - len(failed)} of {len(checks)} checks pass.", ""]
    if failed:
        rows = [(c.name, _weight(c), c.note, c.threshold, remedies.get(c.name, "")) for c in failed]
        lines += [*markdown.table(("check", "", "found", "allowed", "what to do"), rows), ""]
    path.write_text("\n".join([*lines, *_summary(table)]) + "\n")


def _weight(check: Check) -> str:
    return "**blocks**" if check.severity == "error" else "warns"


def _summary(table: pd.DataFrame) -> list[str]:
    """One line per signal: how many, how much, and the worst of each number that was measured anywhere."""
    shown = [name for name in SUMMARY if table[name].notna().any()]
    lines = []
    for name, rows in table[table.kind != "Intervals"].groupby("signal", sort=False):
        rates = "/".join(f"{hz:g}" for hz in sorted(rows.sfreq.dropna().unique())[:3])
        worst = ("" if np.isnan(rows[n].max()) else f"{rows[n].max():.3g}" for n in shown)
        hours = (rows.end_s - rows.start_s).sum() / 3600
        lines.append((name, rows.modality.iloc[0], len(rows), f"{hours:.3g}", _span(rows.n_chans), rates, *worst))
    return markdown.table(("signal", "modality", "recordings", "hours", "channels", "Hz", *shown), lines)


def _span(values: "pd.Series[int]") -> str:
    return f"{values.min()}" if values.min() == values.max() else f"{values.min()}-{values.max()}"


def draw(claims: Sequence[Claim], table: pd.DataFrame, path: Path) -> None:
    """One panel per claim that is not far from its limit."""
    from matplotlib.figure import Figure

    shown = [c for c in claims if (c.values > 0.01 * c.limit).any()]
    across = min(max(len(shown), 1), ACROSS)
    rows = -(-max(len(shown), 1) // across)
    figure = Figure(figsize=(3.1 * across, 2.1 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, across, squeeze=False).ravel()
    names = table.recording.unique()
    for axes, claim in zip(panels, shown, strict=False):
        _panel(axes, claim, table.recording, {name: i for i, name in enumerate(names)})
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.supxlabel(f"{len(names)} recordings", fontsize="small")
    figure.savefig(path, dpi=100)


def _panel(axes: Any, claim: Claim, recording: "pd.Series[str]", place: Mapping[str, int]) -> None:
    """A dot per recording, in order; the limit dashed, what is over it red, the worst named."""
    values = claim.values.dropna()
    x, over = recording[values.index].map(place), values > claim.limit
    axes.plot(x[~over], values[~over], ".", color="0.3", markersize=3)
    axes.plot(x[over], values[over], ".", color="tab:red", markersize=5)
    for i in values[over].nlargest(1).index:
        axes.annotate(recording[i], (x[i], values[i]), fontsize=5, color="tab:red", xytext=(2, 2), textcoords="offset points")
    axes.axhline(claim.limit, color="tab:red", linewidth=0.7, linestyle="--")
    axes.set_title(claim.name, fontsize="small", color="tab:red" if over.any() else "black")
    axes.set_ylabel(fill(claim.what, 26), fontsize=6)
    axes.set_xlim(-0.5, len(place) - 0.5)
    axes.tick_params(labelsize=6)
    if len(place) <= NAMES_FIT:
        axes.set_xticks(range(len(place)), list(place), rotation=30, ha="right", fontsize=5)
