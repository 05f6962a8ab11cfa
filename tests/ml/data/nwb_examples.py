"""NWB files for tests, written by pynwb: one with everything the reader knows, others with a fault."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(40, 3)).round(6)
TIMES = np.arange(40) / 20 + 3.0


def write_nwb(path: Path, *fill: Callable[[Any], None]) -> Path:
    """A mouse's session, filled by the functions given."""
    import pynwb

    nwb = pynwb.NWBFile("test", "id", datetime(2024, 1, 1, tzinfo=UTC), session_id="day1")
    nwb.subject = pynwb.file.Subject(subject_id="m1", species="Mus musculus", sex="F", age="P2M10D")
    for add in fill:
        add(nwb)
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwb)
    return path


def add_units(nwb: Any) -> None:
    """Three units; the second is silent, the third not in order."""
    for times in ([0.5, 1.5], [], [1.0, 0.25]):
        nwb.add_unit(spike_times=times)


def add_electrical(nwb: Any) -> None:
    """Local field of electrodes 2 and 0 in an LFP container, and one current-clamp sweep."""
    from pynwb import ecephys, icephys

    device = nwb.create_device(name="probe")
    group = nwb.create_electrode_group(name="shank", description="d", location="CA1", device=device)
    for _ in range(3):
        nwb.add_electrode(group=group, location="CA1")
    region = nwb.create_electrode_table_region(region=[2, 0], description="two")
    lfp = ecephys.ElectricalSeries(
        name="LFP_series", data=VALUES[:, :2], electrodes=region, rate=1250.0, starting_time=2.0, conversion=1e-3
    )
    nwb.create_processing_module(name="ecephys", description="d").add(ecephys.LFP(electrical_series=lfp))
    pipette = nwb.create_icephys_electrode(name="pipette", description="d", device=device)
    sweep = icephys.CurrentClampSeries(name="sweep", data=VALUES[:, 0], electrode=pipette, gain=1.0, rate=50000.00000000001)
    nwb.add_acquisition(sweep)


def add_imaging(nwb: Any) -> None:
    """Fluorescence of three cells, and a movie."""
    from pynwb import image, ophys

    channel = ophys.OpticalChannel(name="c", description="d", emission_lambda=500.0)
    plane = nwb.create_imaging_plane(
        name="plane", optical_channel=channel, description="d", device=nwb.create_device(name="microscope"), excitation_lambda=480.0,
        indicator="GCaMP", location="V1", imaging_rate=20.0,
    )  # fmt: skip
    cells = ophys.PlaneSegmentation(description="d", imaging_plane=plane, name="cells")
    for _ in range(3):
        cells.add_roi(pixel_mask=[(1, 1, 1.0)])
    module = nwb.create_processing_module(name="ophys", description="d")
    module.add(ophys.ImageSegmentation(plane_segmentations=[cells]))
    rois = cells.create_roi_table_region(description="all", region=[0, 1, 2])
    dff = ophys.RoiResponseSeries(name="dff", data=VALUES, unit="a.u.", rois=rois, timestamps=TIMES)
    module.add(ophys.Fluorescence(roi_response_series=dff))
    nwb.add_acquisition(image.ImageSeries(name="movie", data=np.zeros((2, 4, 4)), unit="raw", rate=1.0))


def add_behaviour(nwb: Any) -> None:
    """Position on an irregular clock, gaze, running speed, two trials out of order."""
    from pynwb import TimeSeries, behavior

    module = nwb.create_processing_module(name="behavior", description="d")
    stamps = np.sort(RNG.uniform(0, 9, 40))
    position = behavior.SpatialSeries(name="position", data=VALUES[:, :2], reference_frame="corner", unit="m", timestamps=stamps)
    gaze = behavior.SpatialSeries(name="gaze", data=VALUES[:, :2], reference_frame="screen", rate=60.0)
    module.add(behavior.Position(spatial_series=position))
    module.add(behavior.EyeTracking(spatial_series=gaze))
    module.add(TimeSeries(name="speed", data=VALUES[:, 0], unit="m/s", rate=20.0))
    nwb.add_trial_column(name="side", description="d")
    nwb.add_trial(start_time=4.0, stop_time=5.0, side="left")
    nwb.add_trial(start_time=1.0, stop_time=2.0, side="right")


def add_nonsense_spike(nwb: Any) -> None:
    nwb.add_unit(spike_times=[-1.5e9, 0.5])


def add_nonsense_stamp(nwb: Any) -> None:
    from pynwb import TimeSeries

    module = nwb.create_processing_module(name="behavior", description="d")
    module.add(TimeSeries(name="speed", data=[1.0, 2.0], unit="m/s", timestamps=[0.0, -1.5e9]))
