"""Seconds and memory from an NWB file to its first window, for files of 10 MB to 2 GB, against pynwb reading the series whole.

Each size is an ElectricalSeries of 64 channels of int16 at 1250 Hz, not compressed. Every measurement is a process of its own that
imports the libraries, takes the time and the memory it then has as zero, and reads one second from the middle; memory is the most
that the process then held above that zero (Linux). "ours, saved" streams the whole recording to disk first. The peer comes last,
when the file has been read before.
`ratio` = the peer's seconds / ours for the largest file; our memory must not grow with the file, which is checked.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

SIZES_MB = (10, 100, 500, 2000)
CHANNELS, RATE = 64, 1250
#: What may come and go between processes that do the same.
SLACK_MB = 20


def write(path: Path, megabytes: int) -> None:
    """A file with `megabytes` of int16, written a piece at a time."""
    import pynwb
    from hdmf.backends.hdf5 import H5DataIO
    from hdmf.data_utils import DataChunkIterator

    piece = np.random.default_rng(0).integers(-2000, 2000, (megabytes * 1_000_000 // (2 * CHANNELS) // 10, CHANNELS)).astype(np.int16)

    def pieces() -> Iterator[np.ndarray]:
        for _ in range(10):
            yield from piece

    nwb = pynwb.NWBFile("benchmark", "id", datetime(2024, 1, 1, tzinfo=UTC))
    group = nwb.create_electrode_group("shank", "d", "CA1", nwb.create_device("probe"))
    for _ in range(CHANNELS):
        nwb.add_electrode(group=group, location="CA1")
    region = nwb.create_electrode_table_region(list(range(CHANNELS)), "all")
    data = DataChunkIterator(pieces(), buffer_size=len(piece), maxshape=(10 * len(piece), CHANNELS), dtype=np.dtype(np.int16))
    nwb.add_acquisition(
        pynwb.ecephys.ElectricalSeries(name="lfp", data=H5DataIO(data), electrodes=region, rate=float(RATE), conversion=1e-7)
    )
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwb)


# ---------------------------------------------------------------- one process each
def ours(path: Path) -> np.ndarray:
    from neurofm_ml.data import read

    lfp = read(path).signals["lfp"]
    middle = lfp.span[1] / 2
    return lfp.slice(middle, middle + 1).values


def ours_saved(path: Path) -> np.ndarray:
    from neurofm_ml.data import read
    from neurofm_ml.data.recordings import load_recording, save_recording

    lfp = load_recording(save_recording(read(path), path.parent)).signals["lfp"]
    middle = lfp.span[1] / 2
    return lfp.slice(middle, middle + 1).values


def pynwb_whole(path: Path) -> np.ndarray:
    import pynwb

    with pynwb.NWBHDF5IO(path, "r") as io:
        lfp = io.read().acquisition["lfp"]
        values = lfp.data[:]
        return values[len(values) // 2 :][:RATE].astype(np.float32) * np.float32(lfp.conversion)


WAYS = {"ours": ours, "ours, saved": ours_saved, "pynwb, whole": pynwb_whole}


def in_this_process(way: str, path: Path) -> dict[str, float]:
    """Seconds, MB above what the imports take, and the sum of the window."""
    import pynwb  # noqa: F401

    import neurofm_ml.data.recordings  # noqa: F401

    Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is that of what follows
    before, start = memory_mb("VmRSS"), time.perf_counter()
    window = WAYS[way](path)
    return {"seconds": time.perf_counter() - start, "mb": memory_mb("VmHWM") - before, "sum": float(window.sum(dtype=np.float64))}


def memory_mb(field: str) -> float:
    (kilobytes,) = re.findall(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kilobytes) / 1024


def in_a_process(way: str, path: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, way, str(path)], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    print(f"{'MB':>6s}" + "".join(f"{way + ', s':>18s}{'MB':>8s}" for way in WAYS))
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for size in SIZES_MB:
            path = Path(folder) / "bench.nwb"
            write(path, size)
            rows.append({way: in_a_process(way, path) for way in WAYS})
            assert len({round(found["sum"], 6) for found in rows[-1].values()}) == 1, "every way reads the same window"
            print(f"{size:6d}" + "".join(f"{rows[-1][way]['seconds']:18.3f}{rows[-1][way]['mb']:8.0f}" for way in WAYS), flush=True)
    for way in ("ours", "ours, saved"):
        grown = rows[-1][way]["mb"] - rows[1][way]["mb"]  # below, a file is smaller than one piece of it
        assert grown < SLACK_MB, f"{way}: memory grew by {grown:.0f} MB from {SIZES_MB[1]} to {SIZES_MB[-1]} MB"
    mine, peer = (rows[-1][way]["seconds"] for way in ("ours", "pynwb, whole"))
    result = {
        "name": "nwb_open",
        "ours": round(mine, 3),
        "peer": round(peer, 3),
        "ratio": round(peer / mine, 1),
        "unit": "s to the first window",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(in_this_process(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()
