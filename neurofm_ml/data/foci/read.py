"""Corpora by name or card."""

from collections.abc import Callable, Mapping
from pathlib import Path

from neurofm_ml.data.foci import neurosynth, nimare, sleuth
from neurofm_ml.knowledge.corpora import CorpusCard, corpora, corpus_files
from neurofm_ml.types import Foci

#: What reads the file of a corpus, by the `reader` of its card.
READERS: Mapping[str, Callable[[Path], Foci]] = {
    "nimare_tables": nimare.read_tables,
    "nimare_json": nimare.read_json,
    "sleuth": sleuth.read_sleuth,
    "neurosynth": neurosynth.read_neurosynth,
}


def read_foci(corpus: str) -> Foci:
    """Every peak of a corpus, in its order. Direction is the sign of the peak's statistic, where one is given."""
    return read_corpus(corpora()[corpus])


def read_corpus(card: CorpusCard) -> Foci:
    files = corpus_files(card)
    if not files:
        remedy = (
            f"install the {card.package} of constraints.txt" if card.package else f"get it from {card.source} and point NEUROFM_DATA at it"
        )
        raise ValueError(f"the corpus {card.name!r} is not here ({card.root}/{card.file}); {remedy}.")
    return READERS[card.reader](files[0])
