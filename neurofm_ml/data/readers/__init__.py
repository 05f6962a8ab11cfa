"""Readers: file -> Recording. `READERS` maps the `reader` of a card to what reads it; `read` is the public call.

A new reader is a function ``(card, spec) -> Recording`` in its own file and one line here.
"""

from pathlib import Path

from neurofm_ml.data.readers import arrays, electrophysiology, nelpy, nwb, parcels, uci_eeg
from neurofm_ml.data.readers.base import Reader, each
from neurofm_ml.data.simulate import simulate
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, datasets, is_here, read_card
from neurofm_ml.registry import Registry
from neurofm_ml.types import Recording

READERS: Registry[Reader] = Registry("reader")
READERS.add("simulation", simulate)
READERS.add("arrays", each(arrays.read_recording))
READERS.add("nwb", each(nwb.read_recording))
READERS.add("electrophysiology", each(electrophysiology.read_recording))
READERS.add("parcels", each(parcels.read_recording))
READERS.add("uci_eeg", each(uci_eeg.read_recording))
READERS.add("nelpy", each(nelpy.read_recording))


def read(source: str | Path | DatasetCard, signal: SignalSpec | None = None) -> Recording | list[Recording]:
    """Read a file -> Recording; a card, its name, its YAML file or a folder of files -> list of Recordings.

    NWB, EDF, BDF, FIF, BrainVision (.vhdr) and EEGLAB (.set) describe themselves; an array file (.mat, .h5, .npy,
    .npz, .csv, text) needs `signal` to say what it holds. Raises ValueError naming file, field and remedy.
    """
    if isinstance(source, DatasetCard):
        return _read_card(source)
    path = Path(source)
    if not path.exists():
        if isinstance(source, str) and source in datasets():
            return _read_card(datasets()[source])
        raise ValueError(f"{str(source)!r} is no file here and no dataset; the datasets are {', '.join(sorted(datasets()))}.")
    if path.is_dir():
        return _read_folder(path)
    if path.suffix in (".yaml", ".yml"):
        return _read_card(read_card(path))
    return _read_file(path, signal)


def _read_card(card: DatasetCard) -> list[Recording]:
    reader = READERS[card.reader]
    if not is_here(card):
        raise ValueError(f"the files of {card.name} are not here; get them from {card.source} and point NEUROFM_DATA at them.")
    return list(reader(card))


def _read_folder(folder: Path) -> list[Recording]:
    """Every file of a format that describes itself."""
    suffixes = (".nwb", *electrophysiology.SUFFIXES)
    files = sorted(p for p in folder.iterdir() if p.name.lower().endswith(suffixes))
    if not files:
        raise ValueError(
            f"{folder} holds no recording ({', '.join(suffixes)}); name another folder, or describe its arrays by a dataset card."
        )
    return [_read_file(path, None) for path in files]


def _read_file(path: Path, signal: SignalSpec | None) -> Recording:
    name = path.name.lower()
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty; get it again.")
    if name.endswith(".nwb"):
        return nwb.read_file(path)
    if name.endswith(electrophysiology.SUFFIXES):
        return electrophysiology.read_file(path)
    return arrays.read_file(path, signal)
