"""Scorecards: one Markdown page per task, every line of which names the artifact it comes from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from neurofm_ml import markdown
from neurofm_ml.evaluation.scorecard.evidence import CASE, Evidence, rows_of
from neurofm_ml.evaluation.scorecard.figures import names
from neurofm_ml.evaluation.scoring.scores import BASELINE, best_first

HEAD = ("method", "value [95 %]", "seeds", "control", "p", "against the best baseline", "parameters", "train s", "samples/s", "artifact")


def write_cards(evidence: Evidence, folder: Path) -> list[Path]:
    """``<dataset>-<recording>-<task>.md`` of every task."""
    folder.mkdir(parents=True, exist_ok=True)
    table, written = evidence.summary, []
    for key, rows in table.groupby(CASE, sort=True):
        path = folder / f"{'-'.join(str(part) for part in key).replace('/', '_')}.md"
        path.write_text("\n".join(_card(rows, evidence)) + "\n")
        written.append(path)
    return written


def _card(rows: pd.DataFrame, evidence: Evidence) -> Iterator[str]:
    first = rows.iloc[0]
    yield f"# {names(rows).iloc[0]}\n"
    yield f"{first.species}, read from {first.modality}; {first.metric} on {first.n:.0f} rows that nothing was fitted or chosen on."
    if pd.notna(first.noise_ceiling):
        yield f"Noise ceiling {first.noise_ceiling:.3f}."
    yield ""
    yield from markdown.table(HEAD, [_cells(r) for r in rows_of(best_first(rows))])
    yield "\n## Where the numbers come from\n"
    used = {name for names_ in rows.fingerprints for name in names_.split()}
    sources = with_ancestors(evidence.sources, used)
    shown = ["asset", "partition", "fingerprint", "data_version", "code", "finished"]
    yield from markdown.table(shown, sources[shown].to_numpy().tolist())


def _cells(r: Any) -> list[str]:
    value = f"{r.value:.3f} [{r.ci_low:.3f}, {r.ci_high:.3f}]"
    return [
        f"{r.method}{' (baseline)' if r.family == BASELINE else ''}", value, f"{r.seeds}", f"{r.control:.3f}", f"{r.p:.2g}", verdict(r),
        f"{r.parameters:,}", f"{r.train_seconds:.1f}", f"{r.samples_per_second:,.0f}", f"{r.fingerprints}",
    ]  # fmt: skip


def verdict(r: Any) -> str:
    """The stamp of a row of the summary, with the difference it rests on."""
    if not isinstance(r.verdict, str):
        return ""
    return f"{r.verdict} ({r.baseline}: {r.difference:+.3f} [{r.difference_low:+.3f}, {r.difference_high:+.3f}])"


def with_ancestors(sources: pd.DataFrame, fingerprints: set[str]) -> pd.DataFrame:
    """The named artifacts and all they were made from."""
    made_from = dict(zip(sources.fingerprint, sources.made_from, strict=True))
    wanted, waiting = set(), [*fingerprints]
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += made_from.get(name, "").split()
    return sources[sources.fingerprint.isin(wanted)]
