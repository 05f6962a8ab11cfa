"""Axona (DACQ): a ``.set`` of settings beside LFP (``.eeg``, ``.egf``), tracking (``.pos``), tetrodes (``.1``, ``.2``) and clusters
(``_1.cut``) of the same trial. Each is a text header, then big-endian records after ``data_start``.

LFP comes in volts by the gains of the ``.set``, position in metres, spikes by tetrode and cluster.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from neurofm_ml.data.readers.adopt import adopt, data_file
from neurofm_ml.data.readers.base import alone, check_times, naming
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec
from neurofm_ml.types import Array, Recording, Series, Signal, SpikeTrain

#: What the tracker writes for a light that it does not see.
_UNSEEN = 1023
_SEPARATOR, _TAIL = b"data_start", b"\r\ndata_end"
_LIGHTS = ("x1", "y1", "x2", "y2")


class Block(NamedTuple):
    """Header and records of one file."""

    path: Path
    header: Mapping[str, str]
    body: bytes

    def number(self, field: str) -> float:
        """A field that begins with a number, such as ``sample_rate 250.0 hz``."""
        if not (match := re.match(r"-?[\d.]+", self.header.get(field, ""))):
            raise ValueError(f"{self.path}: its header has no number {field!r}; it is damaged or another format, get it again.")
        return float(match[0])

    def records(self, layout: np.dtype[np.void] | str, count: float) -> Array:
        """(count,) records. Raises ValueError for a file that holds fewer than its header states."""
        kind = np.dtype(layout)
        if len(self.body) < count * kind.itemsize:
            raise ValueError(
                f"{self.path} is cut short: its header states {count:g} records, it has {len(self.body) // kind.itemsize}; get it again."
            )
        return np.frombuffer(self.body, kind, int(count))


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """One trial of a card."""
    path = data_file(card, spec, (".set",))
    return adopt(read_file(path), card, spec, path)


def read_file(path: Path) -> Recording:
    """The trial whose settings `path` holds, with every file beside it."""
    settings = read_block(path)
    spikes, noise = _spikes(path)
    position, miscounted = _position(path)
    found: dict[str, Series | None] = {
        "lfp": _lfp(path, settings, "eeg"),
        "egf": _lfp(path, settings, "egf"),
        "spikes": spikes,
        "position": position,
    }
    signals = {name: series for name, series in found.items() if series is not None}
    if not signals:
        raise ValueError(f"{path} has no .eeg, .egf, .pos or tetrode beside it; put the files of the trial in one folder.")
    return alone(path, "axona", signals, notes=(*noise, *miscounted), span=(0.0, settings.number("duration")))


def read_block(path: Path) -> Block:
    """Header and body of one Axona file."""
    head, _, body = path.read_bytes().partition(_SEPARATOR)
    fields = (line.split(" ", 1) for line in head.decode("latin-1").splitlines() if " " in line)
    header = {name: value.strip() for name, value in fields}
    if "trial_date" not in header:
        raise ValueError(f"{path} has no header with a trial_date; it is no Axona file, or damaged.")
    return Block(path, header, body.removesuffix(_TAIL + b"\r\n"))


def _lfp(path: Path, settings: Block, kind: str) -> Signal | None:
    """The channels saved as ``.eeg, .eeg2, ...`` (or ``.egf...``), in volts, named by their channel."""
    channels: dict[str, Array] = {}
    rates = set()
    for number in range(1, 65):
        file = path.with_suffix(f".{kind}{number if number > 1 else ''}")
        if not file.exists():
            continue
        block = read_block(file)
        n_bytes = int(block.number("bytes_per_sample"))
        if n_bytes not in (1, 2, 4):
            raise ValueError(f"{file}: bytes_per_sample is {n_bytes}; it is damaged, get it again.")
        samples = block.records(f">i{n_bytes}", block.number("num_EEG_samples" if kind == "eeg" else "num_EGF_samples"))
        channel = int(settings.number(f"EEG_ch_{number}"))
        volts = settings.number("ADC_fullscale_mv") * 1e-3 / settings.number(f"gain_ch_{channel - 1}")
        channels[f"ch{channel}"] = samples.astype(np.float32) * np.float32(volts / 2 ** (8 * n_bytes - 1))
        rates.add(block.number("sample_rate"))
    if not channels:
        return None
    if len(rates) > 1 or len({len(c) for c in channels.values()}) > 1:
        raise ValueError(f"{path}: its .{kind} files differ in rate or length; get them again.")
    return Signal(np.stack(list(channels.values()), axis=1), rates.pop(), "lfp", 0.0, tuple(channels), unit="V")


def _position(path: Path) -> tuple[Signal | None, tuple[str, ...]]:
    """(n_times, 4) metres of the two lights, NaN where one was not seen, and a note where frames were miscounted."""
    file = path.with_suffix(".pos")
    if not file.exists():
        return None, ()
    block = read_block(file)
    layout = np.dtype([("frame", ">u4"), ("xy", ">u2", 4), ("pixels", ">u2", 4)])
    if not block.header.get("pos_format", "").startswith("t,x1,y1,x2,y2"):
        raise ValueError(f"{file}: its pos_format is {block.header.get('pos_format')!r}; the reader knows t,x1,y1,x2,y2,... (two lights).")
    records = block.records(layout, block.number("num_pos_samples"))
    metres = np.where(records["xy"] == _UNSEEN, np.nan, records["xy"]) / block.number("pixels_per_metre")
    strayed = int((np.diff(records["frame"].astype(np.int64)) != 1).sum())
    note = (f"position: {strayed} frame counts do not follow the one before; rows are taken as one per frame, as the tracker's do",)
    position = Signal(metres.astype(np.float32), block.number("sample_rate"), "pose", 0.0, _LIGHTS, unit="m")
    return position, note if strayed else ()


def _spikes(path: Path) -> tuple[SpikeTrain | None, tuple[str, ...]]:
    """Spikes of every tetrode; "t5c2" is cluster 2 of tetrode 5, "t5" a tetrode that was not cut. Cluster 0 is noise."""
    times: list[Array] = []
    units: list[str] = []
    noise = 0
    for file in sorted((p for p in path.parent.glob(f"{path.stem}.*") if p.suffix[1:].isdigit()), key=lambda p: int(p.suffix[1:])):
        tetrode = file.suffix[1:]
        with naming(file):
            seconds = _spike_times(read_block(file))
        cut = path.with_name(f"{path.stem}_{tetrode}.cut")
        clusters = read_cut(cut, len(seconds)) if cut.exists() else np.full(len(seconds), -1)
        noise += int((clusters == 0).sum())
        for cluster in np.unique(clusters[clusters != 0]):
            times.append(seconds[clusters == cluster])
            units.append(f"t{tetrode}c{cluster}" if cluster > 0 else f"t{tetrode}")
    if not units:
        return None, ()
    joined, index = np.concatenate(times), np.repeat(np.arange(len(units)), [len(t) for t in times])
    order = np.argsort(joined, kind="stable")
    return SpikeTrain(joined[order], index[order], tuple(units)), (f"left out {noise} spikes of the noise clusters 0",)


def _spike_times(block: Block) -> Array:
    """(n_spikes,) seconds: the time stamp of the first wire of each spike."""
    wire = np.dtype([("t", f">u{int(block.number('bytes_per_timestamp'))}"), ("wave", "i1", int(block.number("samples_per_spike")))])
    layout = np.dtype([("wire", wire, int(block.number("num_chans")))])
    records = block.records(layout, block.number("num_spikes"))
    return check_times(records["wire"]["t"][:, 0] / block.number("timebase"))


def read_cut(path: Path, n_spikes: int) -> Array:
    """(n_spikes,) cluster of each spike."""
    _, _, body = path.read_text(encoding="latin-1").partition("Exact_cut_for")
    with naming(path):
        clusters = np.array(body.split("\n", 1)[-1].split(), np.int64)
    if len(clusters) != n_spikes:
        raise ValueError(f"{path} names the cluster of {len(clusters)} spikes, the tetrode has {n_spikes}; the two must be of one trial.")
    return clusters
