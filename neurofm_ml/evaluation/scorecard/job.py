"""Job `write_scorecard`: the report of a size, made from tables alone.

report.html    everything, to click through
cards/*.md     one page per task
summary.parquet, targets.parquet, sources.parquet   what the pages say, to compute with
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.scorecard.cards import write_cards
from neurofm_ml.evaluation.scorecard.evidence import CASE, Evidence, gather
from neurofm_ml.evaluation.scorecard.page import write_page
from neurofm_ml.evaluation.scorecard.targets import judge
from neurofm_ml.evaluation.scoring.scores import STAMPS
from neurofm_ml.presets import ScorecardConfig
from neurofm_ml.types import Check, Report


def write_scorecard(cfg: ScorecardConfig, inputs: Mapping[str, Sequence[Path]], out: Path) -> Report:
    """Read the artifacts of each role (`gather`), write the report."""
    evidence = gather(inputs)
    targets, table = judge(evidence), evidence.summary
    write_page(f"NeuroFM {cfg.size}: what was scored", evidence, targets, out / "report.html")
    cards = write_cards(evidence, out / "cards")
    for name, rows in {"summary": table, "targets": targets, "sources": evidence.sources}.items():
        rows.to_parquet(out / f"{name}.parquet", index=False)
    verdicts = {v.replace(" ", "_"): int((table.verdict == v).sum()) for v in STAMPS}
    metrics = {"tasks": len(table[CASE].drop_duplicates()), "cards": len(cards), **verdicts}
    return Report(metrics, (_traceable(evidence, table),), {"report": "report.html", "table": "summary.parquet"})


def _traceable(evidence: Evidence, table: pd.DataFrame) -> Check:
    """Every artifact that a row names is among the sources, with a data version."""
    known = set(evidence.sources.fingerprint[evidence.sources.data_version.astype(bool)])
    lost = [not set(names.split()) <= known for names in table.fingerprints]
    return Check("every_number_is_traced", not any(lost), numbers={"rows": len(table), "untraced": int(np.sum(lost))}, threshold="0")
