"""Public S3 buckets, listed and read over plain HTTPS: ListObjectsV2 gives names, sizes and, for most objects, the md5."""

import re
from collections.abc import Iterator
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

from neurofm_ml.data.sources.base import RemoteFile, is_wanted
from neurofm_ml.knowledge.cards import ArchiveSpec
from neurofm_ml.remote import fetch

_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
#: The ETag of an object that was uploaded in one part is its md5; of others it is no hash of the content.
_MD5 = re.compile(r'"([0-9a-f]{32})"')


def files_under(bucket: str, folder: str, archive: ArchiveSpec) -> list[RemoteFile]:
    """The wanted files under `folder` (which ends with "/") of the bucket at URL `bucket`, named relative to the folder.

    Only what can match is listed: the part of each pattern before its first wildcard narrows the question.
    """
    beginnings = {re.split(r"[*?\[]", pattern)[0] for pattern in archive.include}
    narrowest = [b for b in beginnings if not any(b != other and b.startswith(other) for other in beginnings)]
    listed = (file for beginning in sorted(narrowest) for file in list_bucket(bucket, folder, beginning))
    return [file for file in listed if is_wanted(file.path, archive)]


def list_bucket(bucket: str, folder: str, beginning: str = "") -> Iterator[RemoteFile]:
    """Every object of a bucket whose key starts with `folder` + `beginning`, with its path under `folder`."""
    query = {"list-type": "2", "prefix": folder + beginning}
    while True:
        answer = ElementTree.fromstring(fetch(f"{bucket}?{urlencode(query)}"))
        for entry in answer.iter(f"{_NAMESPACE}Contents"):
            key = _text(entry, "Key")
            if not key.endswith("/"):
                yield _file(bucket, key, key.removeprefix(folder), entry)
        if _text(answer, "IsTruncated") != "true":
            return
        query["continuation-token"] = _text(answer, "NextContinuationToken")


def _file(bucket: str, key: str, path: str, entry: ElementTree.Element) -> RemoteFile:
    match = _MD5.fullmatch(_text(entry, "ETag"))
    digest, algorithm = (match[1], "md5") if match else ("", "")
    return RemoteFile(f"{bucket}/{quote(key)}", path, int(_text(entry, "Size")), digest, algorithm)


def _text(element: ElementTree.Element, name: str) -> str:
    return element.findtext(f"{_NAMESPACE}{name}") or ""
