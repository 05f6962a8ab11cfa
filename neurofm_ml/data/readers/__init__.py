"""Readers: file -> Recording. `READERS` maps the `reader` of a card to what reads it; `read` is the public call.

A new reader is a function ``(card, spec) -> Recording`` in its own file and one line here.
"""

from difflib import get_close_matches
from pathlib import Path

from neurofm_ml.data.foci import read_corpus
from neurofm_ml.data.readers import arrays, axona, biane, bids, electrophysiology, eyelink, nelpy, nifti, nwb, parcels, physionet, uci_eeg
from neurofm_ml.data.readers.adopt import HEEDED
from neurofm_ml.data.readers.base import Reader, each
from neurofm_ml.data.readers.formats import FORMATS, format_of
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.tables import load_table
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, datasets, mistakes, read_card
from neurofm_ml.knowledge.corpora import CorpusCard, corpora
from neurofm_ml.knowledge.files import is_here
from neurofm_ml.knowledge.tables import TableCard, tables
from neurofm_ml.registry import Registry
from neurofm_ml.types import Foci, Recording, Table

READERS: Registry[Reader] = Registry("reader")
READERS.add("simulation", simulate)
READERS.add("arrays", each(arrays.read_recording))
READERS.add("nwb", each(nwb.read_recording, HEEDED))
READERS.add("electrophysiology", each(electrophysiology.read_recording, HEEDED))
READERS.add("eyelink", each(eyelink.read_recording, HEEDED))
READERS.add("axona", each(axona.read_recording, HEEDED))
READERS.add("physionet", each(physionet.read_recording, HEEDED))
READERS.add("bids", each(bids.read_recording, HEEDED))
READERS.add("parcels", each(parcels.read_recording, ("modality", "file", "recordings", "sfreq", "positions", "unit")))
READERS.add("nifti", each(nifti.read_recording))
READERS.add("uci_eeg", each(uci_eeg.read_recording, ("modality", "recordings", "sfreq", "positions", "unit")))
READERS.add("nelpy", each(nelpy.read_recording, ("modality", "file", "recordings", "ch_names", "unit")))
READERS.add("biane", each(biane.read_recording))


def read(
    source: str | Path | DatasetCard | TableCard | CorpusCard, signal: SignalSpec | None = None
) -> Recording | list[Recording] | Foci | Table:
    """Read a file -> Recording; a card, its name, its YAML file or a folder of files -> list of Recordings.

    Coordinates (a corpus, Sleuth text, NiMARE's JSON, Neurosynth's table) come as Foci, the table of a table card as Table. The formats of ``formats.py`` describe themselves; an array file (.mat, .h5, .npy, .npz, .csv, text) needs
    `signal` to say what it holds. Raises ValueError naming file, field and remedy.
    """
    if not isinstance(source, str | Path):
        return _read_card(source)
    path = Path(source)
    if not path.exists():
        named = [kind[str(source)] for kind in (datasets(), tables(), corpora()) if str(source) in kind]
        if named:
            return _read_card(named[0])
        raise _unknown(str(source))
    if path.is_dir() and format_of(path) is None:
        return _read_folder(path)
    if path.suffix in (".yaml", ".yml"):
        return _read_card(read_card(path))
    return _read_file(path, signal)


def _unknown(source: str) -> ValueError:
    """What to say of a name that is neither a file nor a card."""
    if "/" in source or "." in source:
        return ValueError(f"there is no file {source} (from {Path.cwd()}); correct the path.")
    near = get_close_matches(source, [*datasets(), *tables(), *corpora()], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    wrong = "".join(f" A card was left out: {said}" for said in mistakes())
    return ValueError(
        f"{source!r} is no file here and no dataset, table or corpus.{hint} python -m neurofm_ml.data datasets lists them.{wrong}"
    )


def _read_card(card: DatasetCard | TableCard | CorpusCard) -> list[Recording] | Foci | Table:
    if isinstance(card, TableCard):
        return load_table(card)
    if isinstance(card, CorpusCard):
        return read_corpus(card)
    reader = READERS[card.reader]
    if not is_here(card):
        how = f"python -m neurofm_ml.data fetch {card.name} brings them" if card.archive else f"get them from {card.source}"
        raise ValueError(f"the files of {card.name} are not here; {how}, and NEUROFM_DATA names the folder they are in.")
    return list(reader(card))


def _read_folder(folder: Path) -> list[Recording]:
    """Every recording of a folder, the files of unknown formats left aside."""
    files = [p for p in sorted(folder.iterdir()) if format_of(p)]
    if not files:
        known = ", ".join(suffix for f in FORMATS for suffix in f.suffixes)
        raise ValueError(
            f"{folder} itself holds no recording ({known}); name one of its folders, or describe its arrays by a dataset card."
        )
    found = [one for path in files for one in _as_list(_read_file(path, None))]
    return [one for one in found if isinstance(one, Recording)]


def _read_file(path: Path, signal: SignalSpec | None) -> Recording | list[Recording] | Foci:
    """A file or folder that is one thing: as the arrays that `signal` describes, or as the format it is told to be."""
    if path.is_file() and not path.stat().st_size:
        raise ValueError(f"{path} is empty; get it again.")
    if signal is not None:
        return (nifti if path.name.lower().endswith(nifti.SUFFIXES) else arrays).read_file(path, signal)
    if (found := format_of(path)) is None:
        names = ", ".join(f.name for f in FORMATS)
        raise ValueError(
            f"{path} says neither what was measured nor how fast; describe it: read(path, SignalSpec({_example(path)})), or write a "
            f"dataset card. Neither its content nor its name is one of {names}."
        )
    try:
        return found.read(path)
    except ValueError as error:
        suits = not found.suffixes or path.name.lower().endswith(found.suffixes)
        remedy = "" if suits else f" Its content is {found.name}: give it a name that ends in {found.suffixes[0]}."
        raise ValueError(f"{error} (It was read as {found.name}.){remedy}") from None


def _example(path: Path) -> str:
    """Words that could describe an array file of this kind."""
    named = {".1d": "modality='fmri', sfreq=0.5", ".slp": "modality='pose', sfreq=25"}
    several = dict.fromkeys((".mat", ".h5", ".hdf5", ".npz"), "modality='spikes', sfreq=20, variable='counts'")
    frames = dict.fromkeys((".rda", ".rdata", ".rds"), "modality='eye', sfreq=300, variable='object/column'")
    return {**named, **several, **frames}.get(path.suffix.lower(), "modality='eeg', sfreq=250, unit='uV'")


def _as_list(found: Recording | list[Recording] | Foci) -> list[Recording] | list[Recording | Foci]:
    return found if isinstance(found, list) else [found]
