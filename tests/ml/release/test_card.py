"""The model card: what it says of what was lost."""

import pandas as pd

from neurofm_ml.evaluation.scoring.scores import LOSES, NO_VERDICT, TIES
from neurofm_ml.release.card import _limits


def test_comparisons_too_few_to_tell_are_told_and_not_counted() -> None:
    case = {"dataset": "toy", "recording": "a", "method": "fine_tuned", "baseline": "ridge", "value": 0.1, "baseline_value": 0.5}
    stamps = (LOSES, TIES, NO_VERDICT, NO_VERDICT)
    comparisons = pd.DataFrame([{**case, "task": f"t{k}", "stamp": stamp} for k, stamp in enumerate(stamps)])
    table = comparisons.assign(family="neurofmx")
    text = "\n".join(_limits(table, comparisons, []))
    assert "- 2 comparisons with the best tuned baseline rest on too few people or trials" in text
    assert "- 1 of 2 comparisons with the best tuned baseline are lost:" in text
