"""``python -m neurofm_ml.data``: which datasets there are, and fetching one from its archive.

Exit codes: 0 done, 1 it may work later (network, disk), 2 the call is wrong, 130 stopped by the user.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from neurofm_ml.data.sources import SOURCES, fetch
from neurofm_ml.knowledge.cards import ArchiveSpec, DatasetCard, data_root, datasets, is_here, mistakes, raw_files
from neurofm_ml.knowledge.corpora import CorpusCard, corpora, corpus_files

Card = DatasetCard | CorpusCard
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
    commands.add_parser("datasets", help="table of all datasets: name, modalities, species, size, licence, here or not")
    one = commands.add_parser("fetch", help="bring the files of a dataset from its archive; what is here stays as it is")
    one.add_argument("dataset", help=f"name of a dataset or a corpus, or ARCHIVE:ID[@VERSION] with an archive of {', '.join(SOURCES)}")
    one.add_argument("--to", metavar="DIR", type=Path, help="folder in place of NEUROFM_DATA")
    one.add_argument("--include", metavar="PATTERN", action="append", default=[], help="only files that match; may be repeated")
    return parser


# ---------------------------------------------------------------- fetch
def fetch_dataset(name: str, to: Path | None, include: Sequence[str]) -> None:
    """Fetch a dataset or a corpus by its name, or what an archive calls ``ARCHIVE:ID[@VERSION]``."""
    card = None if ":" in name else corpora()[name] if name in corpora() else datasets()[name]
    archive, folder = _of_card(card, to) if card else _of_archive(name, to)
    if include:
        archive = replace(archive, include=tuple(include))
    done = fetch(archive, folder)
    print(f"{name}: {len(done.new)} files fetched, {len(done.kept)} were here, in {folder}")
    for path in done.differing:
        print(f"{folder / path} has another size than in the archive; it was kept: delete it to fetch the archive's.", file=sys.stderr)
    if card and not _is_found(replace(card, root=str(folder.absolute()))):
        looked = card.pattern if isinstance(card, DatasetCard) else card.file
        print(f"{name}: the card still does not find what it looks for, {folder / looked}.", file=sys.stderr)
    elif card and to and os.environ.get("NEUROFM_DATA", "") != str(to):
        print(f"To use it: export NEUROFM_DATA={to.absolute()}")


def _is_found(card: Card) -> bool:
    return is_here(card) if isinstance(card, DatasetCard) else bool(corpus_files(card))


def _of_card(card: Card, to: Path | None) -> tuple[ArchiveSpec, Path]:
    folder = to / card.root if to else data_root(card)
    if card.archive is None:
        raise ValueError(f"{card.name} names no archive; get its files from {card.source} and put them in {folder or card.root}.")
    if folder is None:
        raise ValueError(f"say where the files of {card.name} go: set NEUROFM_DATA, or give --to DIR.")
    if to and Path(card.root).is_absolute():
        raise ValueError(f"the card of {card.name} says that its files lie in {card.root}; leave --to out.")
    return card.archive, folder


def _of_archive(name: str, to: Path | None) -> tuple[ArchiveSpec, Path]:
    adapter, _, rest = name.partition(":")
    identity, _, version = rest.partition("@")
    if to is None:
        raise ValueError(f"say where the files of {name} go by --to DIR.")
    SOURCES[adapter]  # an unknown name raises, with the nearest one
    return ArchiveSpec(adapter=adapter, id=identity, version=version), to


# ---------------------------------------------------------------- datasets
def show_datasets() -> None:
    """Print the table of all datasets, and what is wrong with cards that were left out."""
    rows = [_HEADER, *(_row(datasets()[name]) for name in sorted(datasets()))]
    widths = [min(max(len(row[i]) for row in rows), _WIDEST) for i in range(len(_HEADER) - 1)]
    for row in rows:
        print(*(_cell(text, width) for text, width in zip(row, widths, strict=False)), row[-1], sep="  ")
    for said in mistakes():
        print(f"left out: {said}", file=sys.stderr)


def _cell(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else f"{text[: width - 3]}..."


def _row(card: DatasetCard) -> tuple[str, ...]:
    here = is_here(card)
    return (card.name, ", ".join(card.modalities), card.species, _gigabytes(card, here), card.licence, "yes" if here else _remedy(card))


def _gigabytes(card: DatasetCard, here: bool) -> str:
    """Of the files that are here, else of what the archive holds."""
    size = sum(path.stat().st_size for path in raw_files(card)) / 1e9 if here else card.archive and card.archive.gigabytes
    return "?" if size is None else f"{size:.2f}"


def _remedy(card: DatasetCard) -> str:
    """What to do to have a dataset here."""
    if card.archive is None:
        return f"no; get it from {card.source}"
    access = SOURCES[card.archive.adapter].access
    return f"no; fetch {card.name}" + (f" ({access.split(',')[0].split(';')[0]} first)" if access else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
