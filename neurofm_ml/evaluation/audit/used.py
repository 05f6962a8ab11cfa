"""What a run used: the shards artifacts, with their card, windows and people."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.shards import Reader, read_index
from neurofm_ml.data.windows import read_channels, read_windows
from neurofm_ml.knowledge.cards import DatasetCard


@dataclass(frozen=True, eq=False)
class Used:
    """One shards artifact; `windows` is its table, with a row per window."""

    shards: Path

    @cached_property
    def card(self) -> DatasetCard:
        return load_card(self.shards)

    @cached_property
    def windows(self) -> pd.DataFrame:
        return read_windows(self.shards)

    @cached_property
    def channels(self) -> dict[str, dict[str, Any]]:
        return read_channels(self.shards)

    @cached_property
    def reader(self) -> Reader:
        return Reader(read_index(self.shards))

    @cached_property
    def people(self) -> pd.DataFrame:
        """Age and sex of each recording's subject, missing where unknown."""
        about = json.loads(self.reader.index.files.read("recordings.json"))
        rows = {name: {k: a["subject"][k] for k in ("age", "sex")} for name, a in about.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["age", "sex"])
