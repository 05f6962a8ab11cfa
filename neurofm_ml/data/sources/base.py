"""What the adapters share: the files an archive offers, answers in JSON and pages, patterns, keys from the environment."""

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from neurofm_ml.knowledge.cards import ArchiveSpec
from neurofm_ml.remote import fetch


@dataclass(frozen=True)
class RemoteFile:
    """A file that an archive offers, and where it goes: `path` under the dataset's folder.

    `checksum` is of kind `algorithm`: a name of hashlib, or "git" for the hash of a git blob. `size` is in bytes, None
    when the archive does not say it. With `unpack` the file is a zip or tar that becomes the folder of its name.
    """

    url: str
    path: str
    size: int | None = None
    checksum: str = ""
    algorithm: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    unpack: bool = False

    def __post_init__(self) -> None:
        check_inside(self.path)


@dataclass(frozen=True)
class Source:
    """An archive: what lists the files of a dataset, and what one must do to be let in ("" when it is open to all)."""

    list_files: Callable[[ArchiveSpec], list[RemoteFile]]
    access: str = ""


def check_inside(path: str) -> None:
    """Raises ValueError for a name from an archive that would leave the folder it is put in."""
    if not path or "\\" in path or "\0" in path or ":" in path.split("/")[0] or PurePosixPath(path).is_absolute():
        raise ValueError(f"the archive names a file {path!r}, which is no plain path; it is refused.")
    if {"..", ".", ""} & set(path.split("/")):
        raise ValueError(f"the archive names a file {path!r}, which leaves its folder; it is refused.")


def is_wanted(path: str, archive: ArchiveSpec) -> bool:
    """Whether a file is one of those that the card includes; ``*`` also matches ``/``."""
    return any(fnmatchcase(path, pattern) for pattern in archive.include)


@contextmanager
def naming_archive(archive: ArchiveSpec, access: str) -> Iterator[None]:
    """What goes wrong inside begins with the archive and the dataset, and ends with how one is let in."""
    what = f"{archive.adapter} {archive.id}{f' version {archive.version}' if archive.version else ''}"
    entry = f" Access: {access}" if access else ""
    try:
        yield
    except ConnectionError as error:
        raise ConnectionError(f"{what}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{what}: {error}{entry}") from None


# ---------------------------------------------------------------- asking
def get_json(url: str, headers: Mapping[str, str] | None = None) -> Any:
    """What a URL answers, as JSON."""
    answer = fetch(url, headers)
    try:
        return json.loads(answer)
    except ValueError:
        raise ValueError(f"{url} answers no JSON but {answer[:60]!r}; a proxy or a login page may stand between.") from None


def pages(url: str, items: str, following: Callable[[Any], str | None]) -> Iterator[Any]:
    """The entries `items` of an answer and of the pages that follow it."""
    while url:
        page = get_json(url)
        yield from page[items]
        url = following(page) or ""


# ---------------------------------------------------------------- keys
def basic_auth(user: str, password: str) -> dict[str, str]:
    """Header that signs in with the user and the password that these environment variables hold."""
    unset = [name for name in (user, password) if not os.environ.get(name)]
    if unset:
        raise ValueError(f"{' and '.join(unset)} must be set in the environment.")
    pair = f"{os.environ[user]}:{os.environ[password]}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
