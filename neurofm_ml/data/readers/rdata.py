"""R's saved objects (``.RData``, ``.rda``, ``.rds``) through pyreadr. The home of pyreadr.

R's serialisation is decoded as data; no R code runs. Data frames, matrices and vectors are read; lists, functions and
S4 objects are not.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".rda", ".rdata", ".rds")


def read_rdata(path: Path) -> "dict[str, pd.DataFrame]":
    """Every object of a file by its name ("" for the one of an ``.rds``); a matrix keeps its row names as the index.

    Raises ValueError for a file that is damaged or that holds nothing but lists, functions and the like.
    """
    return _objects(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _objects(path: Path, _changed: int) -> "dict[str, pd.DataFrame]":
    """Kept until the file changes: recordings that are rows of one table read it one after another."""
    import warnings

    import pyreadr

    try:
        with warnings.catch_warnings(action="ignore"):
            objects = pyreadr.read_r(path)
    except (pyreadr.PyreadrError, pyreadr.LibrdataError) as error:
        raise ValueError(f"{path} cannot be read as R data ({error}); it is damaged, cut short or another format: get it again.") from None
    if not objects:
        raise ValueError(f"{path} holds no data frame, matrix or vector; save one of them in R: save(frame, file = 'frame.rda').")
    return {name or "": frame for name, frame in objects.items()}
