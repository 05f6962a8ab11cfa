"""OpenNeuro: BIDS datasets in the public bucket openneuro.org, which holds the newest snapshot of each."""

from neurofm_ml.data.sources.base import RemoteFile
from neurofm_ml.data.sources.bucket import files_under
from neurofm_ml.knowledge.cards import ArchiveSpec


def list_files(archive: ArchiveSpec, site: str = "https://s3.amazonaws.com") -> list[RemoteFile]:
    """Files of dataset ``dsXXXXXX``."""
    if archive.version:
        raise ValueError("the bucket holds the newest snapshot only; leave `version` out.")
    return files_under(f"{site}/openneuro.org", f"{archive.id}/", archive)
