"""References, rebuilt channels and components against MNE and against what was planted."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.data.preprocess import UnifiedPreprocessor
from neurofm_ml.data.preprocess.artefacts import average_reference, interpolate_bad, remove_components
from neurofm_ml.data.simulate import electrode_positions
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, SplitSpec, StepSpec
from neurofm_ml.types import Recording, Signal, Subject

SFREQ = 200.0
NAMES = tuple(f"E{i}" for i in range(19))


def test_average_reference_is_that_of_mne() -> None:
    import mne

    values = np.random.default_rng(0).normal(size=(500, 19))
    raw = mne.io.RawArray(values.T, mne.create_info(list(NAMES), SFREQ, "eeg"), verbose="error")
    raw.info["bads"] = ["E3", "E7"]
    raw.set_eeg_reference("average", verbose="error")
    np.testing.assert_allclose(average_reference(values, (3, 7)), raw.get_data().T, atol=1e-12)


def test_rebuilt_channels_are_those_of_mne() -> None:
    import mne

    positions = electrode_positions() + np.array([0.01, -0.02, 0.04])
    values = np.random.default_rng(0).normal(size=(300, 19)) * 1e-5
    raw = mne.io.RawArray(values.T, mne.create_info(list(NAMES), SFREQ, "eeg"), verbose="error")
    raw.set_montage(mne.channels.make_dig_montage(dict(zip(NAMES, positions, strict=True)), coord_frame="head"))
    raw.info["bads"] = ["E2", "E11"]
    raw.interpolate_bads(origin=(0.01, -0.02, 0.04), verbose="error")
    ours = interpolate_bad(values, positions, (2, 11))
    np.testing.assert_allclose(ours, raw.get_data().T, rtol=1e-5, atol=1e-10)
    np.testing.assert_array_equal(np.delete(ours, (2, 11), axis=1), np.delete(values, (2, 11), axis=1))


def test_a_smooth_field_is_rebuilt() -> None:
    positions = electrode_positions()
    field = (positions @ np.array([1.0, 2.0, -0.5]))[None] + 0.3
    ours = interpolate_bad(np.where(np.arange(19) == 9, 99.0, field), positions, (9,))
    assert abs(ours[0, 9] - field[0, 9]) < 0.05 * np.ptp(field)


# ---------------------------------------------------------------- components
def _blinking(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Brain (T, 19), blinks as the electrodes see them (T, 19), the EOG (T, 1)."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(60 * SFREQ)) / SFREQ
    bursts = [np.sin(2 * np.pi * f * t) * (1 + np.sin(2 * np.pi * f * t / 37)) for f in (6, 10, 17, 23)]
    brain = np.stack(bursts, 1) @ rng.normal(size=(4, 19)) * 5 + rng.normal(size=(len(t), 19))
    blink = np.zeros(len(t))
    for at in np.arange(2, 58, 3.7) + rng.uniform(0, 1, 16):
        blink += np.exp(-((t - at) ** 2) / (2 * 0.08**2))
    front = np.exp(-((electrode_positions()[:, 1] - 0.095) ** 2) / (2 * 0.05**2))
    eog = (300 * blink + 10 * rng.normal(size=len(t)))[:, None]
    return brain, 200 * blink[:, None] * front, eog


def test_a_planted_blink_is_taken_out_and_the_brain_stays() -> None:
    brain, blinks, eog = _blinking()
    cleaned, follows = remove_components(brain + blinks, eog, SFREQ, n_components=6)
    assert len(follows) == 1
    assert abs(follows[0]) > 0.9
    assert _left(cleaned - brain, blinks) < 0.1
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(cleaned.T, brain.T, strict=True)]
    assert min(correlations) > 0.98


def test_without_blinks_nothing_is_taken_out() -> None:
    brain, _, eog = _blinking()
    cleaned, follows = remove_components(brain, eog, SFREQ, n_components=6)
    assert len(follows) == 0
    np.testing.assert_array_equal(cleaned, brain)


def test_an_average_reference_leaves_one_dimension_less_and_components_still_work() -> None:
    brain, blinks, eog = _blinking()
    # Three sources and the blink, and no noise: five dimensions of nineteen.
    pure = np.linalg.svd(brain, full_matrices=False)
    brain = (pure[0][:, :4] * pure[1][:4]) @ pure[2][:4]
    cleaned, follows = remove_components(average_reference(brain + blinks), eog, SFREQ)
    assert len(follows) == 1
    assert _left(cleaned - average_reference(brain), blinks) < 0.1


def test_noise_alone_has_no_components() -> None:
    noise = np.random.default_rng(0).normal(size=(1000, 8))
    with pytest.raises(ValueError, match=r"8 components did not converge in 500 steps.*set n_components lower"):
        remove_components(noise, noise[:, :1], SFREQ)


def _left(error: np.ndarray, blinks: np.ndarray) -> float:
    """Share of the blinks' amplitude that is wrong."""
    return float(np.linalg.norm(error.std(axis=0)) / np.linalg.norm(blinks.std(axis=0)))


@pytest.mark.skipif("NEUROFM_DATA" not in os.environ, reason="NEUROFM_DATA is not set")
def test_the_component_of_the_eyes_in_a_real_recording_is_that_of_mne() -> None:
    import mne

    file = Path(os.environ["NEUROFM_DATA"]) / "ephys/eeg/eeglab_sample/eeglab_data.set"
    raw = mne.io.read_raw_eeglab(file, preload=True, verbose="error").crop(0, 100).set_channel_types({"EOG1": "eog", "EOG2": "eog"})
    eeg, eog = (1e6 * raw.get_data(kind).T for kind in ("eeg", "eog"))
    cleaned, follows = remove_components(eeg, eog, 128.0, threshold=0.4)
    ica = mne.preprocessing.ICA(30, random_state=0, verbose="error").fit(raw.filter(1, None, verbose="error"), verbose="error")
    theirs = np.abs(ica.find_bads_eog(raw, measure="correlation", threshold=0.4, verbose="error")[1]).max()
    assert abs(follows[0]) == pytest.approx(theirs, abs=0.1)
    # What goes is frontal.
    share = 1 - cleaned.var(axis=0) / eeg.var(axis=0)
    names = [n for n in raw.ch_names if not n.startswith("EOG")]
    assert names[int(share.argmax())] == "FPz"
    assert share[names.index("Oz")] < 0.1


# ---------------------------------------------------------------- in a card
def _card(*steps: StepSpec, kind: str = "subject") -> DatasetCard:
    signals = {"eeg": SignalSpec(modality="eeg"), "eog": SignalSpec(modality="eye")}
    return DatasetCard(
        name="blinks",
        title="Blinks",
        species="Homo sapiens",
        licence="none",
        source="here",
        reader="arrays",
        signals=signals,
        preprocess=steps,
        grid_hz=10,
        window_s=1,
        stride_s=1,
        split=SplitSpec(kind=kind),  # type: ignore[arg-type]
    )


def _recording() -> Recording:
    brain, blinks, eog = _blinking()
    eeg = Signal((brain + blinks).astype(np.float32), SFREQ, "eeg", ch_names=NAMES, positions=electrode_positions(), unit="uV")
    signals = {"eeg": eeg, "eog": Signal(eog.astype(np.float32), SFREQ, "eye")}
    return Recording("r", "blinks", Subject("s"), "s", "Homo sapiens", "none", signals)


def test_the_step_says_what_it_took_out() -> None:
    step = StepSpec(step="remove_eye_components", parameters={"reference": "eog", "n_components": 6})
    done = UnifiedPreprocessor(_card(step))(_recording())
    assert done.history[-2] == "remove_eye_components(eeg, reference=eog, threshold=0.5, n_components=6, seed=0)"
    assert done.history[-1].startswith("eeg: 1 components taken out, correlated ")
    with pytest.raises(ValueError, match="learns from the whole recording"):
        UnifiedPreprocessor(_card(step, kind="block"))


@pytest.mark.parametrize(
    ("name", "parameters", "match"),
    [
        ("remove_eye_components", {"reference": "heog"}, "reference is 'heog'; the signals are eeg, eog"),
        ("interpolate_bad", {"bad": ["E1", "X"]}, "bad names X; the channels are E0"),
        ("interpolate_bad", {"bad": list(NAMES[:16])}, "3 good channels are left"),
        ("average_reference", {"bad": ["X"]}, "bad names X"),
    ],
)
def test_wrong_channels_are_refused(name: str, parameters: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        UnifiedPreprocessor(_card(StepSpec(step=name, parameters=parameters)))(_recording())


def test_what_a_step_needs_of_a_signal_is_asked_for() -> None:
    recording = _recording()
    flat = dataclasses.replace(recording.signals["eeg"], positions=None)
    bare = recording.with_signals({**recording.signals, "eeg": flat}, "no positions")
    with pytest.raises(ValueError, match="no positions; name a montage"):
        UnifiedPreprocessor(_card(StepSpec(step="interpolate_bad", parameters={"bad": ["E1"]})))(bare)
    half = recording.with_signals({**recording.signals, "eog": recording.signals["eog"].slice(0, 30)}, "half")
    with pytest.raises(ValueError, match="must have the same samples"):
        UnifiedPreprocessor(_card(StepSpec(step="remove_eye_components", parameters={"reference": "eog"})))(half)
    broken = dataclasses.replace(flat, values=np.where(flat.values > 20, np.nan, flat.values))
    with pytest.raises(ValueError, match="values are NaN or infinite"):
        UnifiedPreprocessor(_card(StepSpec(step="average_reference")))(recording.with_signals({"eeg": broken}, "holes"))
