"""Recordings, sessions, people, families and sites that stand in two splits where the split promises that they do not.

What is promised to a split that is judged later is what the card of that dataset says: the test split of a dataset divided
by subject holds people whom nothing was trained on, whichever dataset of the run they stood in; those of datasets that are
pooled may not meet at all, since each site is left out once. Across datasets a name
means the same only under the same source, or, for people, with the same age and sex; a site is a site.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import pandas as pd

from neurofm_ml.evaluation.audit.findings import Finding, Kind, Side
from neurofm_ml.evaluation.audit.used import Used
from neurofm_ml.knowledge.pools import pooled_together
from neurofm_ml.presets import SPLITS

#: Kind of split -> what it keeps whole. Twins are no strangers to each other.
PROMISED: dict[str, tuple[Kind, ...]] = {
    "block": (),
    "recording": ("recording",),
    "session": ("recording", "session"),
    "subject": ("recording", "subject", "family"),
    "family": ("recording", "subject", "family"),
    "site": ("recording", "subject", "site"),
}
#: Unit -> columns that say who it is: within a dataset, then across datasets.
WITHIN: dict[Kind, tuple[str, ...]] = {unit: ("dataset", unit) for unit in ("recording", "session", "subject", "family", "site")}
ACROSS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("recording", ("source", "species", "subject", "recording")),
    ("session", ("source", "species", "subject", "session")),
    ("subject", ("source", "species", "subject")),
    ("subject", ("species", "subject", "age", "sex")),
    ("family", ("source", "species", "family")),
    ("site", ("site_name",)),
)


def shared_units(used: Sequence[Used]) -> list[Finding]:
    """One finding per unit and pair of splits (of one dataset or of two) that may not share it."""
    rows = pd.concat([_rows(one) for one in used], ignore_index=True)
    kinds = {one.card.name: one.card.split.kind for one in used}
    within = [f for unit, columns in WITHIN.items() for f in _shared(rows, kinds, unit, columns, same=True)]
    across = [f for unit, columns in ACROSS for f in _shared(rows, kinds, unit, columns, same=False)]
    return list({(f.kind, f.a, f.b): f for f in (*within, *across)}.values())


def _rows(used: Used) -> pd.DataFrame:
    """Distinct (recording, session, subject, family, site, split) of a dataset, with the number of windows, and who they are."""
    card, units = used.card, ["recording", "session", "subject", "family", "site", "split"]
    rows = used.windows.groupby(units, dropna=False, sort=False).size().rename("windows").reset_index()
    rows = rows.join(used.people, on="recording")
    return rows.assign(
        dataset=card.name, source=card.source, species=card.species, site_name=rows.site.astype("string").str.strip().str.casefold()
    )


def _shared(rows: pd.DataFrame, kinds: Mapping[str, str], unit: Kind, columns: tuple[str, ...], same: bool) -> Iterator[Finding]:
    """Units, told apart by `columns`, in two splits of one dataset (`same`) or of two."""
    places: dict[tuple[str, ...], Counter[tuple[str, str]]] = {}
    known = rows.dropna(subset=list(columns))
    for *names, dataset, split, n in known[[*columns, "dataset", "split", "windows"]].itertuples(index=False, name=None):
        who = tuple(names)
        places.setdefault(who, Counter())[str(dataset), str(split)] += int(n)
    for who, windows in places.items():
        for a, b in combinations(sorted(windows, key=lambda place: SPLITS.index(place[1])), 2):
            apart = a[1] != b[1] or pooled_together(a[0], b[0])
            if apart and (a[0] == b[0]) is same and unit in PROMISED[kinds[b[0]]]:
                evidence = f"one {unit} in both ({', '.join(f'{c} {w}' for c, w in zip(columns, who, strict=True))})"
                name = str(who[columns.index(unit)]) if unit in columns else str(who[-1])
                yield Finding(unit, Side(*a, who=name), Side(*b, who=name), windows[b], float(windows[b]), evidence)
