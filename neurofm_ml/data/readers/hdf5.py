"""Opening HDF5 that others wrote: a file may name data in other files, which are refused, since reading it would read those."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """h5py.File for reading. Raises ValueError for a file that is damaged, or that points out of itself."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            check_whole(path, file)
            yield file
    except (OSError, RuntimeError, AttributeError) as error:  # h5py's words for damage, and None for an object that is not there
        raise ValueError(f"{path} is damaged or cut short ({error}); get it again.") from None


def check_whole(path: Path, file: Any) -> None:
    """Raises ValueError where a link, a dataset or a virtual dataset of `file` lies in another file."""
    import h5py

    outside: list[str] = []
    file.visititems_links(lambda name, link: outside.append(name) if isinstance(link, h5py.ExternalLink) else None)
    try:
        file.visititems(lambda name, item: outside.append(name) if isinstance(item, h5py.Dataset) and _is_elsewhere(item) else None)
    except KeyError as error:
        raise OSError(error) from None
    if outside:
        raise ValueError(
            f"{path}: {outside[0]!r} lies in another file, to which this one points; only what a file holds itself is read. Copy the "
            "data into one file (h5repack, or export it again)."
        )


def _is_elsewhere(dataset: Any) -> bool:
    return bool(dataset.external) or (dataset.is_virtual and any(source.file_name != "." for source in dataset.virtual_sources()))
