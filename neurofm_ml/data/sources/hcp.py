"""Human Connectome Project: the bucket hcp-openaccess, opened with the keys that ConnectomeDB gives to who accepts its terms."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from neurofm_ml.data.sources.base import RemoteFile
from neurofm_ml.knowledge.cards import ArchiveSpec
from neurofm_ml.remote import S3Store

ACCESS = (
    "accept the Open Access Data Use Terms at https://db.humanconnectome.org, have it make AWS keys for you, and set "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
)


def list_files(archive: ArchiveSpec, site: str = "s3://hcp-openaccess") -> list[RemoteFile]:
    """Files of a release such as ``HCP_1200``. A pattern is followed folder by folder, so that a million others are not listed."""
    found = dict(entry for pattern in archive.include for entry in _expand(S3Store(f"{site}/{archive.id}"), "", pattern.split("/")))
    return [RemoteFile(f"{site}/{archive.id}/{path}", path, size) for path, size in sorted(found.items())]


def _expand(store: S3Store, folder: str, parts: list[str]) -> Iterator[tuple[str, int]]:
    """Path and size of the files below `folder` that match the rest of a pattern; here ``*`` stays within one name."""
    if len(parts) > 1 and not set("*?[") & set(parts[0]):
        yield from _expand(store, f"{folder}{parts[0]}/", parts[1:])
        return
    for name, size in store.entries(folder):
        if fnmatchcase(name, parts[0]) and len(parts) == 1 and size is not None:
            yield folder + name, size
        elif fnmatchcase(name, parts[0]) and len(parts) > 1 and size is None:
            yield from _expand(store, f"{folder}{name}/", parts[1:])
