"""International Brain Laboratory: ALF files of the public bucket ibl-brain-wide-map-public.

The same recordings as NWB files are DANDI's dandisets 000409 and later; those come through the adapter ``dandi``.
"""

import re
from dataclasses import replace

from neurofm_ml.data.sources.base import RemoteFile
from neurofm_ml.data.sources.bucket import files_under
from neurofm_ml.knowledge.cards import ArchiveSpec

#: Names in the bucket carry the id of the dataset: ``spikes.times.<uuid>.npy`` is ``spikes.times.npy`` in ALF.
_UUID = re.compile(r"\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=\.[^./]+$)")


def list_files(archive: ArchiveSpec, site: str = "https://s3.amazonaws.com") -> list[RemoteFile]:
    """Files of ``<lab>/Subjects/<subject>``, or of one session ``.../<date>/<number>``, under their ALF names."""
    files = files_under(f"{site}/ibl-brain-wide-map-public", f"data/{archive.id}/", archive)
    return [replace(file, path=_UUID.sub("", file.path)) for file in files]
