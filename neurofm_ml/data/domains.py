"""Domains of windows, which a discriminator tells apart: the species, and the subject that was recorded.

Shapes: B windows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.windows import read_windows


def domains_of(shards: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Domain -> the classes that training windows have: species by name, subjects as ``dataset/subject``."""
    subjects = []
    for path in shards:
        table = read_windows(path)
        subjects += [f"{load_card(path).name}/{subject}" for subject in table.loc[table.split == "train", "subject"].unique()]
    return {"species": tuple(dict.fromkeys(load_card(path).species for path in shards)), "subject": tuple(subjects)}


class Domains:
    """The domains of samples, as places among the `classes` that are named; `species` says what each dataset recorded."""

    def __init__(self, species: Mapping[str, str], classes: Mapping[str, tuple[str, ...]]) -> None:
        self.species = species
        self.places = {name: {c: i for i, c in enumerate(found)} for name, found in classes.items()}

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Domain -> (B,) int64, -1 for a class that is not named."""
        named = [self._names(sample["json"]) for sample in samples] if self.places else []
        return {name: torch.tensor([places.get(names[name], -1) for names in named]) for name, places in self.places.items()}

    def _names(self, about: Mapping[str, Any]) -> dict[str, str]:
        return {"species": self.species[about["dataset"]], "subject": f"{about['dataset']}/{about['subject']}"}
