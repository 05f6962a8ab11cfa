"""What spikes show: rates, refractory periods, artefacts in all units at once, units sorted twice, bins that overlap.

Shapes: T bins, N units.
"""

from typing import Any

import numpy as np

from neurofm_ml.data.quality.pieces import pieces
from neurofm_ml.types import Array, SpikeTrain

#: Two spikes of one neuron are further apart than this.
REFRACTORY_S = 1e-3
#: Spikes closer than this are one event: an artefact when half of the units take part, a unit sorted twice when two do.
COINCIDENCE_S = 1e-3
LEAST_UNITS, ARTEFACT_UNITS = 8, 0.5
#: Steps that times may be rounded to, seconds, and the share of times that then lie on them.
GRIDS, ON_GRID = (1.0, 0.1, 0.01, 0.001), 0.95
#: Two units are one when the smaller shares this part of its spikes, of at least LEAST_SPIKES.
SAME_SPIKES, LEAST_SPIKES = 0.8, 50
#: Rows of counts that are compared with each other.
LOOKED_AT = 16_384
#: Bins are looked at for overlap up to this many, in blocks of so many rows, of which that share must agree; a unit is
#: asked in a block where it fires in so many bins.
MAX_OVERLAP, OVERLAP_ROWS, OVERLAP_VOTES, OVERLAP_LEAST = 32, 256, 0.9, 16


def train_numbers(train: SpikeTrain) -> tuple[dict[str, float], dict[str, Array]]:
    """Numbers of a train, and which units (N,) are silent or repeat an earlier one. Where times are coarser than a
    millisecond, what hangs on less is not told."""
    start, end = train.span
    spikes = np.bincount(train.unit_index, minlength=len(train.unit_ids))
    odd = {"silent": spikes == 0}
    numbers = {**_rates(spikes / max(end - start, 1e-9)), "resolution_s": resolution(train.times)}
    if not len(train.times) or numbers["resolution_s"] > COINCIDENCE_S:
        return numbers, odd
    fired = _events(train)
    active, n_firing = np.diff(fired.indptr), (spikes > 0).sum()
    if n_firing >= LEAST_UNITS:
        numbers["artefacts"] = float(active[active >= ARTEFACT_UNITS * n_firing].sum() / active.sum())
    return {**numbers, "refractory": _refractory(train, spikes)}, {**odd, "repeated": _repeated(fired)}


def resolution(times: Array) -> float:
    """Coarsest of the steps in GRIDS that times (n,) are rounded to, 0 for none; in the later half, because a text with
    five digits has a tenth of a second left after a thousand."""
    late = np.asarray(times[len(times) // 2 :])
    enough = len(late) >= LEAST_SPIKES
    on = (step for step in GRIDS if enough and np.mean(np.abs(late / step - np.round(late / step)) < 0.02) > ON_GRID)
    return next(on, 0.0)


def _refractory(train: SpikeTrain, spikes: Array) -> float:
    """Share of intervals below REFRACTORY_S in the unit that has most of them."""
    order = np.lexsort((train.times, train.unit_index))
    units, intervals = train.unit_index[order], np.diff(train.times[order])
    close = (intervals < REFRACTORY_S) & (np.diff(units) == 0)
    violations = np.bincount(units[1:][close], minlength=len(spikes))
    return float((violations / np.maximum(spikes, 1)).max(initial=0.0))


def _events(train: SpikeTrain) -> Any:
    """Sparse (n_events, N): which units take part in each event."""
    from scipy.sparse import csr_matrix

    bins = np.round((train.times - train.times[0]) / COINCIDENCE_S).astype(np.int64)
    _, rows = np.unique(bins, return_inverse=True)
    fired = csr_matrix((np.ones(len(rows)), (rows, train.unit_index)), shape=(rows.max(initial=-1) + 1, len(train.unit_ids)))
    fired.data[:] = 1.0
    return fired


def _repeated(fired: Any) -> Array:
    """(N,) units that share most spikes with an earlier one."""
    together = (fired.T @ fired).toarray()
    events = np.diagonal(together)
    least = np.minimum(events[:, None], events[None])
    return np.asarray(np.triu((together >= SAME_SPIKES * least) & (least >= LEAST_SPIKES), 1).any(axis=0))


def count_numbers(counts: Any, sfreq: float) -> tuple[dict[str, float], dict[str, Array]]:
    """Numbers of counts (T, N) per bin, and which units (N,) are silent or repeat an earlier one."""
    total, wrong = np.zeros(counts.shape[1]), 0
    for piece in pieces(counts):
        total += np.where(np.isfinite(piece), piece, 0).sum(axis=0)
        wrong += int(((piece < 0) | (piece != np.floor(piece))).sum())
    numbers = {**_rates(total / max(len(counts), 1) * sfreq), "not_counts": wrong / max(counts.size, 1)}
    few = np.asarray(counts[:LOOKED_AT])
    _, first, same = np.unique(few, axis=1, return_index=True, return_inverse=True)
    repeated = (first[same.ravel()] != np.arange(few.shape[1])) & ((few > 0).sum(axis=0) >= LEAST_SPIKES)
    return {**numbers, "overlap": overlap(few)}, {"silent": total == 0, "repeated": repeated}


def overlap(counts: Array) -> int:
    """Bins of the true width that each row sums: the largest W such that the rows (T, N) can be sums of W finer counts,
    moved by one each time; 1 when they do not overlap.

    A row that adds ``b[t + W]`` and drops ``b[t]`` differs from the last by ``b[t + W] - b[t]``; along every W-th row
    the b are therefore known up to their first W values, which must not be negative and sum to the first row.
    """
    blocks = [counts[start : start + OVERLAP_ROWS] for start in range(0, len(counts), OVERLAP_ROWS)]
    blocks = [block[:, (block > 0).sum(axis=0) >= OVERLAP_LEAST] for block in blocks if len(block) == OVERLAP_ROWS]
    blocks = [block for block in blocks if block.size]
    return next((width for width in range(MAX_OVERLAP, 1, -1) if blocks and _agree(blocks, width)), 1)


def _agree(blocks: list[Array], width: int) -> bool:
    """Whether OVERLAP_VOTES of all units in all blocks can be sums; no further than it takes to know."""
    may_fail = (1 - OVERLAP_VOTES) * sum(block.shape[1] for block in blocks)
    for block in blocks:
        may_fail -= int((~_sums(block, width)).sum())
        if may_fail < 0:
            return False
    return True


def _sums(block: Array, width: int) -> Array:
    """(N,) whether the rows of each unit can be sums of `width` counts that are not negative."""
    steps = np.diff(block.astype(np.float64), axis=0)
    least = sum(np.maximum(-np.cumsum(steps[k::width], axis=0).min(axis=0), 0) for k in range(width))
    return np.asarray(least <= block[0])


def _rates(rates: Array) -> dict[str, float]:
    """rates (N,) Hz."""
    return {
        "rate_min_hz": float(rates.min()),
        "rate_median_hz": float(np.median(rates)),
        "rate_max_hz": float(rates.max()),
    }
