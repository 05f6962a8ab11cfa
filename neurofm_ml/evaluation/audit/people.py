"""People who stand in two splits under two names: known by the connectome of their scans (Finn et al. 2015, Nat Neurosci 18:1664)."""

from collections.abc import Iterator, Sequence

import numpy as np

from neurofm_ml.data.duplicates import LEAST_REGIONS, MARGIN, Sketch, persons
from neurofm_ml.data.shards import Reader
from neurofm_ml.evaluation.audit.findings import Finding, Side
from neurofm_ml.evaluation.audit.units import PROMISED
from neurofm_ml.evaluation.audit.used import Used
from neurofm_ml.knowledge.pools import pooled_together
from neurofm_ml.presets import SPLITS
from neurofm_ml.types import Array

#: What joins dataset, name and split in the names of a sketch.
SEPARATOR = "\0"


def same_people(used: Sequence[Used]) -> list[Finding]:
    """One finding per pair of people whose scans resemble each other more than either resembles anyone else."""
    sketches = [sketch for one in used for sketch in _sketches(one)]
    kinds = {one.card.name: one.card.split.kind for one in used}
    found: dict[tuple[Side, Side], Finding] = {}
    for parcels in {s.signal for s in sketches}:
        for repeat in persons([s for s in sketches if s.signal == parcels]):
            sides = [_side(*names) for names in zip((repeat.a, repeat.b), repeat.subjects, strict=True)]
            a, b = sorted(sides, key=lambda side: SPLITS.index(side.split))
            apart = a.split != b.split or pooled_together(a.dataset, b.dataset)  # whose sites are left out by turns
            if apart and "subject" in PROMISED[kinds[b.dataset]]:
                evidence = f"{a.who!r} and {b.who!r} look like one person (margin {repeat.likeness:.2f}; strangers stay below {MARGIN:g})"
                found[a, b] = Finding("person", a, b, 0, repeat.likeness, evidence)
    return list(found.values())


def _side(recording: str, subject: str) -> Side:
    dataset, name, split = recording.split(SEPARATOR)
    return Side(dataset, split, name, who=subject.split(SEPARATOR)[1])


def _sketches(used: Used) -> Iterator[Sketch]:
    """One of each recording with enough regions; `signal` says which parcels."""
    channels = next(iter(used.channels.values()))
    for name in (n for n, about in channels.items() if about["modality"] == "fmri" and len(about["ch_names"]) >= LEAST_REGIONS):
        reader = Reader(used.reader.index, fields=[name])
        parcels = SEPARATOR.join(channels[name]["ch_names"])
        for (recording, subject, split), rows in used.windows.groupby(["recording", "subject", "split"], sort=False):
            windows = [reader.sample(reader.index.row_of[key]).get(name) for key in rows.key]
            names = SEPARATOR.join((used.card.name, str(recording), str(split))), SEPARATOR.join((used.card.name, str(subject)))
            connectome = _connectome([w for w in windows if w is not None])
            if connectome is not None:
                nothing = np.empty(0)
                yield Sketch(*names, parcels, len(channels[name]["ch_names"]), 0.0, nothing, nothing, nothing, connectome)


def _connectome(windows: list[Array]) -> Array | None:
    """Fisher z of the correlations between all pairs of regions, over windows (T, C); None where a region is missing."""
    if not windows or len({w.shape[1] for w in windows}) > 1:
        return None
    total = np.zeros((windows[0].shape[1],) * 2)
    for values in windows:
        x = values.astype(np.float64)
        std = x.std(axis=0)
        z = (x - x.mean(axis=0)) / np.where(std > 0, std, np.inf)
        total += z.T @ z / len(z)
    upper = np.triu_indices(len(total), 1)
    return np.arctanh(np.clip(total[upper] / len(windows), -0.999, 0.999)).astype(np.float32)
