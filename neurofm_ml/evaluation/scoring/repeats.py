"""Stimuli that repeat: recordings of a dataset that were shown the very same one, and how well their responses can be told from it.

Responses of several people are repeats as those of one person are, but that what is each one's own counts as noise: their ceiling is
that of a model of what people share (Hasson et al. 2004), and a lower bound of everybody's own.
"""

import math
from collections.abc import Iterable

import numpy as np

from neurofm_ml.evaluation.readouts.connectivity import standardised
from neurofm_ml.evaluation.statistics.ceilings import noise_ceiling
from neurofm_ml.evaluation.tasks.tasks import Case

#: Scores for which a ceiling is known.
METRICS = ("r2", "pearson")
#: Recordings of one stimulus from which a ceiling is taken.
LEAST_REPEATS = 3


def ceilings(cases: Iterable[Case]) -> dict[tuple[str, str, str], float]:
    """Key of each encoding case -> noise ceiling of its test block, where two others or more have the same stimulus at the same times, and
    it is surely above 0: of a ceiling that is not, a score says nothing."""
    shown: dict[tuple[str, ...], list[Case]] = {}
    for case in cases:
        if case.task.category == "encoding" and case.task.metric in METRICS:
            block = case.data.x["test"].tobytes(), case.data.times["test"].tobytes()
            shown.setdefault((case.dataset, case.task.name, *map(bytes.hex, block)), []).append(case)
    found = [(_ceiling(same), same) for same in shown.values() if len(same) >= LEAST_REPEATS]
    return {case.key: ceiling for ceiling, same in found if math.isfinite(ceiling) for case in same}


def _ceiling(same: list[Case]) -> float:
    """Of a single response, at the times that all know; NaN where it may be 0. Each response is standardised: whose moves most is no
    better a listener."""
    known = np.all([case.data.known["test"] for case in same], axis=0)
    responses = np.stack([standardised(case.data.y["test"][known]) for case in same])
    found = noise_ceiling(responses, same[0].task.metric)  # type: ignore[arg-type]
    return found.value if found.low > 0 else math.nan
