"""``python -m neurofm_ml.data``: which datasets, tables and corpora there are, and fetching one from its archive.

Exit codes: 0 done, 1 it may work later (network, disk), 2 the call is wrong, 130 stopped by the user.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from neurofm_ml.data.sources import SOURCES, fetch
from neurofm_ml.knowledge import cards, corpora, tables
from neurofm_ml.knowledge.cards import ArchiveSpec, DatasetCard, datasets
from neurofm_ml.knowledge.corpora import CorpusCard, corpus_files
from neurofm_ml.knowledge.files import is_here, raw_files
from neurofm_ml.knowledge.roots import data_root
from neurofm_ml.knowledge.tables import TableCard, table_files
from neurofm_ml.registry import Registry

Card = DatasetCard | TableCard | CorpusCard
_HEADER = ("name", "modalities", "species", "GB", "licence", "here")
_WIDEST = 34


def main(argv: Sequence[str]) -> int:
    """Run one command; what the user can mend is one line on standard error."""
    args = _parser().parse_args(argv)
    try:
        if args.command == "datasets":
            show_datasets()
        else:
            fetch_dataset(args.dataset, args.to, args.include)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m neurofm_ml.data", description="Datasets: which there are, and fetching one.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("datasets", help="what there is, tables and corpora last: name, modalities, species, size, licence, here or not")
    one = commands.add_parser("fetch", help="bring the files of a dataset from its archive; what is here stays as it is")
    one.add_argument(
        "dataset", help=f"name of a dataset, a table or a corpus, or ARCHIVE:ID[@VERSION] with an archive of {', '.join(SOURCES)}"
    )
    one.add_argument("--to", metavar="DIR", type=Path, help="folder in place of NEUROFM_DATA")
    one.add_argument("--include", metavar="PATTERN", action="append", default=[], help="only files that match; may be repeated")
    return parser


# ---------------------------------------------------------------- fetch
def fetch_dataset(name: str, to: Path | None, include: Sequence[str]) -> None:
    """Fetch what a card names, or what an archive calls ``ARCHIVE:ID[@VERSION]``."""
    card = None if ":" in name else _card(name)
    archive, folder = _of_card(card, to) if card else _of_archive(name, to)
    if include:
        archive = replace(archive, include=tuple(include))
    done = fetch(archive, folder)
    print(f"{name}: {len(done.new)} files fetched, {len(done.kept)} were here, in {folder}")
    for path in done.differing:
        print(f"{folder / path} has another size than in the archive; it was kept: delete it to fetch the archive's.", file=sys.stderr)
    if card and not _is_here(replace(card, root=str(folder.absolute()))):
        looked = card.pattern if isinstance(card, DatasetCard) else card.file if isinstance(card, CorpusCard) else card.files[0].file
        print(f"{name}: the card still does not find what it looks for, {folder / looked}.", file=sys.stderr)
    elif card and to and os.environ.get("NEUROFM_DATA", "") != str(to):
        print(f"To use it: export NEUROFM_DATA={to.absolute()}")


def _card(name: str) -> Card:
    """The card of that name, of whatever kind. An unknown one raises, with the nearest dataset."""
    for kind in (tables.tables(), corpora.corpora()):
        if name in kind:
            return cast(Card, kind[name])
    return datasets()[name]


def _files(card: Card) -> list[Path]:
    """The files of a card that are here."""
    if isinstance(card, DatasetCard):
        return raw_files(card)
    return table_files(card) if isinstance(card, TableCard) else corpus_files(card)


def _is_here(card: Card) -> bool:
    return is_here(card) if isinstance(card, DatasetCard) else bool(_files(card))


def _archive(card: Card) -> ArchiveSpec | None:
    return None if isinstance(card, TableCard) else card.archive


def _of_card(card: Card, to: Path | None) -> tuple[ArchiveSpec, Path]:
    folder, archive = to / card.root if to else data_root(card), _archive(card)
    if archive is None and _is_here(card) and not _files(card):
        raise ValueError(f"{card.name} needs no files: it is made when it is read.")
    if archive is None:
        raise ValueError(f"{card.name} names no archive; get its files from {card.source} and put them in {folder or card.root}.")
    if folder is None:
        raise ValueError(f"say where the files of {card.name} go: set NEUROFM_DATA, or give --to DIR.")
    if to and Path(card.root).is_absolute():
        raise ValueError(f"the card of {card.name} says that its files lie in {card.root}; leave --to out.")
    return archive, folder


def _of_archive(name: str, to: Path | None) -> tuple[ArchiveSpec, Path]:
    adapter, _, rest = name.partition(":")
    identity, _, version = rest.partition("@")
    if to is None:
        raise ValueError(f"say where the files of {name} go by --to DIR.")
    SOURCES[adapter]  # an unknown name raises, with the nearest one
    return ArchiveSpec(adapter=adapter, id=identity, version=version), to


# ---------------------------------------------------------------- datasets
def show_datasets() -> None:
    """Print the table of what there is, and what is wrong with cards that were left out."""
    kinds: tuple[Registry[Any], ...] = (datasets(), tables.tables(), corpora.corpora())
    rows = [_HEADER, *(_row(kind[name]) for kind in kinds for name in sorted(kind))]
    widths = [min(max(len(row[i]) for row in rows), _WIDEST) for i in range(len(_HEADER) - 1)]
    for row in rows:
        print(*(_cell(text, width) for text, width in zip(row, widths, strict=False)), row[-1], sep="  ")
    for said in (*cards.mistakes(), *tables.mistakes(), *corpora.mistakes()):
        print(f"left out: {said}", file=sys.stderr)
    if not os.environ.get("NEUROFM_DATA"):
        print("NEUROFM_DATA is not set; it names the folder that holds the files of these datasets.", file=sys.stderr)


def _cell(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else f"{text[: width - 3]}..."


def _row(card: Card) -> tuple[str, ...]:
    here = _is_here(card)
    kind, species = "table" if isinstance(card, TableCard) else "foci", ""
    if isinstance(card, DatasetCard):
        kind, species = ", ".join(card.modalities), card.species
    return (card.name, kind, species, _gigabytes(card, here), card.licence, "yes" if here else _remedy(card))


def _gigabytes(card: Card, here: bool) -> str:
    """Of the files that are here, else of what the archive holds."""
    archive = _archive(card)
    size = sum(path.stat().st_size for path in _files(card)) / 1e9 if here else archive and archive.gigabytes
    return "?" if size is None else f"{size:.2f}"


def _remedy(card: Card) -> str:
    """What to do to have it here."""
    archive = _archive(card)
    if archive is None:
        return f"no; get it from {card.source}"
    access = SOURCES[archive.adapter].access
    return f"no; fetch {card.name}" + (f" ({access.split(',')[0].split(';')[0]} first)" if access else "")


if __name__ == "__main__":
    logging.getLogger("neurofm_ml.knowledge").setLevel(logging.ERROR)  # what is wrong with cards is said below the table
    sys.exit(main(sys.argv[1:]))
