"""MB/s from a raw file to a recording on disk, per format, against the library that we wrap.

Ours: ``read`` and `save_recording` (lazy, a piece at a time, names, units, clock and checks included). The peer: a user's few lines
with the same library, the whole series in memory, as (n_times, n_chans) float32 to one ``.npy``; for NIfTI nilearn's masker, which
makes parcels of an atlas as we do. Both write the same numbers, which is checked. MB are those of the raw file. The two take turns
on warm files and the best of the turns counts, as what else the machine does only ever adds.
`ratio` = peer seconds / our seconds of the worst format.
"""

import json
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from neurofm_ml.data import read
from neurofm_ml.data.recordings import load_recording, save_recording
from neurofm_ml.knowledge.cards import SignalSpec
from neurofm_ml.types import Array, Recording, Signal

TURNS = 7
CHANNELS, RATE, SECONDS = 64, 512, 600
RNG = np.random.default_rng(0)


class Format(NamedTuple):
    """`write(path, counts)` makes the file, `peer(path)` gives its values; `signal` describes what does not describe itself."""

    name: str
    file: str
    write: Callable[[Path, Array], None]
    peer: Callable[[Path], Array]
    signal: SignalSpec | None = None
    shape: tuple[int, int] = (RATE * SECONDS, CHANNELS)


# ---------------------------------------------------------------- files; counts (n_times, n_chans) int16
def write_edf(path: Path, counts: Array) -> None:
    """One-second records; a count is 0.1 uV."""
    n = counts.shape[1]
    columns = [
        *[("EEG", 16), ("", 80), ("uV", 8), ("-3276.8", 8), ("3276.7", 8), ("-32768", 8), ("32767", 8), ("", 80), (str(RATE), 8), ("", 32)]
    ]
    head = [("0", 8), ("X X X X", 80), ("Startdate X X X X", 80), ("01.01.24", 8), ("00.00.00", 8), (str(256 * (n + 1)), 8), ("", 44)]
    head += [(str(len(counts) // RATE), 8), ("1", 8), (str(n), 4)]
    text = "".join(word.ljust(width) for word, width in head)
    for k, (word, width) in enumerate(columns):
        text += "".join((f"{word}{i}" if k == 0 else word).ljust(width) for i in range(n))
    records = counts.reshape(-1, RATE, n).transpose(0, 2, 1)
    path.write_bytes(text.encode() + records.astype("<i2").tobytes())


def write_brainvision(path: Path, counts: Array) -> None:
    n = counts.shape[1]
    channels = "\n".join(f"Ch{i + 1}=E{i},,0.1,uV" for i in range(n))
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=bench.eeg\nMarkerFile=bench.vmrk\n"
        f"DataFormat=BINARY\nDataOrientation=MULTIPLEXED\nNumberOfChannels={n}\nSamplingInterval={1e6 / RATE}\n"
        f"[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\n{channels}\n"
    )
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=bench.eeg\n[Marker Infos]\n"
    )
    counts.astype("<i2").tofile(path.with_suffix(".eeg"))


def write_fif(path: Path, counts: Array) -> None:
    import mne

    raw = mne.io.RawArray(counts.T * 1e-7, mne.create_info(counts.shape[1], RATE, "eeg"), verbose="error")
    raw.save(path, verbose="error")


def write_nwb(path: Path, counts: Array) -> None:
    import pynwb

    nwb = pynwb.NWBFile("benchmark", "id", datetime(2024, 1, 1, tzinfo=UTC))
    group = nwb.create_electrode_group("shank", "d", "CA1", nwb.create_device("probe"))
    for _ in range(counts.shape[1]):
        nwb.add_electrode(group=group, location="CA1")
    region = nwb.create_electrode_table_region(list(range(counts.shape[1])), "all")
    nwb.add_acquisition(pynwb.ecephys.ElectricalSeries(name="lfp", data=counts, electrodes=region, rate=float(RATE), conversion=1e-7))
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwb)


def write_npy(path: Path, counts: Array) -> None:
    np.save(path, counts)


def write_csv(path: Path, counts: Array) -> None:
    np.savetxt(path, counts * 0.1, "%.1f", ",", header=",".join(f"E{i}" for i in range(counts.shape[1])), comments="")


def write_nifti(path: Path, counts: Array) -> None:
    """The channels are voxels of 40 x 40 x n; an atlas of 200 parcels lies beside them."""
    import nibabel

    affine = np.diag([3.0, 3, 3, 1])
    image = nibabel.Nifti1Image(np.ascontiguousarray(counts.T).reshape(40, 40, -1, len(counts), order="F"), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((3, 3, 3, 2.0))
    nibabel.save(image, path)
    nibabel.save(nibabel.Nifti1Image(RNG.integers(0, 201, image.shape[:3]).astype(np.int16), affine), path.with_name("atlas.nii"))


# ---------------------------------------------------------------- the same by the library alone
def by_mne(path: Path) -> Array:
    import mne

    return mne.io.read_raw(path, preload=True, verbose="error").get_data().T


def by_pynwb(path: Path) -> Array:
    import pynwb

    with pynwb.NWBHDF5IO(path, "r") as io:
        return io.read().acquisition["lfp"].get_data_in_units()


def by_pandas(path: Path) -> Array:
    import pandas as pd

    return pd.read_csv(path).to_numpy()


def by_nilearn(path: Path) -> Array:
    from nilearn.maskers import NiftiLabelsMasker

    return NiftiLabelsMasker(path.with_name("atlas.nii"), standardize=None, resampling_target=None).fit_transform(path)


FORMATS = (
    Format("EDF", "bench.edf", write_edf, by_mne),
    Format("BrainVision", "bench.vhdr", write_brainvision, by_mne),
    Format("FIF", "bench_raw.fif", write_fif, by_mne),
    Format("NWB", "bench.nwb", write_nwb, by_pynwb),
    Format("npy", "bench.npy", write_npy, np.load, SignalSpec(modality="lfp", sfreq=RATE)),
    Format("csv", "bench.csv", write_csv, by_pandas, SignalSpec(modality="lfp", sfreq=RATE), (RATE * 60, CHANNELS)),
    Format("NIfTI", "bench.nii", write_nifti, by_nilearn, SignalSpec(modality="fmri", positions="atlas.nii"), (400, 64000)),
)


def ours(format: Format, path: Path, out: Path) -> Path:
    recording = read(path, format.signal)
    assert isinstance(recording, Recording)
    return save_recording(recording, out)


def theirs(format: Format, path: Path, out: Path) -> Path:
    np.save(out / "peer.npy", np.ascontiguousarray(format.peer(path), np.float32))
    return out / "peer.npy"


def seconds(run: Callable[[Format, Path, Path], Path], format: Format, path: Path, out: Path) -> float:
    start = time.perf_counter()
    run(format, path, out)
    return time.perf_counter() - start


def measure(format: Format, folder: Path) -> tuple[float, float, float]:
    """(MB, our seconds, the peer's seconds)."""
    path, out = folder / format.file, folder / "out"
    out.mkdir()
    format.write(path, np.cumsum(RNG.integers(-9, 10, format.shape), axis=0).clip(-30000, 30000).astype(np.int16))
    (series,) = load_recording(ours(format, path, out)).signals.values()
    assert isinstance(series, Signal)
    np.testing.assert_allclose(series.values, np.load(theirs(format, path, out)), rtol=1e-5, atol=1e-12)
    turns = [(seconds(ours, format, path, out), seconds(theirs, format, path, out)) for _ in range(TURNS)]
    mine, peer = (min(column) for column in zip(*turns, strict=True))
    return sum(p.stat().st_size for p in folder.glob("bench*")) / 1e6, mine, peer


def main() -> None:
    warnings.simplefilter("ignore")
    print(f"{'':14s}{'MB':>6s}{'ours MB/s':>12s}{'peer MB/s':>12s}{'ratio':>8s}")
    rows = []
    for format in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            size, mine, peer = measure(format, Path(folder))
        rows.append((peer / mine, size / mine, size / peer))
        print(f"{format.name:14s}{size:6.0f}{size / mine:12,.0f}{size / peer:12,.0f}{peer / mine:8.2f}", flush=True)
    ratio, speed, peer_speed = min(rows)
    print(json.dumps({"name": "ingest", "ours": round(speed), "peer": round(peer_speed), "ratio": round(ratio, 2), "unit": "MB/s"}))


if __name__ == "__main__":
    main()
