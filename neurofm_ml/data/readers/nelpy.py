"""nelpy's example data: spikes in cells of cells (tetrode, unit) and Trodes' video tracking in binary.

Both clocks are seconds of the same acquisition system.
"""

import re
from pathlib import Path

import numpy as np

from neurofm_ml.data.readers.base import build, check_times, naming
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec
from neurofm_ml.knowledge.files import recording_files
from neurofm_ml.types import Array, Recording, Samples, Series, SpikeTrain

_END = b"<End settings>\n"
_KINDS = {"uint32": "<u4", "uint16": "<u2"}


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """Spikes of every unit that fired, and the tracked position of the first light."""
    signals: dict[str, Series] = {}
    for name, signal in card.signals.items():
        path = recording_files(card, spec, signal.file or card.pattern)[0]
        with naming(path):
            if signal.modality == "spikes":
                signals[name] = read_spikes(path)
            else:
                times, values = read_tracking(path)
                signals[name] = Samples(times, values, signal.modality, signal.ch_names, signal.unit)
    return build(card, spec, signals)


def read_spikes(path: Path) -> SpikeTrain:
    """Units that fired at least once; "t3u2" is the second unit of the third tetrode."""
    from scipy.io import loadmat

    try:
        mat = loadmat(path)
    except Exception as error:  # whatever a damaged file does to the parser
        raise ValueError(f"it is damaged, cut short or no MATLAB file ({error}); get it again.") from None
    if "spikes" not in mat:
        raise ValueError(f"no variable 'spikes'; it holds {', '.join(k for k in mat if not k.startswith('__'))}.")
    units: dict[str, Array] = {}
    for t, tetrode in enumerate(_cells(mat["spikes"]), 1):
        for u, unit in enumerate(tetrode.ravel(), 1):
            if unit.size and (times := unit["time"][0, 0].ravel()).size:
                units[f"t{t}u{u}"] = times
    if not units:
        raise ValueError("none of its units has a spike; get it again.")
    times = np.concatenate(list(units.values()))
    index = np.repeat(np.arange(len(units)), [len(t) for t in units.values()])
    order = np.argsort(times, kind="stable")
    return SpikeTrain(check_times(times[order]), index[order], tuple(units))


def _cells(cells: Array) -> Array:
    """The cells of tetrodes, inside single cells for day and epoch."""
    while cells.size == 1 and cells.dtype == object:
        cells = cells.ravel()[0]
    return cells.ravel()


def read_tracking(path: Path) -> tuple[Array, Array]:
    """(times (n,) seconds, (n, 2) x and y in pixels) of a ``.videoPositionTracking`` file."""
    raw = path.read_bytes()
    head, found, body = raw.partition(_END)
    clock = re.search(rb"clockrate: (\d+)", head)
    fields = re.findall(r"<(\w+) (\w+)>", head.decode("latin-1").partition("Fields:")[2])
    if not (found and clock and fields):
        raise ValueError("no header with clockrate and Fields; it is no video tracking file.")
    layout = np.dtype([(name, _KINDS[kind]) for name, kind in fields])
    if len(body) % layout.itemsize:
        raise ValueError(f"it is cut short: {len(body)} bytes are no whole number of records of {layout.itemsize} bytes; get it again.")
    records = np.frombuffer(body, layout)
    xy = np.stack([records["xloc"], records["yloc"]], axis=1).astype(np.float32)
    return check_times(records["time"] / int(clock[1])), xy
