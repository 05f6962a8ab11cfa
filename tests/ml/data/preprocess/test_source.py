"""Source localisation: a dipole planted in a sphere is found where it was, by a forward solution written to a file."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurofm_ml.data.preprocess import UnifiedPreprocessor
from neurofm_ml.data.preprocess.source import localise
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, SplitSpec, StepSpec
from neurofm_ml.types import Recording, Signal, Subject

SFREQ = 100.0


@pytest.fixture(scope="module")
def forward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 magnetometers around a sphere of 9 cm, sources on a lattice of 3 cm inside it."""
    import mne

    golden = np.pi * (3 - np.sqrt(5))
    z = np.linspace(1, -0.2, 64)
    away = np.stack([np.sqrt(1 - z**2) * np.cos(golden * np.arange(64)), np.sqrt(1 - z**2) * np.sin(golden * np.arange(64)), z], axis=1)
    info = mne.create_info([f"MEG{i:03d}" for i in range(64)], SFREQ, "mag")
    with info._unlock():
        info["dev_head_t"] = mne.Transform("meg", "head")
    for channel, place in zip(info["chs"], away, strict=True):
        # A point magnetometer that looks outwards: place, then the axes of its coil.
        side = np.cross(place, [0.0, 0.6, 0.8])
        side /= np.linalg.norm(side)
        channel["loc"][:12] = np.concatenate([0.11 * place, side, np.cross(place, side), place])
        channel["coil_type"] = mne.io.constants.FIFF.FIFFV_COIL_POINT_MAGNETOMETER
    sphere = mne.make_sphere_model((0, 0, 0), 0.09, verbose="error")
    steps = 0.03 * np.arange(-2, 3)
    points = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    # The middle of a sphere is silent.
    points = points[(np.linalg.norm(points, axis=1) < 0.08) & points.any(axis=1)]
    lattice = mne.setup_volume_source_space(pos={"rr": points, "nn": np.tile([0, 0, 1.0], (len(points), 1))}, verbose="error")
    solution = mne.make_forward_solution(info, None, lattice, sphere, eeg=False, verbose="error")
    file = tmp_path_factory.mktemp("forward") / "s-fwd.fif"
    mne.write_forward_solution(file, solution, verbose="error")
    return file


@pytest.fixture(scope="module")
def planted(forward: Path) -> tuple[Signal, np.ndarray, np.ndarray]:
    """Fields in fT of a source of 20 nAm in the middle of noise; where it lies; its course (T,)."""
    import mne

    solution = mne.read_forward_solution(forward, verbose="error")
    where = int(np.argmin(np.linalg.norm(solution["source_rr"] - [0.03, 0.0, 0.06], axis=1)))
    radial = solution["source_rr"][where] / np.linalg.norm(solution["source_rr"][where])
    # A radial source would be silent in a sphere.
    across = np.cross(radial, [0.0, 1.0, 0.0])
    course = np.sin(2 * np.pi * 5 * np.arange(200) / SFREQ) * (np.arange(200) > 100)
    gain = solution["sol"]["data"][:, 3 * where : 3 * where + 3] @ (across / np.linalg.norm(across))
    rng = np.random.default_rng(0)
    field = 20e-9 * course[:, None] * gain * 1e15 + 20 * rng.normal(size=(200, 64))
    # In another order than that of the forward solution.
    order = rng.permutation(64)
    names = tuple(solution["info"]["ch_names"][i] for i in order)
    return Signal(field[:, order].astype(np.float32), SFREQ, "meg", ch_names=names, unit="fT"), solution["source_rr"][where], course


# sLORETA finds a single source where it is; dSPM sees it one or two steps of the lattice too deep (Pascual-Marqui 2002).
@pytest.mark.parametrize(("method", "within"), [("sLORETA", 1e-6), ("dSPM", 0.045)])
def test_a_planted_dipole_is_found(forward: Path, planted: tuple[Signal, np.ndarray, np.ndarray], method: Any, within: float) -> None:
    signal, place, course = planted
    found = localise(signal, forward, method)
    assert found.values.shape == (200, len(found.positions))
    strongest = int(found.values[101:].mean(axis=0).argmax())
    assert np.linalg.norm(found.positions[strongest] - place) < within
    assert np.corrcoef(found.values[:, strongest], np.abs(course))[0, 1] > 0.9


def _card(root: Path, **parameters: Any) -> DatasetCard:
    return DatasetCard(
        name="meg",
        title="MEG",
        species="Homo sapiens",
        licence="none",
        source="here",
        reader="electrophysiology",
        root=str(root),
        signals={"mag": SignalSpec(modality="meg"), "sources": SignalSpec(modality="meg")},
        preprocess=(StepSpec(step="localise_sources", signals=("mag",), parameters={"into": "sources", **parameters}),),
        grid_hz=10,
        window_s=1,
        stride_s=1,
        split=SplitSpec(kind="subject"),
    )


def test_the_step_takes_the_forward_solution_of_the_subject(forward: Path, planted: tuple[Signal, np.ndarray, np.ndarray]) -> None:
    signal = planted[0]
    recording = Recording("r", "meg", Subject("s"), "s", "Homo sapiens", "none", {"mag": signal})
    preprocessor = UnifiedPreprocessor(_card(forward.parent, forward="{subject}-fwd.fif"))
    made = preprocessor(recording).signals["sources"]
    assert isinstance(made, Signal)
    np.testing.assert_allclose(made.values, localise(signal, forward).values, rtol=1e-5)
    assert made.positions is not None
    assert (made.unit, made.sfreq, made.ch_names[1]) == ("dSPM", SFREQ, "source0001")
    volts = recording.with_signals({"mag": dataclasses.replace(signal, unit="V")}, "wrong unit")
    with pytest.raises(ValueError, match="unit is 'V'; sources need one of T, fT"):
        preprocessor(volts)
    renamed = dataclasses.replace(signal, ch_names=("A", *signal.ch_names[1:]))
    with pytest.raises(ValueError, match=r"s-fwd\.fif has no channel A; it has MEG000"):
        preprocessor(recording.with_signals({"mag": renamed}, "wrong name"))
    with pytest.raises(ValueError, match=r"step 'localise_sources'.*none-fwd\.fif"):
        UnifiedPreprocessor(_card(forward.parent, forward="none-fwd.fif"))(recording)
