"""Collate against a twin that fills lists one number at a time, on samples made by hand; the vocabulary."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neurofm_ml.config import to_dict
from neurofm_ml.data.batches import Collate, Vocabulary, build_vocabulary, neural_signals, side_signals
from neurofm_ml.data.scaler import SPIKE_LIMIT, Scaler, standardised
from neurofm_ml.knowledge.cards import DatasetCard, IntervalSpec, SignalSpec, TaskSpec
from neurofm_ml.types import Batch

SPIKES, POSE = SignalSpec(modality="spikes"), SignalSpec(modality="pose")
#: Both sets call their units "counts" and their recording "r1"; only the second has EEG, at four times the grid.
CARDS = {
    "apes": DatasetCard(
        name="apes", title="", species="", licence="", source="", reader="arrays", grid_hz=5, window_s=1.6, stride_s=0.8,
        signals={"counts": SPIKES, "velocity": POSE}, tasks=(TaskSpec(name="speed", target="velocity", inputs=("counts",), channels=("vy",)),),
    ),
    "rats": DatasetCard(
        name="rats", title="", species="", licence="", source="", reader="arrays", grid_hz=4, window_s=1.5, stride_s=0.5,
        signals={"counts": SPIKES, "eeg": SignalSpec(modality="eeg"), "place": POSE},
        intervals={"words": IntervalSpec(), "runs": IntervalSpec()},
        tasks=(TaskSpec(name="place", target="place", inputs=("counts",)),),
    ),
}  # fmt: skip
CHANNELS = {
    "apes": {"a": {"counts": ("u1", "u2", "u3"), "velocity": ("vx", "vy")}, "b": {"counts": ("u1", "u9"), "velocity": ("vx", "vy")}},
    "rats": {"s": {"counts": ("u1",), "eeg": ("Cz", "Pz"), "place": ("x", "y")}},
}
RATES = {"apes": {"counts": 5.0, "velocity": 5.0}, "rats": {"counts": 4.0, "eeg": 16.0, "place": 4.0}}
POSITIONS = [[0.0, 0.0, 0.1], [0.0, -0.05, 0.08]]


def about(dataset: str, signal: str, names: tuple[str, ...]) -> dict[str, Any]:
    modality = CARDS[dataset].signals[signal].modality
    positions = POSITIONS if modality == "eeg" else None
    return {"modality": modality, "sfreq": RATES[dataset][signal], "ch_names": list(names), "positions": positions, "unit": ""}


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    for name, card in CARDS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").write_text(json.dumps(to_dict(card)))
        table = {session: {s: about(name, s, chs) for s, chs in signals.items()} for session, signals in CHANNELS[name].items()}
        (tmp_path / name / "channels.json").write_text(json.dumps(table))
    return [tmp_path / name for name in CARDS]


@pytest.fixture
def scaler() -> Scaler:
    rng = np.random.default_rng(1)
    keys = [(d, session, s, len(chs)) for d, table in CHANNELS.items() for session, signals in table.items() for s, chs in signals.items()]
    return Scaler(
        {
            (d, session, s): (rng.uniform(0.2, 1, n).astype(np.float32), rng.uniform(0.3, 2, n).astype(np.float32))
            for d, session, s, n in keys
        }
    )


def sample(dataset: str, session: str, k: int, start: float, seconds: float, *without: str) -> dict[str, Any]:
    rng = np.random.default_rng(k)
    arrays, hz = {}, CARDS[dataset].grid_hz
    for name, chs in CHANNELS[dataset][session].items():
        shape = (round(seconds * RATES[dataset][name]), len(chs))
        arrays[name] = rng.poisson(2, shape).astype(np.uint8) if name == "counts" else rng.normal(size=shape).astype(np.float32)
    signals = {name: {"modality": "", "t0": start, "sfreq": RATES[dataset][name]} for name in arrays}
    grid = {"t0": start, "hz": hz, "n": round(seconds * hz)}
    meta = {
        "dataset": dataset,
        "recording": "r1",
        "session": session,
        "start": start,
        "end": start + seconds,
        "grid": grid,
        "signals": signals,
    }
    return {**{n: v for n, v in arrays.items() if n not in without}, "json": meta, "__key__": "r1-000000", "__row__": k}


def samples() -> list[dict[str, Any]]:
    ape = sample("apes", "a", 0, 10.0, 1.6)
    ape["counts"][0] = 200
    ape["velocity"][3, 1] = np.nan
    rat = sample("rats", "s", 3, 1.7e9, 1.5)
    return [ape, sample("apes", "b", 1, 20.2, 0.8), sample("apes", "b", 2, 0.0, 1.2, "velocity"), rat]


def twin_stream(name: str, windows: list[dict[str, Any]], vocabulary: Vocabulary, scaler: Scaler) -> dict[str, list[Any]]:
    """Every entry by itself: where a window has it, else what padding is."""
    length, width = (max(w[name].shape[d] for w in windows if name in w) for d in (0, 1))
    out: dict[str, list[Any]] = {key: [] for key in ("values", "counts", "mask", "channel_mask", "ids", "times", "positions")}
    for w in windows:
        meta, here = w["json"], w.get(name, np.zeros((0, 0)))
        names = CHANNELS[meta["dataset"]][meta["session"]].get(name, ())
        known = vocabulary.channels.get("spikes" if name == "counts" else "eeg", ())
        mean, std = scaler.table.get((meta["dataset"], meta["session"], name), ((), ()))
        values, counts = [], []
        for t in range(length):
            for c in range(width):
                there = t < len(here) and c < here.shape[1]
                raw = float(here[t, c]) if there else 0.0
                z = ((math.sqrt(raw) if name == "counts" else raw) - mean[c]) / std[c] if there else 0.0
                values.append(min(max(z, -SPIKE_LIMIT), SPIKE_LIMIT) if name == "counts" else z)
                counts.append(raw)
        out["values"].append(values)
        out["counts"].append(counts)
        out["mask"].append([t < len(here) for t in range(length)])
        out["channel_mask"].append([c < here.shape[1] for c in range(width)])
        full = [f"{meta['dataset']}/{meta['session']}/{name}/{ch}" for ch in names]
        out["ids"].append([known.index(full[c]) + 1 if c < len(full) and full[c] in known else 0 for c in range(width)])
        out["positions"].append([POSITIONS[c] if name == "eeg" and here.size else [0.0] * 3 for c in range(width)])
        rate = meta["signals"][name]["sfreq"] if name in w else next(v["json"]["signals"][name]["sfreq"] for v in windows if name in v)
        out["times"].append([t / rate for t in range(length)])
    return out


def same(found: torch.Tensor | None, expected: list[Any]) -> bool:
    assert found is not None
    return np.allclose(found.numpy().ravel(), np.array(expected, float).ravel(), atol=2e-6, rtol=2e-6, equal_nan=True)


def collated(shards: list[Path], scaler: Scaler, windows: list[dict[str, Any]], **options: Any) -> Batch:
    return Collate(shards, build_vocabulary(shards), scaler, **options)(windows)


def test_streams_equal_their_twin(shards, scaler):
    windows = samples()
    batch = collated(shards, scaler, windows)
    assert list(batch.streams) == ["counts", "eeg"]
    for name, stream in batch.streams.items():
        expected = twin_stream(name, windows, build_vocabulary(shards), scaler)
        for field in ("values", "mask", "channel_mask", "ids", "times"):
            assert same(getattr(stream, field), expected[field]), (name, field)
    counts, eeg = batch.streams["counts"], batch.streams["eeg"]
    assert same(counts.counts, twin_stream("counts", windows, build_vocabulary(shards), scaler)["counts"])
    assert counts.positions is None
    assert eeg.counts is None
    assert same(eeg.positions, twin_stream("eeg", windows, build_vocabulary(shards), scaler)["positions"])
    assert counts.values.abs().max() == SPIKE_LIMIT


def test_windows_without_a_signal_take_the_step_of_the_others(shards, scaler):
    """A tokenizer of patches needs one sampling rate in a batch."""
    assert torch.equal(collated(shards, scaler, samples()).streams["eeg"].dt, torch.full((4,), 1 / 16))


def test_grid_and_identity(shards, scaler):
    batch = collated(shards, scaler, samples())
    assert batch.mask.sum(1).tolist() == [8, 4, 6, 6]
    assert torch.allclose(batch.dt, torch.tensor([0.2, 0.2, 0.2, 0.25]))
    assert torch.allclose(batch.times, (torch.arange(8) + 0.5) * batch.dt[:, None])
    assert batch.session.tolist() == [1, 2, 2, 3]
    assert batch.rows.tolist() == [0, 1, 2, 3]
    assert batch.starts.tolist() == [10.0, 20.2, 0.0, 1.7e9]


def test_targets_equal_their_twin(shards, scaler):
    windows = samples()
    targets = collated(shards, scaler, windows).targets
    assert set(targets) == {"apes/speed", "rats/place"}
    for (task, signal, columns), width in zip([("apes/speed", "velocity", [1]), ("rats/place", "place", [0, 1])], [1, 2], strict=True):
        expected = np.full((4, 8, width), np.nan)
        for i, w in enumerate(windows):
            if w["json"]["dataset"] == task.split("/")[0] and signal in w:
                mean, std = scaler(w["json"]["dataset"], w["json"]["session"], signal)
                for t, row in enumerate(w[signal]):
                    expected[i, t] = [(row[c] - mean[c]) / std[c] for c in columns]
        assert same(targets[task], expected.tolist())


def test_targets_are_shown_only_where_labelled(shards, scaler):
    windows = samples()
    plain = collated(shards, scaler, windows).targets
    shown = collated(shards, scaler, windows, labelled={"apes/r1": (10.5, 11.1)}).targets
    middles = torch.tensor([w["json"]["start"] for w in windows], dtype=torch.float64)[:3, None] + (torch.arange(8) + 0.5) * 0.2
    inside = ((middles >= 10.5) & (middles < 11.1))[..., None]
    assert inside.sum() == 3
    assert torch.equal(shown["apes/speed"][:3].isfinite(), plain["apes/speed"][:3].isfinite() & inside)
    assert torch.equal(shown["rats/place"].isnan(), plain["rats/place"].isnan())


def test_only_the_signals_asked_for(shards, scaler):
    assert list(collated(shards, scaler, samples(), signals=["eeg"]).streams) == ["eeg"]


def test_only_the_tasks_asked_for(shards, scaler):
    assert list(collated(shards, scaler, samples(), tasks=["rats/place"]).targets) == ["rats/place"]


def test_a_batch_of_one_is_a_row_of_the_batch(shards, scaler):
    windows = samples()
    batch = collated(shards, scaler, windows)
    for i, window in enumerate(windows):
        alone = collated(shards, scaler, [window])
        t, c = alone.streams["counts"].values.shape[1:]
        assert torch.equal(alone.streams["counts"].values[0], batch.streams["counts"].values[i, :t, :c])
        assert torch.equal(alone.streams["counts"].ids[0], batch.streams["counts"].ids[i, :c])


def test_one_name_for_two_modalities_is_refused(shards, scaler):
    table = json.loads((shards[1] / "channels.json").read_text())
    table["s"]["counts"]["modality"] = "calcium"
    (shards[1] / "channels.json").write_text(json.dumps(table))
    with pytest.raises(ValueError, match="signal 'counts' is calcium and spikes in one batch; batch one dataset at a time"):
        collated(shards, scaler, samples())


def test_a_session_without_training_windows_is_refused(shards):
    with pytest.raises(ValueError, match=r"no scaler for signal 'counts' of session 'a' of 'apes'.* the session has no training window"):
        collated(shards, Scaler({}), samples())


def test_a_session_without_training_windows_is_scaled_by_the_others(shards):
    """Electrodes of a cap as those of the same name; units, whose names say nothing, as all are."""
    signals = {(dataset, s): chs for dataset, table in CHANNELS.items() for known in table.values() for s, chs in known.items()}
    together = {key: {"": (2.0, 4.0), **dict.fromkeys(chs, (0.5, 0.25))} for key, chs in signals.items()}
    rat = samples()[-1]
    batch = collated(shards, Scaler({}, together), [rat])
    for name, modality, scale in (("eeg", "eeg", (0.5, 0.25)), ("counts", "spikes", (2.0, 4.0))):
        expected = standardised(rat[name], modality, *np.float32(scale))
        np.testing.assert_allclose(batch.streams[name].values[0, : len(expected)], expected, rtol=1e-5)


# ---------------------------------------------------------------- behaviour and stimulus
def test_the_side_is_there_when_asked_for_and_never_among_the_streams(shards, scaler):
    plain, full = collated(shards, scaler, samples()), collated(shards, scaler, samples(), side=True)
    assert not plain.side
    assert list(full.side) == ["velocity", "place"]
    assert list(full.streams) == list(plain.streams) == ["counts", "eeg"]


def test_values_that_were_not_seen_are_nothing(shards, scaler):
    """One number missing, then a whole row: z-scores elsewhere, as the targets have them."""
    windows = samples()
    windows[3]["place"][2, 1] = windows[3]["place"][4] = np.nan
    batch = collated(shards, scaler, windows, side=True)
    place, target = batch.side["place"], batch.targets["rats/place"][3, :6]
    assert place.seen is not None
    assert torch.equal(place.seen[3], target.isfinite())
    assert torch.equal(place.values[3], target.nan_to_num())
    assert place.mask[3].tolist() == [True] * 4 + [False, True]
    assert not place.mask[:3].any()
    assert place.ids[3].tolist() == [5, 6]


def test_intervals_are_events_at_their_own_times(shards, scaler):
    windows = samples()
    for window in windows:
        window["json"]["intervals"] = {}
    began = windows[3]["json"]["start"]
    words = {"start": [began - 0.25, began + 0.5], "end": [began + 0.125, began + 0.75], "labels": ["down", "the"], "columns": {}}
    windows[3]["json"]["intervals"] = {"words": words, "runs": {"start": [began + 1], "end": [began + 1], "labels": [], "columns": {}}}
    windows[0]["json"]["intervals"] = {"runs": {"start": [10.5, 11.0], "end": [10.75, 11.0], "labels": ["go", "stop"], "columns": {}}}
    side = collated(shards, scaler, windows, side=True).side
    words, runs = side["words_intervals"], side["runs_intervals"]
    assert (words.modality, runs.modality) == ("language", "task")
    assert words.labels == ((), (), (), ("down", "the"))
    assert runs.labels == (("go", "stop"), (), (), ("runs",))
    assert words.times[3].tolist() == [-0.25, 0.5]
    assert words.values[3, :, 0].tolist() == [0.375, 0.25]
    assert runs.times.tolist() == [[0.5, 1.0], [0, 0], [0, 0], [1.0, 1.0]], "padding stands where the last event does"
    assert runs.mask.tolist() == [[True, True], [False, False], [False, False], [True, False]]
    assert bool(words.dt.isnan().all())


def test_targets_are_no_input():
    """An EMG that a task decodes is hidden from the model that decodes it; behaviour never was an input."""
    card = dataclasses.replace(
        CARDS["apes"],
        signals={**CARDS["apes"].signals, "muscle": SignalSpec(modality="emg"), "arm": SignalSpec(modality="emg")},
        tasks=(TaskSpec(name="pull", target="muscle", inputs=("counts",)),),
    )
    assert neural_signals(card) == ("counts", "arm")
    assert side_signals(card) == ("velocity",)


def test_channels_without_a_place_are_marked(shards, scaler):
    table = json.loads((shards[1] / "channels.json").read_text())
    table["s"]["eeg"]["positions"] = [POSITIONS[0], [math.nan] * 3]
    (shards[1] / "channels.json").write_text(json.dumps(table))
    eeg = collated(shards, scaler, samples()).streams["eeg"]
    assert eeg.positions is not None
    assert eeg.positions[3].isfinite().all(-1).tolist() == [True, False]
    assert eeg.ids[3].tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_roots_of_counts_have_full_precision_whatever_their_type(dtype):
    z = standardised(np.array([[2, 3, 5]], dtype), "spikes", np.zeros(3, np.float32), np.ones(3, np.float32))
    assert z.dtype == np.float32
    assert np.allclose(z, np.sqrt([[2.0, 3.0, 5.0]]), rtol=1e-6)


# ---------------------------------------------------------------- vocabulary
def test_vocabulary_of_shards(shards):
    vocabulary = build_vocabulary(shards)
    units = ("apes/a/counts/u1", "apes/a/counts/u2", "apes/a/counts/u3", "apes/b/counts/u1", "apes/b/counts/u9", "rats/s/counts/u1")
    pose = ("apes/a/velocity/vx", "apes/a/velocity/vy", "apes/b/velocity/vx", "apes/b/velocity/vy", "rats/s/place/x", "rats/s/place/y")
    assert vocabulary.channels == {"spikes": units, "pose": pose}
    assert vocabulary.sessions == ("apes/a", "apes/b", "rats/s")
    assert vocabulary.tasks == {"apes/speed": 1, "rats/place": 2}
    assert vocabulary.modalities == ("spikes", "eeg", "pose", "task", "language")
    assert np.allclose(vocabulary.channel_std("spikes"), [3**-0.5] * 3 + [2**-0.5] * 2 + [1])
    assert vocabulary.channel_std("eeg").shape == (0,)


def test_units_with_a_position_keep_their_rows(shards):
    """Only electrodes and parcels can be known by their place alone."""
    table = json.loads((shards[1] / "channels.json").read_text())
    table["s"]["counts"]["positions"] = [[0.0, 0.0, 0.0]]
    (shards[1] / "channels.json").write_text(json.dumps(table))
    assert build_vocabulary([shards[1]]).channels["spikes"] == ("rats/s/counts/u1",)


@pytest.mark.parametrize(
    ("positions", "rows"),
    [
        (POSITIONS, ()),
        (None, ("rats/s/eeg/Cz", "rats/s/eeg/Pz")),
        ([POSITIONS[0], [math.nan] * 3], ("rats/s/eeg/Pz",)),
        ([POSITIONS[0], POSITIONS[0]], ("rats/s/eeg/Cz", "rats/s/eeg/Pz")),
    ],
)
def test_electrodes_without_a_place_of_their_own_get_rows(shards, positions, rows):
    """The two planar gradiometers of a MEG sensor stand at one place: nothing else tells them apart."""
    table = json.loads((shards[1] / "channels.json").read_text())
    table["s"]["eeg"]["positions"] = positions
    (shards[1] / "channels.json").write_text(json.dumps(table))
    assert build_vocabulary(shards).channels.get("eeg", ()) == rows


def test_modalities_are_those_with_channels_unless_said():
    assert Vocabulary({"pose": (), "spikes": ()}, (), {}).modalities == ("spikes", "pose")
    placed = Vocabulary({}, (), {}, modalities=("language", "fmri"))
    assert placed.modalities == ("fmri", "language")
    assert placed.union(Vocabulary({"spikes": ()}, (), {})).modalities == ("spikes", "fmri", "language")


def test_union_keeps_rows_in_use():
    mine = Vocabulary({"spikes": ("d/a/x/1", "d/a/x/2")}, ("d/a",), {"d/t": 2})
    other = Vocabulary({"calcium": ("d/b/y/1",), "spikes": ("d/b/x/1", "d/a/x/2")}, ("d/b", "d/a"), {"d/u": 1})
    union = mine.union(other)
    assert union.channel_rows("spikes", "d/a/x", ["1", "2", "3"]) == [1, 2, 0]
    assert union.channel_rows("spikes", "d/b/x", ["1"]) == [3]
    assert union.channel_rows("calcium", "d/b/y", ["1"]) == [1]
    assert [union.session_row(s) for s in ("d/a", "d/b", "d/c")] == [1, 2, 0]
    assert union.tasks == {"d/t": 2, "d/u": 1}
    assert mine.union(mine) == mine


def test_populations_are_told_apart_whatever_their_channels_are_called():
    vocabulary = Vocabulary({"spikes": ("d/a/x/shank1/1", "d/a/x/shank2/1", "d/b/x/1")}, (), {})
    assert np.allclose(vocabulary.channel_std("spikes"), [2**-0.5, 2**-0.5, 1])


@pytest.mark.parametrize(
    ("signal", "change", "message"),
    [
        ("place", {"sfreq": 8.0}, "task 'place' of 'rats': target 'place' has 8 Hz, the grid 4 Hz; give the card the target's rate"),
        ("place", {"ch_names": ["x"]}, "task 'place' of 'rats': target 'place' has 1 or 2 channels, depending on the session"),
    ],
)
def test_targets_that_fit_no_head_are_refused(shards, signal, change, message):
    table = json.loads((shards[1] / "channels.json").read_text())
    table["t"] = {**table["s"], signal: {**table["s"][signal], **change}}
    (shards[1] / "channels.json").write_text(json.dumps(table))
    with pytest.raises(ValueError, match=message):
        build_vocabulary(shards)


def test_moving_a_batch_moves_everything(shards, scaler):
    moved = collated(shards, scaler, samples()).to("meta")
    streams = [getattr(s, f.name) for s in moved.streams.values() for f in dataclasses.fields(s)]
    fields = [getattr(moved, f.name) for f in dataclasses.fields(moved)]
    tensors = [v for v in (*streams, *fields, *moved.targets.values()) if isinstance(v, torch.Tensor)]
    assert len(tensors) == 24
    assert {t.device.type for t in tensors} == {"meta"}
