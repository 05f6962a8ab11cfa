"""Stanford Digital Repository: Miller's library of human ECoG (druid zk881ps0522) and other open objects."""

from typing import Any
from urllib.parse import quote

from neurofm_ml.data.sources.base import RemoteFile, get_json, is_wanted
from neurofm_ml.knowledge.cards import ArchiveSpec


def list_files(
    archive: ArchiveSpec, site: str = "https://purl.stanford.edu", stacks: str = "https://stacks.stanford.edu"
) -> list[RemoteFile]:
    """Files of the object with this druid; its zips are unpacked."""
    sets = get_json(f"{site}/{archive.id}.json")["structural"]["contains"]
    entries = [entry for group in sets for entry in group["structural"]["contains"] if is_wanted(entry["filename"], archive)]
    return [_file(f"{stacks}/file/druid:{archive.id}", entry) for entry in entries]


def _file(folder: str, entry: Any) -> RemoteFile:
    digest = {d["type"]: d["digest"] for d in entry["hasMessageDigests"]}["md5"]
    name = entry["filename"]
    return RemoteFile(f"{folder}/{quote(name)}", name, entry["size"], digest, "md5", unpack=name.endswith(".zip"))
