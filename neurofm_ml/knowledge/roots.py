"""Where a card's files lie: under NEUROFM_DATA, or beside a user's card; never outside of its root."""

import os
from pathlib import Path, PurePosixPath
from typing import Protocol


def check_inside(what: str, pattern: str) -> None:
    path = PurePosixPath(pattern)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{what} is {pattern!r}; it must stay inside the card's root, without '..'.")


def check_root(root: str) -> None:
    if ".." in PurePosixPath(root).parts:
        raise ValueError(f"root is {root!r}; it must not climb out with '..': give the whole path, or put the card above its files.")


class Rooted(Protocol):
    """Any card: of a dataset, a table, a corpus."""

    @property
    def root(self) -> str: ...


def data_root(card: Rooted) -> Path | None:
    """Folder that the card's patterns start from: `root` under NEUROFM_DATA, or `root` itself when absolute.
    None when NEUROFM_DATA is needed and unset."""
    data = os.environ.get("NEUROFM_DATA")
    if Path(card.root).is_absolute():
        return Path(card.root)
    return Path(data) / card.root if data else None


def root_beside(card: Rooted, path: Path) -> str:
    """The root of the card that was read from `path`: the folder of a user's card, where NEUROFM_DATA does not hold the root."""
    root = data_root(card)
    if path.is_relative_to(Path(__file__).parent) or (card.root and root and root.is_dir()):
        return card.root
    return str(path.parent.absolute() / card.root)
