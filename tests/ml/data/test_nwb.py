"""NWB beyond the plain case: Zarr, what stays in the file, units, places, events, patch clamp, and what a card picks from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nwb_examples import RNG, TIMES, VALUES, add_behaviour, add_electrical, add_imaging, add_units, write_nwb

from neurofm_ml.data import read
from neurofm_ml.data.lazy import LazyArray
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec
from neurofm_ml.types import Intervals, Recording, Samples, Signal, SpikeTrain

pytestmark = pytest.mark.filterwarnings("ignore:The linked table for DynamicTableRegion:UserWarning")


def read_one(path: Path) -> Recording:
    recording = read(path)
    assert isinstance(recording, Recording)
    return recording


def signal(recording: Recording, name: str) -> Signal:
    series = recording.signals[name]
    assert isinstance(series, Signal)
    return series


# ---------------------------------------------------------------- HDF5 and Zarr
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ["mouse.nwb.zarr", "mouse"])
def test_zarr_holds_what_hdf5_holds(tmp_path: Path, name: str) -> None:
    from hdmf_zarr.nwb import NWBZarrIO
    from pynwb import NWBHDF5IO

    hdf5 = write_nwb(tmp_path / "mouse.nwb", add_units, add_electrical, add_imaging, add_behaviour)
    with NWBHDF5IO(hdf5, "r") as source, NWBZarrIO(str(tmp_path / name), mode="w") as target:
        target.export(src_io=source, write_args={"link_data": False})
    ours, truth = read_one(tmp_path / name), read_one(hdf5)
    assert (ours.id, ours.subject, ours.session) == (truth.id, truth.subject, truth.session)
    assert sorted(ours.signals) == sorted(truth.signals)
    for key, series in truth.signals.items():
        assert repr(ours.signals[key]) == repr(series)
        if not isinstance(series, SpikeTrain):
            np.testing.assert_array_equal(ours.signals[key].values, series.values)
    np.testing.assert_array_equal(ours.intervals["trials"].start, truth.intervals["trials"].start)


def test_nwb_is_told_from_its_content(tmp_path: Path) -> None:
    path = write_nwb(tmp_path / "mouse.nwb", add_units)
    assert "units" in read_one(path.rename(tmp_path / "mouse.h5")).signals


# ---------------------------------------------------------------- numbers
def add_scaled(nwb: Any) -> None:
    """int16 with a conversion, an offset, and a factor per channel; electrodes with places in microns."""
    from pynwb import ecephys

    device = nwb.create_device(name="probe")
    group = nwb.create_electrode_group(name="shank", description="d", location="CA1", device=device)
    for k in range(3):
        nwb.add_electrode(group=group, location="CA1", x=1000.0 * k, y=20.0, z=-30.0)
    region = nwb.create_electrode_table_region(region=[2, 0], description="two")
    counts = RNG.integers(-3000, 3000, (500, 2)).astype(np.int16)
    scaled = {"data": counts, "conversion": 2e-7, "offset": 1e-3, "channel_conversion": [1.0, 3.0]}
    nwb.add_acquisition(ecephys.ElectricalSeries(name="raw", electrodes=region, rate=1000.0, **scaled))
    stamps = np.cumsum(RNG.uniform(0.001, 0.003, 500))
    nwb.add_acquisition(ecephys.ElectricalSeries(name="stamped", electrodes=region, timestamps=stamps, **scaled))


def test_rows_have_the_unit_that_pynwb_gives(tmp_path: Path) -> None:
    from pynwb import NWBHDF5IO

    path = write_nwb(tmp_path / "a.nwb", add_scaled)
    with NWBHDF5IO(path, "r") as io:
        truth = io.read().acquisition["raw"].get_data_in_units()
    raw, stamped = signal(read_one(path), "raw"), read_one(path).signals["stamped"]
    assert isinstance(stamped, Samples)
    assert isinstance(raw.values, LazyArray)
    assert isinstance(stamped.values, LazyArray)
    np.testing.assert_allclose(raw.values[100:200], truth[100:200], atol=1e-9)
    part, first = stamped.slice(0.2, 0.5), int(np.searchsorted(stamped.times, 0.2))
    np.testing.assert_allclose(part.values, truth[first : first + len(part.times)], atol=1e-9)
    np.testing.assert_allclose(raw.positions, [[2e-3, 2e-5, -3e-5], [0, 2e-5, -3e-5]])


def electrodes(**places: list[float]) -> Callable[[Any], None]:
    """Two electrodes with columns `places`, and a series of both."""

    def add(nwb: Any) -> None:
        from pynwb import ecephys

        device = nwb.create_device(name="probe")
        group = nwb.create_electrode_group(name="shank", description="d", location="CA1", device=device)
        for k in range(2):
            nwb.add_electrode(group=group, location="CA1", **{name: values[k] for name, values in places.items()})
        region = nwb.create_electrode_table_region(region=[0, 1], description="two")
        nwb.add_acquisition(ecephys.ElectricalSeries(name="raw", data=VALUES[:, :2], electrodes=region, rate=10.0))

    return add


@pytest.mark.parametrize(
    ("places", "metres"),
    [
        ({"x": [1.0, 2.0], "y": [3.0, 4.0], "z": [5.0, 6.0], "rel_x": [9.0, 9.0], "rel_y": [9.0, 9.0]}, [[1e-6, 3e-6, 5e-6], [2e-6, 4e-6, 6e-6]]),
        ({"rel_x": [0.0, 32.0], "rel_y": [20.0, 40.0]}, [[0, 2e-5, 0], [3.2e-5, 4e-5, 0]]),
        ({"x": [np.nan, 2.0], "y": [3.0, 4.0], "z": [5.0, 6.0]}, None),
        ({"x": [0.0, 0.0], "y": [0.0, 0.0], "z": [0.0, 0.0]}, None),
        ({}, None),
    ],
    ids=["in the brain", "on the probe", "unknown", "all zero", "none"],
)  # fmt: skip
def test_electrodes_have_places_in_metres(tmp_path: Path, places: dict[str, list[float]], metres: Any) -> None:
    recording = read_one(write_nwb(tmp_path / "a.nwb", electrodes(**places)))
    found = signal(recording, "raw").positions
    assert (found is None) == (metres is None)
    if metres is not None:
        np.testing.assert_allclose(found, metres)
    assert ("raw: positions are those on the probe" in recording.history) == ("rel_x" in places and "x" not in places)


# ---------------------------------------------------------------- tables
def test_units_keep_their_place(tmp_path: Path) -> None:
    def add(nwb: Any) -> None:
        nwb.add_unit_column(name="quality", description="d")
        for k, times in enumerate(([], [0.5, 1.5], [], [0.25], [])):
            nwb.add_unit(spike_times=times, quality="good", id=10 + k)

    recording = read_one(write_nwb(tmp_path / "a.nwb", add))
    units = recording.signals["units"]
    assert isinstance(units, SpikeTrain)
    assert units.unit_ids == ("10", "11", "12", "13", "14")
    assert (units.times.tolist(), units.unit_index.tolist()) == ([0.25, 0.5, 1.5], [3, 1, 1])
    assert "units: left out the columns quality" in recording.history


def test_a_table_of_units_without_times_is_no_spike_train(tmp_path: Path) -> None:
    def add(nwb: Any) -> None:
        nwb.add_unit_column(name="quality", description="d")
        nwb.add_unit(quality="good")

    recording = read_one(write_nwb(tmp_path / "a.nwb", add, add_behaviour))
    assert "units" not in recording.signals
    assert "units: left out the columns quality" in recording.history


def add_events(nwb: Any) -> None:
    from pynwb import TimeSeries, behavior, event, misc

    nwb.add_epoch(5.0, 6.0, ["rest"])
    nwb.add_invalid_time_interval(start_time=7.0, stop_time=8.0)
    nwb.add_acquisition(misc.AnnotationSeries(name="notes", data=["start", "stop"], timestamps=[0.5, 9.0]))
    licks = TimeSeries(name="licks", data=[1.0, 2.0], unit="n", timestamps=[1.0, 2.0])
    module = nwb.create_processing_module(name="behavior", description="d")
    module.add(behavior.BehavioralEvents(time_series=licks))
    runs = misc.IntervalSeries(name="runs", data=[1, 2, -1, -2, 1, -1], timestamps=[0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
    module.add(behavior.BehavioralEpochs(interval_series=runs))
    table = event.EventsTable(name="rewards", description="d")
    table.add_column(name="size", description="d")
    for at, size in ((4.0, 2.0), (3.0, 1.0)):
        table.add_event(timestamp=at, size=size)
    nwb.add_events_table(table)


def test_everything_with_a_time_is_an_interval(tmp_path: Path) -> None:
    found = read_one(write_nwb(tmp_path / "a.nwb", add_events, add_behaviour_speed)).intervals
    spans = {name: list(zip(i.start.tolist(), i.end.tolist(), strict=True)) for name, i in found.items()}
    assert spans == {
        **{"epochs": [(5, 6)], "invalid_times": [(7, 8)], "notes": [(0.5, 0.5), (9, 9)], "licks": [(1, 1), (2, 2)]},
        **{"runs": [(0, 1), (0.5, 1.5), (2, 3)], "rewards": [(3, 3), (4, 4)]},
    }
    assert found["notes"].labels == ("start", "stop")
    assert {name: found[name].columns[column].tolist() for name, column in (("licks", "value"), ("runs", "kind"), ("rewards", "size"))} == {
        "licks": [1, 2], "runs": [1, 2, 1], "rewards": [1, 2]
    }  # fmt: skip


def add_behaviour_speed(nwb: Any) -> None:
    from pynwb import TimeSeries

    nwb.add_acquisition(TimeSeries(name="speed", data=VALUES[:, 0], unit="m/s", rate=20.0))


def test_an_interval_without_its_end_is_named(tmp_path: Path) -> None:
    def add(nwb: Any) -> None:
        from pynwb import misc

        nwb.add_acquisition(misc.IntervalSeries(name="runs", data=[1, -1, 1], timestamps=[0.0, 1.0, 2.0]))

    with pytest.raises(ValueError, match=r"a.nwb, acquisition/runs: 2 intervals of kind 1 start but 1 end"):
        read(write_nwb(tmp_path / "a.nwb", add))


def test_stimuli_are_series_too(tmp_path: Path) -> None:
    def add(nwb: Any) -> None:
        from pynwb import TimeSeries, image

        nwb.add_stimulus(TimeSeries(name="contrast", data=VALUES, unit="1", timestamps=TIMES))
        nwb.add_stimulus(image.ImageSeries(name="film", data=np.zeros((2, 4, 4)), unit="raw", rate=1.0))

    recording = read_one(write_nwb(tmp_path / "a.nwb", add))
    assert {name: s.modality for name, s in recording.signals.items()} == {"contrast": "task"}
    assert "left out stimulus/film" in recording.history


# ---------------------------------------------------------------- patch clamp
Sweeps = Callable[[Any], None]


def sweeps(*lengths: int, stimulus: int | None = None, kinds: str = "c", numbered: bool = True) -> Sweeps:
    """Sweeps of these lengths at 1 kHz, all starting at 0; the stimulus of sweep k is k everywhere. `stimulus` is another length of it."""

    def add(nwb: Any) -> None:
        from pynwb import icephys

        pipette = nwb.create_icephys_electrode(name="pipette", description="d", device=nwb.create_device(name="amplifier"))
        for k, n in enumerate(lengths):
            current = kinds[k % len(kinds)] == "c"
            response, command = (
                (icephys.CurrentClampSeries, icephys.CurrentClampStimulusSeries)
                if current
                else (icephys.VoltageClampSeries, icephys.VoltageClampStimulusSeries)
            )
            common = {"electrode": pipette, "gain": 1.0, "rate": 1000.0, **({"sweep_number": np.uint64(k)} if numbered else {})}
            answer = response(name=f"answer{k}", data=np.arange(n) + 100.0 * k, **common)
            given = command(name=f"command{k}", data=np.full(stimulus or n, float(k)), **common)
            if numbered:
                nwb.add_acquisition(answer, use_sweep_table=False)
                nwb.add_stimulus(given, use_sweep_table=False)
            else:
                nwb.add_intracellular_recording(electrode=pipette, stimulus=given, response=answer)

    return add


@pytest.mark.parametrize("numbered", [True, False], ids=["by number", "by table"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_sweeps_lie_end_to_end_with_their_stimuli(tmp_path: Path, numbered: bool) -> None:
    recording = read_one(write_nwb(tmp_path / "a.nwb", sweeps(30, 20, 50, numbered=numbered)))
    voltage, current = signal(recording, "CurrentClampSeries"), signal(recording, "CurrentClampStimulusSeries")
    np.testing.assert_array_equal(voltage.values[:, 0], np.concatenate([np.arange(n) + 100 * k for k, n in enumerate((30, 20, 50))]))
    np.testing.assert_array_equal(current.values[:, 0], np.repeat([0, 1, 2], [30, 20, 50]))
    assert (voltage.modality, voltage.unit, current.modality, current.unit) == ("intracellular", "volts", "task", "amperes")
    table = recording.intervals["sweeps"]
    np.testing.assert_allclose([table.start, table.end], [[0, 0.03, 0.05], [0.03, 0.05, 0.1]])
    assert table.labels == ("answer0", "answer1", "answer2")
    assert table.columns["starting_time"].tolist() == [0, 0, 0]
    assert any("laid end to end" in note for note in recording.history)


def test_sweeps_of_two_kinds_follow_each_other(tmp_path: Path) -> None:
    recording = read_one(write_nwb(tmp_path / "a.nwb", sweeps(30, 20, 50, 10, kinds="cv")))
    spans = {name: tuple(round(t, 3) for t in s.span) for name, s in recording.signals.items()}
    assert spans == {
        "CurrentClampSeries": (0, 0.08), "CurrentClampStimulusSeries": (0, 0.08),
        "VoltageClampSeries": (0.08, 0.11), "VoltageClampStimulusSeries": (0.08, 0.11),
    }  # fmt: skip
    assert list(recording.intervals["sweeps"].columns["sweep_number"]) == [0, 2, 1, 3]


def test_stimuli_that_do_not_fit_are_named(tmp_path: Path) -> None:
    recording = read_one(write_nwb(tmp_path / "a.nwb", sweeps(30, 20, stimulus=7)))
    assert list(recording.signals) == ["CurrentClampSeries"]
    assert "left out stimulus/command0, stimulus/command1" in recording.history


def test_sweeps_beside_other_series_keep_their_clock(tmp_path: Path) -> None:
    recording = read_one(write_nwb(tmp_path / "a.nwb", sweeps(30, 20), add_behaviour_speed))
    assert sorted(recording.signals) == ["answer0", "answer1", "command0", "command1", "speed"]
    assert "sweeps" not in recording.intervals


# ---------------------------------------------------------------- what a card picks
def card(folder: Path, **signals: SignalSpec) -> DatasetCard:
    return DatasetCard(
        name="d", title="t", species="s", licence="l", source="s", reader="nwb", root=str(folder), pattern="{id}.nwb", signals=signals,
        grid_hz=1, window_s=1, stride_s=1,
    )  # fmt: skip


def test_a_card_picks_channels_units_and_names(tmp_path: Path) -> None:
    write_nwb(tmp_path / "a.nwb", add_scaled)
    truth = np.asarray(signal(read_one(tmp_path / "a.nwb"), "raw").values)
    (found,) = read(
        card(
            tmp_path,
            one=SignalSpec(modality="ecog", variable="0", ch_names=("shallow",)),
            turned=SignalSpec(modality="lfp", variable=("0", "2"), scale=1e6, unit="uV"),
            column=SignalSpec(modality="lfp", variable="raw", columns=(1,)),
            every=SignalSpec(modality="lfp", variable="*", sfreq=1000, missing=(float(truth[7, 0]),)),
        )
    )
    assert isinstance(found, Recording)
    one, turned, column, every = (signal(found, name) for name in ("one", "turned", "column", "every"))
    assert (one.modality, one.ch_names, one.unit) == ("ecog", ("shallow",), "volts")
    np.testing.assert_array_equal(one.values, truth[:, [1]])
    np.testing.assert_allclose(turned.values, truth[:, [1, 0]] * 1e6, rtol=1e-6)
    assert (turned.unit, turned.ch_names) == ("uV", ("0", "2"))
    np.testing.assert_allclose(turned.positions, [[0, 2e-5, -3e-5], [2e-3, 2e-5, -3e-5]])
    np.testing.assert_array_equal(column.values, truth[:, [1]])
    assert np.isnan(every.values[7, 0])
    assert isinstance(turned.values, LazyArray)
    assert "turned: volts times 1e+06 are uV" in found.history


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (SignalSpec(modality="lfp", variable="9"), r"signal 'x' looks for '9', which is not there; there is raw, stamped, or a channel"),
        (SignalSpec(modality="lfp", variable=("raw", "stamped")), r"signal 'x': its channels differ in rate, start or length"),
        (SignalSpec(modality="lfp", variable="raw", ch_names=("a",)), r"signal 'x': ch_names has 1 names for 2 channels"),
        (SignalSpec(modality="lfp", variable="raw", columns=(2,)), r"signal 'x': columns asks for 2, counted from 0; there are 2"),
        (SignalSpec(modality="lfp", variable="raw", sfreq=500), r"signal 'x': sfreq is 500 Hz but the file says 1000"),
    ],
)
def test_what_a_card_cannot_have_is_named(tmp_path: Path, spec: SignalSpec, match: str) -> None:
    write_nwb(tmp_path / "a.nwb", add_scaled)
    with pytest.raises(ValueError, match="a.nwb: " + match):
        read(card(tmp_path, x=spec))


def test_intervals_survive_the_card(tmp_path: Path) -> None:
    write_nwb(tmp_path / "a.nwb", add_units, add_behaviour)
    (found,) = read(card(tmp_path, spikes=SignalSpec(modality="spikes", variable="units")))
    assert isinstance(found, Recording)
    assert isinstance(found.intervals["trials"], Intervals)
    assert (found.subject.id, found.subject.sex) == ("m1", "female")
