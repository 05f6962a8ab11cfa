"""Acquisition: the files of a dataset from the archive that its card names. `SOURCES` maps the `adapter` of a card to it.

A new archive is a function ``(ArchiveSpec) -> list[RemoteFile]`` in its own file and one line here. `fetch` is the public call.
"""

from pathlib import Path

from neurofm_ml.data.sources import (
    allen,
    dandi,
    github,
    hcp,
    ibl,
    miller,
    neurovault,
    nsd,
    openneuro,
    osf,
    physionet,
    ukbiobank,
    webpage,
    zenodo,
)
from neurofm_ml.data.sources.base import RemoteFile, Source, naming_archive
from neurofm_ml.data.sources.download import Fetched, download_all
from neurofm_ml.knowledge.cards import ArchiveSpec
from neurofm_ml.registry import Registry

SOURCES: Registry[Source] = Registry("archive")
SOURCES.add("allen", Source(allen.list_files))
SOURCES.add("bci_competition", Source(webpage.list_bci_competition, webpage.BCI_ACCESS))
SOURCES.add("dandi", Source(dandi.list_files))
SOURCES.add("github", Source(github.list_files))
SOURCES.add("hcp", Source(hcp.list_files, hcp.ACCESS))
SOURCES.add("ibl", Source(ibl.list_files))
SOURCES.add("miller", Source(miller.list_files))
SOURCES.add("neurosynth", Source(github.list_neurosynth))
SOURCES.add("neurovault", Source(neurovault.list_files))
SOURCES.add("ninapro", Source(webpage.list_ninapro))
SOURCES.add("nsd", Source(nsd.list_files, nsd.ACCESS))
SOURCES.add("openneuro", Source(openneuro.list_files))
SOURCES.add("osf", Source(osf.list_files))
SOURCES.add("physionet", Source(physionet.list_files))
SOURCES.add("tuh", Source(webpage.list_tuh, webpage.TUH_ACCESS))
SOURCES.add("ukbiobank", Source(ukbiobank.list_files, ukbiobank.ACCESS))
SOURCES.add("zenodo", Source(zenodo.list_files))

__all__ = ["SOURCES", "Fetched", "RemoteFile", "Source", "fetch", "list_files"]


def list_files(archive: ArchiveSpec) -> list[RemoteFile]:
    """The files that an archive has of a dataset. Raises ValueError naming archive, dataset and remedy."""
    source = SOURCES[archive.adapter]
    with naming_archive(archive, source.access):
        try:
            files = source.list_files(archive)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"its answer is not of the form known here ({error!r}); look for a newer NeuroFM.") from None
        if not files:
            raise ValueError(f"no file matches {', '.join(archive.include)}; correct id, version or include.")
        return files


def fetch(archive: ArchiveSpec, folder: Path) -> Fetched:
    """Bring the files of a dataset that are not in `folder` yet. Raises ValueError or ConnectionError naming the remedy."""
    files = list_files(archive)
    with naming_archive(archive, SOURCES[archive.adapter].access):
        return download_all(files, folder)
