"""DANDI: dandisets of NWB files, listed by its REST API, served from its public bucket."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from neurofm_ml.data.sources.base import RemoteFile, get_json, is_wanted, pages
from neurofm_ml.data.sources.bucket import list_bucket
from neurofm_ml.knowledge.cards import ArchiveSpec

_THREADS = 8


def list_files(
    archive: ArchiveSpec, site: str = "https://api.dandiarchive.org/api", bucket: str = "https://dandiarchive.s3.amazonaws.com"
) -> list[RemoteFile]:
    """Assets of a version of a dandiset (default: the newest published one, else the draft); a Zarr asset is many files."""
    version = archive.version or _newest(get_json(f"{site}/dandisets/{archive.id}/"))
    url = f"{site}/dandisets/{archive.id}/versions/{version}/assets/?page_size=1000"
    rows = [row for row in pages(url, "results", lambda page: page["next"]) if is_wanted(row["path"], archive)]
    with ThreadPoolExecutor(_THREADS) as threads:
        blobs = list(threads.map(lambda row: _blob(site, row), (row for row in rows if not row.get("zarr"))))
    return blobs + [file for row in rows if row.get("zarr") for file in _zarr(bucket, row)]


def _newest(dandiset: Any) -> str:
    return str((dandiset["most_recent_published_version"] or {"version": "draft"})["version"])


def _blob(site: str, row: Any) -> RemoteFile:
    """The asset's own page holds its address in the bucket and, once DANDI has computed it, its sha256."""
    about = get_json(f"{site}/assets/{row['asset_id']}/")
    digest = about["digest"].get("dandi:sha2-256", "")
    return RemoteFile(about["contentUrl"][-1], row["path"], row["size"], digest, "sha256" if digest else "")


def _zarr(bucket: str, row: Any) -> Iterator[RemoteFile]:
    for file in list_bucket(bucket, f"zarr/{row['zarr']}/"):
        yield RemoteFile(file.url, f"{row['path']}/{file.path}", file.size, file.checksum, file.algorithm)
