"""Corpora of activation coordinates: what each is, where its file lies, how many studies and peaks it must hold.

One YAML file per card: the package's stand in ``knowledge/corpora``, a user's in the folder ``corpora`` of ``NEUROFM_CARDS``. How they
are read is the business of ``neurofm_ml.data.foci``.
"""

from dataclasses import field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.knowledge.cards import NAME, ArchiveSpec
from neurofm_ml.knowledge.roots import check_inside, check_root, data_root
from neurofm_ml.knowledge.yaml_cards import cards_of, mistakes_in
from neurofm_ml.registry import Registry


@config
class CorpusCard:
    """One corpus. `file` lies under `root`, which is under NEUROFM_DATA, or in the installed package `package` where one is named.

    `beside` are further files there that its reader looks at. `expected` holds studies, contrasts and peaks, which the file must show.
    """

    name: str
    title: str
    licence: str
    source: str
    root: str = ""
    package: str = ""
    file: str
    reader: Literal["nimare_tables", "nimare_json", "sleuth", "neurosynth"]
    beside: tuple[str, ...] = ()
    redistribute: bool = False
    citation: str = ""
    notes: str = ""
    archive: ArchiveSpec | None = None
    expected: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name for a corpus; use a-z, 0-9 and _.")
        if unknown := sorted(set(self.expected) - {"studies", "contrasts", "peaks"}):
            raise ValueError(f"expected names {', '.join(unknown)}; the numbers of a corpus are studies, contrasts and peaks.")
        check_root(self.root)
        for name in (self.file, *self.beside):
            check_inside("file", name)
        if self.package and not self.package.isidentifier():
            raise ValueError(f"package is {self.package!r}; name an installed package, without dots.")


def corpora() -> Registry[CorpusCard]:
    """Every corpus: the package's cards, then those of the folder ``corpora`` in NEUROFM_CARDS."""
    return cards_of(CorpusCard, "corpus", "corpora")


def mistakes() -> tuple[str, ...]:
    """What is wrong with the user's cards of corpora that were left out."""
    return mistakes_in(CorpusCard, "corpus", "corpora")


def corpus_files(card: CorpusCard) -> list[Path]:
    """The files of a corpus, that with the peaks first; [] where one is not here."""
    folder = _package_root(card) if card.package else data_root(card)
    files = [folder / name for name in (card.file, *card.beside)] if folder else []
    return files if all(file.exists() for file in files) else []


def _package_root(card: CorpusCard) -> Path | None:
    """Found without importing the package, which may take seconds."""
    found = find_spec(card.package)
    return Path(found.origin).parent / card.root if found and found.origin else None
