"""Zenodo: the files of a record, with their md5."""

from neurofm_ml.data.sources.base import RemoteFile, get_json, is_wanted
from neurofm_ml.knowledge.cards import ArchiveSpec


def list_files(archive: ArchiveSpec, site: str = "https://zenodo.org/api") -> list[RemoteFile]:
    """Files of the record with this number; a version has a number of its own."""
    files = []
    for entry in get_json(f"{site}/records/{archive.id}")["files"]:
        if is_wanted(entry["key"], archive):
            algorithm, digest = entry["checksum"].split(":")
            files.append(RemoteFile(entry["links"]["self"], entry["key"], entry["size"], digest, algorithm))
    return files
