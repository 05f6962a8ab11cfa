"""Quality of recordings: numbers per recording and signal, the claims they support, what was recorded twice.

`measure` turns a recording into rows of numbers, `judge` a table of them into checks, `assess` is the job over both.
"""

from neurofm_ml.data.quality.job import assess
from neurofm_ml.data.quality.judge import judge
from neurofm_ml.data.quality.measure import as_table, measure, measure_series

__all__ = ["as_table", "assess", "judge", "measure", "measure_series"]
