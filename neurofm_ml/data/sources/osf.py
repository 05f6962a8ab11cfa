"""Open Science Framework: the storage of a project, folder by folder."""

from collections.abc import Iterator
from typing import Any

from neurofm_ml.data.sources.base import RemoteFile, is_wanted, pages
from neurofm_ml.knowledge.cards import ArchiveSpec


def list_files(archive: ArchiveSpec, site: str = "https://api.osf.io/v2") -> list[RemoteFile]:
    """Files of the project with this five-letter id."""
    return [file for file in _folder(f"{site}/nodes/{archive.id}/files/osfstorage/") if is_wanted(file.path, archive)]


def _folder(url: str) -> Iterator[RemoteFile]:
    for entry in pages(url, "data", lambda page: page["links"]["next"]):
        if entry["attributes"]["kind"] == "folder":
            yield from _folder(entry["relationships"]["files"]["links"]["related"]["href"])
        else:
            yield _file(entry)


def _file(entry: Any) -> RemoteFile:
    about = entry["attributes"]
    digest = about["extra"]["hashes"]["sha256"]
    return RemoteFile(entry["links"]["download"], about["materialized_path"].lstrip("/"), about["size"], digest, "sha256")
