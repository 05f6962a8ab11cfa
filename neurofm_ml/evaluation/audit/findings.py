"""One row of leaks.parquet, and which check it belongs to."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

import pandas as pd

Kind = Literal["recording", "session", "subject", "family", "site", "time", "window", "person", "scaler"]
#: Check -> the kinds of findings that make it fail.
CLAIMS: dict[str, tuple[Kind, ...]] = {
    "no_recording_in_two_splits": ("recording",),
    "no_session_in_two_splits": ("session",),
    "no_subject_in_two_splits": ("subject", "person"),
    "no_family_in_two_splits": ("family",),
    "no_site_in_two_splits": ("site",),
    "no_time_overlap": ("time",),
    "no_window_repeated": ("window",),
    "scaler_is_of_training_windows": ("scaler",),
}


@dataclass(frozen=True)
class Side:
    """One side of a finding: what stands in which split. `who` is the unit that is shared, `window` an example's key."""

    dataset: str
    split: str
    recording: str = ""
    who: str = ""
    window: str = ""


@dataclass(frozen=True)
class Finding:
    """A leak: `windows` of side b are touched by it; `value` is what was measured, and `evidence` says so in words."""

    kind: Kind
    a: Side
    b: Side
    windows: int
    value: float
    evidence: str

    def __str__(self) -> str:
        sides = (" ".join(filter(None, (s.dataset, s.split, s.recording or s.who))) for s in (self.a, self.b))
        return f"{' and '.join(sides)}: {self.evidence}"


def table(findings: Sequence[Finding]) -> pd.DataFrame:
    """leaks.parquet: a row per finding, typed even where there is none."""
    sides = [f"{f.name}_{side}" for side in "ab" for f in fields(Side)]
    rows = [
        {"kind": f.kind, **{f"{k}_{n}": v for n, side in (("a", f.a), ("b", f.b)) for k, v in asdict(side).items()}}
        | {"windows": f.windows, "value": f.value, "evidence": f.evidence}
        for f in findings
    ]
    made = pd.DataFrame(rows, columns=["kind", *sides, "windows", "value", "evidence"])
    return made.astype({"kind": str, **dict.fromkeys(sides, str), "windows": int, "value": float, "evidence": str})
