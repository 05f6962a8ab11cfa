"""GitHub: the files of a repository at one commit, each with git's own hash; Neurosynth's releases live in one."""

from dataclasses import replace
from urllib.parse import quote

from neurofm_ml.data.sources.base import RemoteFile, get_json, is_wanted
from neurofm_ml.knowledge.cards import ArchiveSpec

_NEUROSYNTH = "neurosynth/neurosynth-data"
#: The commit that NiMARE reads too: names of all releases in one pattern.
_COMMIT = "209c33cd009d0b069398a802198b41b9c488b9b7"


def list_files(
    archive: ArchiveSpec, site: str = "https://api.github.com", raw: str = "https://raw.githubusercontent.com"
) -> list[RemoteFile]:
    """Files of the repository ``owner/name``, or of a folder in it ``owner/name/folder``, at the commit `version`."""
    if not archive.version:
        raise ValueError("a repository changes; name a commit by `version`.")
    owner, name, *folders = archive.id.split("/")
    folder = "".join(f"{part}/" for part in folders)
    inside = (file for file in _tree(f"{owner}/{name}", archive.version, site, raw) if file.path.startswith(folder))
    files = (replace(file, path=file.path.removeprefix(folder)) for file in inside)
    return [file for file in files if is_wanted(file.path, archive)]


def list_neurosynth(
    archive: ArchiveSpec, site: str = "https://api.github.com", raw: str = "https://raw.githubusercontent.com"
) -> list[RemoteFile]:
    """Files of one release of Neurosynth: coordinates, metadata, vocabularies and features of ``version-<id>``."""
    named = f"data-neurosynth_version-{archive.id}_"
    tree = _tree(_NEUROSYNTH, _COMMIT, site, raw)
    return [file for file in tree if file.path.startswith(named) and is_wanted(file.path, archive)]


def _tree(repository: str, commit: str, site: str, raw: str) -> list[RemoteFile]:
    answer = get_json(f"{site}/repos/{repository}/git/trees/{commit}?recursive=1")
    if answer["truncated"]:
        raise ValueError(f"{repository} has more files than GitHub lists; clone it with git.")
    blobs = (entry for entry in answer["tree"] if entry["type"] == "blob")
    return [RemoteFile(f"{raw}/{repository}/{commit}/{quote(b['path'])}", b["path"], b["size"], b["sha"], "git") for b in blobs]
