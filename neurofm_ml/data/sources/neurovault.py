"""NeuroVault: the statistical maps of a collection. It states no checksums; a map is checked by its length."""

from urllib.parse import unquote, urlsplit

from neurofm_ml.data.sources.base import RemoteFile, is_wanted, pages
from neurofm_ml.knowledge.cards import ArchiveSpec


def list_files(archive: ArchiveSpec, site: str = "https://neurovault.org/api") -> list[RemoteFile]:
    """Images of the collection with this number, each under ``<image id>/<its file name>``: names repeat."""
    url = f"{site}/collections/{archive.id}/images/?limit=100"
    images = ((image["id"], image["file"]) for image in pages(url, "results", lambda page: page["next"]))
    files = (RemoteFile(file, f"{number}/{unquote(urlsplit(file).path.rsplit('/', 1)[-1])}") for number, file in images)
    return [file for file in files if is_wanted(file.path, archive)]
