"""Values that stay in their file are, row for row, those of an array in memory, and no more of them is read than was asked for."""

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nwb_examples import write_nwb

from neurofm_ml.data import lazy as lazy_module
from neurofm_ml.data import read
from neurofm_ml.data.grid import to_grid
from neurofm_ml.data.lazy import LazyArray, chunks, columns, laid_end_to_end, lazy, mapped
from neurofm_ml.data.recordings import load_recording, save_recording
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec
from neurofm_ml.types import Array, Recording, Signal, Subject

TRUTH = np.random.default_rng(0).normal(size=(23, 4)).astype(np.float32)


class File:
    """Rows of TRUTH, and which of them were read."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []

    def rows(self, start: int, stop: int) -> Array:
        self.reads.append((start, stop))
        return TRUTH[start:stop].copy()

    def array(self, together: int = 1) -> Array:
        return lazy((23, 4), self.rows, together)


KEYS: list[Any] = [
    slice(None), slice(3, 9), slice(-5, None), slice(9, 3), slice(2, 20, 7), slice(30, 40), 0, -1, np.int64(7),
    (slice(3, 9), 1), (slice(3, 9), [2, 0]), (slice(3, 9), slice(1, 3)), (slice(0, 4), np.array([True, False, True, False])), (5, 2),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_rows_are_those_of_an_array(key: Any) -> None:
    np.testing.assert_array_equal(File().array()[key], TRUTH[key])


def test_it_looks_like_an_array() -> None:
    values = File().array()
    assert (values.shape, values.ndim, values.dtype, values.nbytes, len(values)) == ((23, 4), 2, np.float32, TRUTH.nbytes, 23)
    np.testing.assert_array_equal(np.asarray(values), TRUTH)
    assert np.asarray(values, np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.isfinite(values), np.ones((23, 4), bool))


@pytest.mark.parametrize("key", [[1, 2], np.ones(23, bool), slice(None, None, -1), "a", None], ids=str)
def test_rows_are_asked_for_onwards(key: Any) -> None:
    with pytest.raises(TypeError, match=r"(?s)by a number or a slice onwards, not .*; use np.asarray to read all"):
        File().array()[key]


def test_a_slice_reads_nothing_else() -> None:
    file = File()
    signal = Signal(file.array(), 10.0, "lfp", t0=1.0)
    assert (signal.span, len(signal.ch_names), file.reads) == ((1.0, 3.3), 4, [])
    Recording("a", "d", Subject("s"), "s", "x", "l", {"lfp": signal})
    repr(signal)
    assert file.reads == [], "nothing is read to look at a recording"
    np.testing.assert_array_equal(signal.slice(1.5, 2.0).values, TRUTH[5:10])
    assert file.reads == [(5, 10)]


def test_pieces_cover_all_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_module, "CHUNK_BYTES", 5 * 16)
    for together, sizes in ((1, [5, 5, 5, 5, 3]), (4, [8, 8, 7]), (7, [7, 7, 7, 2])):
        file = File()
        pieces = list(chunks(file.array(together)))
        assert [len(p) for p in pieces] == sizes
        np.testing.assert_array_equal(np.concatenate(pieces), TRUTH)
    monkeypatch.setattr(lazy_module, "MAX_CHUNK_BYTES", 6 * 16)
    assert max(len(p) for p in chunks(File().array(together=23))) == 6


def test_what_is_made_of_them_stays_in_the_file() -> None:
    """Columns side by side, parts end to end, a function of the rows: against numpy, for every stretch of rows."""
    made = {
        "columns": (columns([(File().array(), [3, 0]), (TRUTH * 2, [1])]), np.column_stack([TRUTH[:, [3, 0]], TRUTH[:, 1] * 2])),
        "end to end": (
            laid_end_to_end([File().array(), TRUTH[:0], TRUTH[:1], File().array()]),
            np.concatenate([TRUTH, TRUTH[:1], TRUTH]),
        ),
        "mapped": (mapped(File().array(), lambda rows: rows * 3 + 1), TRUTH * 3 + 1),
    }
    for name, (values, truth) in made.items():
        assert isinstance(values, LazyArray), name
        for start, stop in itertools.combinations(range(len(truth) + 1), 2):
            np.testing.assert_array_equal(values[start:stop], truth[start:stop], err_msg=f"{name} {start}:{stop}")
        assert values[4:4].shape == (0, truth.shape[1])
    assert isinstance(columns([(TRUTH, [1])]), np.ndarray)


# ---------------------------------------------------------------- a recording of them
def recording(values: Array) -> Recording:
    signals = {"lfp": Signal(values, 10.0, "lfp"), "gaze": Signal(mapped(values, np.abs), 10.0, "eye")}
    return Recording("a", "d", Subject("s"), "s", "x", "l", signals)


def test_it_is_saved_as_an_array_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = save_recording(recording(TRUTH), tmp_path / "memory")
    monkeypatch.setattr(lazy_module, "CHUNK_BYTES", 5 * 16)
    file = File()
    streamed = save_recording(recording(file.array()), tmp_path / "file")
    for name in ("lfp.values.npy", "gaze.values.npy", "recording.json"):
        assert (streamed / name).read_bytes() == (whole / name).read_bytes()
    assert max(stop - start for start, stop in file.reads) == 5, "never the whole"
    np.testing.assert_array_equal(load_recording(streamed).signals["lfp"].values, TRUTH)


def test_it_goes_onto_the_grid_as_an_array_does() -> None:
    card = DatasetCard(
        name="d", title="t", species="s", licence="l", source="s", reader="nwb", signals={"lfp": SignalSpec(modality="lfp")},
        grid_hz=5, window_s=1, stride_s=1,
    )  # fmt: skip
    ours, truth = (to_grid(recording(values), card) for values in (File().array(), TRUTH))
    for name in ("lfp", "gaze"):
        np.testing.assert_array_equal(ours.signals[name].values, truth.signals[name].values)


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window, and all of it saved, held to a few pieces of half a megabyte."""

    def add(nwb: Any) -> None:
        from pynwb import TimeSeries

        module = nwb.create_processing_module(name="behavior", description="d")
        module.add(TimeSeries(name="long", data=np.zeros((400_000, 16), np.int16), unit="m", rate=1000.0))

    path = write_nwb(tmp_path / "long.nwb", add)
    monkeypatch.setattr(lazy_module, "CHUNK_BYTES", 500_000)
    found = read(path)
    assert isinstance(found, Recording)
    tracemalloc.start()
    found.slice(100, 101)
    save_recording(found, tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.signals["long"].values.nbytes == 25_600_000
    assert peak < 3_000_000
