"""Job `audit`: whether what a run was judged on was hidden from what it learned.

The splits that stand in the shards are judged, not the plan they were made by: who is in them, when, and what their windows
hold. Windows are streamed; of each a trace is kept (about two kilobytes).

leaks.parquet   one row per finding
audit.md        the checks, and the findings in words
"""

from collections.abc import Sequence
from pathlib import Path

from neurofm_ml import markdown
from neurofm_ml.evaluation.audit.findings import CLAIMS, Finding, table
from neurofm_ml.evaluation.audit.people import same_people
from neurofm_ml.evaluation.audit.scalers import wrong_scalers
from neurofm_ml.evaluation.audit.times import overlaps
from neurofm_ml.evaluation.audit.traces import read_traces
from neurofm_ml.evaluation.audit.units import shared_units
from neurofm_ml.evaluation.audit.used import Used
from neurofm_ml.evaluation.audit.windows import equal_windows, repeated_windows
from neurofm_ml.presets import AuditConfig
from neurofm_ml.types import Check, Report

#: Findings that a check names; leaks.parquet has all.
NAMED = 3


def audit(cfg: AuditConfig, shards: list[Path], scaler: list[Path], out: Path) -> Report:
    """Look for leaks in everything that a run was pretrained, adapted and scored on. Every check blocks."""
    used = [Used(folder) for folder in shards]
    findings = find_leaks(cfg, used, scaler)
    windows = sum(len(one.windows) for one in used)
    checks = tuple(_check(cfg, name, [f for f in findings if f.kind in kinds], windows) for name, kinds in CLAIMS.items())
    table(findings).to_parquet(out / "leaks.parquet", index=False)
    (out / "audit.md").write_text(_text(used, checks, findings))
    return Report(
        {"datasets": len(used), "windows": windows, "leaks": len(findings)}, checks, {"leaks": "leaks.parquet", "audit": "audit.md"}
    )


def find_leaks(cfg: AuditConfig, used: Sequence[Used], scaler: Sequence[Path]) -> list[Finding]:
    """All findings, surest first."""
    traces = [trace for one in used for trace in read_traces(one)]
    return [
        *shared_units(used),
        *same_people(used),
        *overlaps(used),
        *equal_windows(used),
        *repeated_windows(cfg, traces),
        *wrong_scalers(used, scaler, cfg.most_offset),
    ]


def _check(cfg: AuditConfig, name: str, found: Sequence[Finding], windows: int) -> Check:
    numbers = {"found": len(found), "windows": windows}
    if found:
        numbers["windows_touched"] = sum(f.windows for f in found)
    threshold = {
        "no_time_overlap": "0 pairs closer than the card's gap_s",
        "no_window_repeated": f"0 pairs with r >= {cfg.least_r:g} and {cfg.least_surprise:g} deviations or more",
        "scaler_is_of_training_windows": f"0 scalers off by more than {cfg.most_offset:g} deviations, or fitted on other rows",
    }.get(name, "0")
    note = "; ".join(map(str, found[:NAMED]))
    return Check(name, not found, numbers=numbers, threshold=threshold, note=note)


def _text(used: Sequence[Used], checks: Sequence[Check], findings: Sequence[Finding]) -> str:
    """audit.md"""
    read = markdown.table(("dataset", "split", "windows"), [(one.card.name, one.card.split.kind, len(one.windows)) for one in used])
    said = [(c.name, "yes" if c.passed else "NO", f"{c.numbers['found']:g}", c.threshold) for c in checks]
    judged = markdown.table(("check", "passed", "found", "allowed"), said)
    found = [f"- **{f.kind}** {f}" for f in findings] or ["None."]
    lines = ["# Leakage audit", "", *read, "", *judged, "", "## Findings", "", *found]
    return "\n".join(lines) + "\n"
