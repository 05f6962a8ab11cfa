"""Allen Brain Observatory: the public bucket allen-brain-observatory (Visual Coding, two-photon and Neuropixels)."""

from neurofm_ml.data.sources.base import RemoteFile
from neurofm_ml.data.sources.bucket import files_under
from neurofm_ml.knowledge.cards import ArchiveSpec


def list_files(archive: ArchiveSpec, site: str = "https://s3.us-west-2.amazonaws.com") -> list[RemoteFile]:
    """Files of a project such as ``visual-coding-neuropixels``."""
    return files_under(f"{site}/allen-brain-observatory", f"{archive.id}/", archive)
