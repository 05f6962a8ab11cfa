"""PhysioNet: open projects, whose SHA256SUMS.txt names every file. Credentialed ones are downloaded by hand after signing in."""

from urllib.parse import quote

from neurofm_ml.data.sources.base import RemoteFile, is_wanted
from neurofm_ml.knowledge.cards import ArchiveSpec
from neurofm_ml.remote import fetch


def list_files(archive: ArchiveSpec, site: str = "https://physionet.org") -> list[RemoteFile]:
    """Files of a version of a project, such as ``eegmmidb`` 1.0.0."""
    if not archive.version:
        raise ValueError("PhysioNet serves versions; name one, such as `version: 1.0.0`.")
    folder = f"{site}/files/{archive.id}/{archive.version}"
    lines = (line.split(maxsplit=1) for line in fetch(f"{folder}/SHA256SUMS.txt").decode().splitlines() if line.strip())
    return [RemoteFile(f"{folder}/{quote(name)}", name, None, digest, "sha256") for digest, name in lines if is_wanted(name, archive)]
