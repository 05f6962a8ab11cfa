"""Zip and tar to a folder that appears when it is complete. Names that leave the folder are refused."""

import gzip
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

from neurofm_ml.data.sources.base import check_inside

_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")


def suffix_of(path: Path) -> str:
    """The ending that says how a file is packed. Raises ValueError for one that is not known."""
    for suffix in _SUFFIXES:
        if path.name.endswith(suffix):
            return suffix
    raise ValueError(f"{path} is none of {', '.join(_SUFFIXES)}; unpack it by hand.")


def unpack(path: Path, folder: Path) -> None:
    """The content of a zip or tar as `folder`; one top folder of the same name is not repeated. A damaged one is deleted."""
    arriving = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(arriving, ignore_errors=True)
    arriving.mkdir()
    try:
        _extract(path, arriving)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        path.unlink()
        raise ValueError(f"{path} is damaged ({error}) and was deleted; run this again.") from None
    inner = arriving / folder.name
    (inner if inner.is_dir() and len(list(arriving.iterdir())) == 1 else arriving).rename(folder)
    shutil.rmtree(arriving, ignore_errors=True)


def _extract(path: Path, folder: Path) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as packed:
            for name in packed.namelist():
                check_inside(name.rstrip("/"))
            _check_space(path, sum(member.file_size for member in packed.infolist()))
            packed.extractall(folder)
    else:
        with tarfile.open(path) as packed:
            packed.extractall(folder, filter="data")
            while packed.fileobj and packed.fileobj.read(1 << 20):
                pass  # gzip's checksum stands at its end


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise ValueError(f"{path} unpacks to {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; name another folder by --to.")
