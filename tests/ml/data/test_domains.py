"""Domains of windows: places of species and subjects among classes that several datasets share."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from neurofm_ml.data import domains
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.data.domains import Domains, domains_of

SPECIES = {"a": "mouse", "b": "rat", "c": "mouse"}
SUBJECTS = {"a": ("m1", "m2", "m1", "held out"), "b": ("m1",), "c": ("m1",)}


@pytest.fixture
def shards(tmp_path, monkeypatch) -> list[Path]:
    """Three datasets, of two species, in which subjects have the same names; one subject has no training window."""
    monkeypatch.setattr(domains, "load_card", lambda path: SimpleNamespace(name=path.name, species=SPECIES[path.name]))
    for name, subjects in SUBJECTS.items():
        (tmp_path / name).mkdir()
        table = pd.DataFrame({"subject": subjects, "split": ["test" if s == "held out" else "train" for s in subjects]})
        table.to_parquet(tmp_path / name / "windows.parquet")
    return [tmp_path / name for name in SPECIES]


def sample(dataset: str, subject: str) -> dict[str, dict[str, str]]:
    return {"json": {"dataset": dataset, "subject": subject}}


def test_species_are_shared_by_datasets_and_subjects_are_not(shards):
    classes = domains_of(shards)
    assert classes == {"species": ("mouse", "rat"), "subject": ("a/m1", "a/m2", "b/m1", "c/m1")}
    found = Domains(SPECIES, classes)([sample("a", "m1"), sample("b", "m1"), sample("c", "m1"), sample("a", "held out")])
    assert {name: places.tolist() for name, places in found.items()} == {"species": [0, 1, 0, 0], "subject": [0, 2, 3, -1]}


def test_without_classes_nothing_is_told_apart():
    assert Domains({}, {})([sample("a", "m1")]) == {}


def test_a_union_keeps_the_places_in_use():
    one, other = (Vocabulary({}, (), {}, domains={"species": species}) for species in (("rat", "mouse"), ("cat", "rat")))
    assert one.union(other).domains == {"species": ("rat", "mouse", "cat")}
