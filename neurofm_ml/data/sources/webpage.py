"""Archives without an interface for programs: Ninapro's pages, the folders of TUH, the BCI competitions."""

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import unquote, urljoin, urlsplit

from neurofm_ml.data.sources.base import RemoteFile, basic_auth, is_wanted
from neurofm_ml.knowledge.cards import ArchiveSpec
from neurofm_ml.remote import fetch

TUH_ACCESS = (
    "sign the form at https://isip.piconepress.com/projects/nedc/html/tuh_eeg/, then set NEDC_USER and NEDC_PASSWORD to what you are sent."
)
BCI_ACCESS = "register at https://www.bbci.de/competition/iv/#download, then set BBCI_USER and BBCI_PASSWORD to what you are sent."
_HREF = re.compile(r"""href\s*=\s*["']([^"']+)["']""", re.IGNORECASE)


def links(page: str, headers: dict[str, str]) -> list[str]:
    """What a page links to, in its order, as absolute URLs without query or fragment, each once."""
    found = (urljoin(page, unescape(href)) for href in _HREF.findall(fetch(page, headers).decode("utf-8", "replace")))
    return list(dict.fromkeys(url.split("#")[0].split("?")[0] for url in found))


def list_ninapro(archive: ArchiveSpec, site: str = "https://ninapro.hevs.ch") -> list[RemoteFile]:
    """The zips that the page of a database such as ``DB1`` links to, one per subject; they are unpacked."""
    named = {unquote(urlsplit(url).path.rsplit("/", 1)[-1]): url for url in links(f"{site}/instructions/{archive.id}.html", {})}
    return [RemoteFile(url, name, unpack=True) for name, url in named.items() if name.endswith(".zip") and is_wanted(name, archive)]


def list_bci_competition(archive: ArchiveSpec, site: str = "https://www.bbci.de") -> list[RemoteFile]:
    """The archives of a competition such as ``iv``, which the card names one by one: no page lists them. They are unpacked."""
    if vague := [name for name in archive.include if set("*?[") & set(name)]:
        raise ValueError(f"include is {', '.join(vague)}; name each file, such as BCICIV_2a_gdf.zip.")
    headers = basic_auth("BBCI_USER", "BBCI_PASSWORD")
    folder = f"{site}/competition/download/competition_{archive.id}"
    return [RemoteFile(f"{folder}/{name}", name, headers=headers, unpack=True) for name in archive.include]


def list_tuh(archive: ArchiveSpec, site: str = "https://isip.piconepress.com/projects/nedc/data/tuh_eeg") -> list[RemoteFile]:
    """Files of a version of a corpus such as ``tuh_eeg_abnormal``, by walking through its folders."""
    headers = basic_auth("NEDC_USER", "NEDC_PASSWORD")
    folder = "/".join(part for part in (site, archive.id, archive.version) if part) + "/"
    named = ((url, unquote(url.removeprefix(folder))) for url in _walk(folder, headers))
    return [RemoteFile(url, path, headers=headers) for url, path in named if is_wanted(path, archive)]


def _walk(folder: str, headers: dict[str, str]) -> Iterator[str]:
    """Every file below a folder that the server lists as a page of links."""
    for url in (u for u in links(folder, headers) if u.startswith(folder) and u != folder):
        if url.endswith("/"):
            yield from _walk(url, headers)
        else:
            yield url
