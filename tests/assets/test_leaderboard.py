"""The leaderboard: what counts for the share of tasks won or tied."""

import runpy
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from neurofm_ml.evaluation.scoring.scores import BEATS, LOSES, NO_VERDICT, TIES

LEADERBOARD = Path(__file__).parents[2] / "benchmarks" / "leaderboard.py"


def test_what_is_too_few_to_tell_is_not_counted_and_forecasts_stand_apart() -> None:
    said = {
        "velocity": BEATS,
        "state": LOSES,
        "diagnosis": NO_VERDICT,
        "lfp_in_1s": LOSES,
        "lfp_reconstruction": TIES,
        "lfp_in_0.1s": LOSES,
    }
    rows = [{"task": f"toy/all/{task}", "!": verdict} for task, verdict in said.items()]
    found = runpy.run_path(str(LEADERBOARD))["shares"](rows)
    assert found == {"all": (2 / 5, 5), "tasks": (1 / 2, 2), "forecasts and reconstructions": (pytest.approx(1 / 3), 3)}


def test_results_stand_in_the_order_they_were_asked_for() -> None:
    """What is made from them is found again, whichever was ready first."""
    cells = runpy.run_path(str(LEADERBOARD))["cells"]
    waits = {"long": 0.2, "short": 0.0}
    with ThreadPoolExecutor(2) as pool:
        found = cells(pool, {name: (lambda s: time.sleep(s) or s, s) for name, s in waits.items()}, "toy")
    assert list(found.items()) == list(waits.items())
