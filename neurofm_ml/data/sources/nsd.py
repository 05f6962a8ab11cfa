"""Natural Scenes Dataset: a public bucket whose data may be used after its terms are agreed to."""

import os

from neurofm_ml.data.sources.base import RemoteFile
from neurofm_ml.data.sources.bucket import files_under
from neurofm_ml.knowledge.cards import ArchiveSpec

ACCESS = "agree to the terms through the form at https://naturalscenesdataset.org, then set NSD_TERMS=agreed."


def list_files(archive: ArchiveSpec, site: str = "https://s3.us-east-2.amazonaws.com") -> list[RemoteFile]:
    """Files of the bucket ``natural-scenes-dataset``; `include` says of which person."""
    if os.environ.get("NSD_TERMS") != "agreed":
        raise ValueError("its terms ask for your agreement before any use.")
    return files_under(f"{site}/{archive.id}", "", archive)
