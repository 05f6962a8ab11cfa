"""A card's preprocessing: applied in order, written into the history, refused where it would leak."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurofm_ml.config import from_dict, to_dict
from neurofm_ml.data.preprocess import STEPS, UnifiedPreprocessor
from neurofm_ml.data.preprocess.filters import band_pass, resample
from neurofm_ml.data.preprocess.kinematics import derivative
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.windows import load_block, shard_recordings
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, SplitSpec, StepSpec, datasets
from neurofm_ml.presets import ShardsConfig
from neurofm_ml.types import Intervals, Recording, Samples, Signal, SpikeTrain

SUBJECT = SplitSpec(kind="subject")


def card_with(*steps: StepSpec, split: SplitSpec = SUBJECT, **changes: Any) -> DatasetCard:
    card = datasets()["simulation"]
    return dataclasses.replace(card, recordings=card.recordings[:1], preprocess=steps, split=split, **changes)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return simulate(card_with(), 20.0)[0]


def signal_of(recording: Recording, name: str) -> Signal:
    signal = recording.signals[name]
    assert isinstance(signal, Signal)
    return signal


def test_steps_apply_in_order_and_are_written_down(recording: Recording) -> None:
    card = card_with(
        StepSpec(step="band_pass", signals=("eeg",), parameters={"low_hz": 1, "high_hz": 30}),
        StepSpec(step="resample", signals=("eeg",), parameters={"sfreq": 64}),
    )
    done = UnifiedPreprocessor(card)(recording)
    eeg = signal_of(recording, "eeg")
    expected = resample(band_pass(eeg.values.astype(float), 128, 1, 30), 128, 64)
    np.testing.assert_allclose(signal_of(done, "eeg").values, expected, atol=1e-5)
    assert signal_of(done, "eeg").sfreq == 64
    assert done.history == (
        *recording.history,
        "band_pass(eeg, low_hz=1.0, high_hz=30.0, order=4)",
        "resample(eeg, sfreq=64.0)",
    )
    assert done.bounds == recording.bounds
    assert signal_of(done, "eeg").positions is eeg.positions
    assert all(done.signals[name] is recording.signals[name] for name in recording.signals if name != "eeg")


def test_without_steps_nothing_changes(recording: Recording) -> None:
    assert UnifiedPreprocessor(card_with())(recording) is recording


def test_a_step_without_signals_works_on_all_of_its_modalities(recording: Recording) -> None:
    done = UnifiedPreprocessor(card_with(StepSpec(step="notch", parameters={"freqs_hz": [50]})))(recording)
    changed = {name for name in recording.signals if done.signals[name] is not recording.signals[name]}
    assert changed == {"eeg"}


@pytest.mark.parametrize(
    ("step", "match"),
    [
        (StepSpec(step="bandpass"), r"preprocess\[0\].*Did you mean 'band_pass'.*Available: .*resample"),
        (StepSpec(step="band_pass", parameters={"lo_hz": 1}), "no field 'lo_hz'. Did you mean 'low_hz'"),
        (StepSpec(step="resample"), "needs 'sfreq'"),
        (StepSpec(step="resample", parameters={"sfreq": "fast"}), "sfreq is 'fast'; it needs a number"),
        (StepSpec(step="band_pass", signals=("meg",), parameters={"low_hz": 1}), r"not on meg; the card's signals are spikes \(spikes\)"),
        (StepSpec(step="notch", signals=("behaviour",), parameters={"freqs_hz": [50]}), "works on intracellular, lfp.*, not on behaviour"),
        (StepSpec(step="lfp"), r"works on lfp, ecog, ieeg; the card's signals are spikes"),
    ],
)
def test_a_wrong_step_is_refused_before_anything_is_read(step: StepSpec, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        UnifiedPreprocessor(card_with(step))


def test_a_step_that_does_not_fit_the_recording_is_refused(recording: Recording) -> None:
    with pytest.raises(ValueError, match=r"simulation/sub1_ses1, step 'notch': .*does not fit"):
        UnifiedPreprocessor(card_with(StepSpec(step="notch", parameters={"freqs_hz": [64]})))(recording)
    blind = recording.with_signals({"spikes": recording.signals["spikes"]}, "no EEG")
    with pytest.raises(ValueError, match="there is no signal eeg; there are spikes"):
        UnifiedPreprocessor(card_with(StepSpec(step="average_reference", signals=("eeg",))))(blind)


def test_a_step_passes_by_recordings_that_the_card_gives_none_of_its_signals(recording: Recording) -> None:
    card = card_with(StepSpec(step="average_reference", signals=("eeg",)))
    of_another = dataclasses.replace(card.signals["eeg"], recordings=("sub2_ses1",))
    card = dataclasses.replace(card, signals={**card.signals, "eeg": of_another})
    blind = recording.with_signals({"spikes": recording.signals["spikes"]}, "no EEG")
    assert UnifiedPreprocessor(card)(blind) is blind


def test_what_is_missing_is_named(recording: Recording) -> None:
    holed = np.array(signal_of(recording, "eeg").values)
    holed[7:10, 2] = np.nan
    eeg = dataclasses.replace(signal_of(recording, "eeg"), values=holed)
    step = StepSpec(step="band_pass", signals=("eeg",), parameters={"low_hz": 1.0})
    where = "simulation/sub1_ses1, step 'band_pass': signal 'eeg': channel 'F7': 3 of 2560 values are NaN"
    with pytest.raises(ValueError, match=where):
        UnifiedPreprocessor(card_with(step))(recording.with_signals({**recording.signals, "eeg": eeg}, "holes"))


def test_under_a_block_split_a_filter_may_not_reach_over_the_gap(recording: Recording) -> None:
    step = StepSpec(step="band_pass", signals=("eeg",), parameters={"low_hz": 1.0})
    UnifiedPreprocessor(card_with(step, split=SplitSpec(gap_s=2.0)))(recording)
    with pytest.raises(ValueError, match=r"filters on 'eeg' reach .* beyond the gap of 1 s.*set split.gap_s to at least 1.92"):
        UnifiedPreprocessor(card_with(step, split=SplitSpec(gap_s=1.0)))(recording)
    with pytest.raises(ValueError, match=r"reach 3\.84 s"):
        UnifiedPreprocessor(card_with(step, step, split=SplitSpec(gap_s=2.0)))(recording)


def test_a_signal_that_a_step_makes_goes_into_the_shards(tmp_path: Path) -> None:
    velocity = {"velocity": SignalSpec(modality="pose")}
    step = StepSpec(step="derivative", signals=("behaviour",), parameters={"into": "velocity"})
    card = card_with(step, split=SplitSpec(gap_s=1.0), tasks=())
    card = dataclasses.replace(card, signals={**card.signals, **velocity}, window_s=2.0)
    (recording,) = simulate(card, 60.0)
    assert "velocity" not in recording.signals
    save_recording(recording, tmp_path / "recordings")
    (tmp_path / "card.json").write_text(json.dumps(to_dict(card)))
    (tmp_path / "shards").mkdir()
    shard_recordings(ShardsConfig(dataset="simulation"), tmp_path, tmp_path / "shards")
    block = load_block(tmp_path / "shards", recording.id, "test")
    moved = derivative(signal_of(recording, "behaviour").values, 32.0)
    expected = moved[round(block.bounds[0] * 32) :].reshape(-1, 4, 2).mean(axis=1)
    np.testing.assert_allclose(
        signal_of(block, "velocity").values, expected[: len(signal_of(block, "velocity").values)], rtol=1e-4, atol=1e-4
    )


# ---------------------------------------------------------------- every step
MADE = {"into": "made"}
#: What each step needs, on which of the signals below.
EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "align_clock": ("lfp", {"own": "own", "reference": "reference"}),
    "regularise": ("gaze", {"sfreq": 50.0}),
    "fill_gaps": ("eye", {"max_gap_s": 0.5}),
    "zscore": ("lfp", {}),
    "band_pass": ("lfp", {"low_hz": 1.0}),
    "notch": ("lfp", {"freqs_hz": [50.0]}),
    "resample": ("lfp", {"sfreq": 128.0}),
    "lfp": ("lfp", {}),
    "average_reference": ("ecog", {}),
    "interpolate_bad": ("eeg", {"bad": ["Fp1"]}),
    "remove_eye_components": ("eeg", {"reference": "eog", "n_components": 3}),
    "remove_confounds": ("fmri", {"confounds": "motion"}),
    "delta_f_over_f": ("fluorescence", {}),
    "smooth_spikes": ("spikes", {"sigma_s": 0.5}),
    "emg_envelope": ("emg", {}),
    "moving_rms": ("emg", {}),
    "morlet_power": ("lfp", {**MADE, "freqs_hz": [10.0, 20.0]}),
    "localise_sources": ("meg", {**MADE, "forward": "none-fwd.fif"}),
    "framewise_displacement": ("motion", MADE),
    "dvars": ("fmri", MADE),
    "gaze_events": ("eye", {"x": "0", "y": "1"}),
    "derivative": ("eye", MADE),
    "speed_heading": ("behaviour", MADE),
    "heart_beats": ("physio", {**MADE, "kind": "ppg"}),
    "breathing": ("physio", MADE),
    "skin_conductance": ("physio", MADE),
}


@pytest.fixture(scope="module")
def everything() -> Recording:
    """Two minutes of every modality; pulses on two clocks, eyes with a hole, motion, irregular gaze, fluorescence."""
    cards = (datasets()["simulation"], datasets()["simulation_modalities"])
    one, more = (simulate(dataclasses.replace(card, recordings=card.recordings[:1]), 120.0)[0] for card in cards)
    signals = {**one.signals, **more.signals}
    rng = np.random.default_rng(0)
    signals["eog"] = dataclasses.replace(
        signal_of(one, "eeg"), values=rng.normal(size=(15360, 1)), ch_names=("v",), positions=None, modality="eye"
    )
    signals["motion"] = Signal(rng.normal(size=(120, 6)), 1.0, "physio")
    signals["fluorescence"] = Signal(rng.uniform(50, 60, (960, 2)), 8.0, "calcium")
    signals["gaze"] = Samples(np.sort(rng.uniform(0, 120, 3000)), rng.normal(size=(3000, 2)), "eye")
    holed = np.array(signal_of(more, "eye").values)
    holed[100:110] = np.nan
    signals["eye"] = dataclasses.replace(signal_of(more, "eye"), values=holed, ch_names=("0", "1"))
    at = np.sort(rng.uniform(0, 120, 60))
    pulses = {"own": Intervals(at + 3, at + 3), "reference": Intervals(at, at)}
    return dataclasses.replace(one, signals=signals, intervals=pulses)


def test_every_step_has_an_example() -> None:
    assert sorted(EXAMPLES) == sorted(STEPS)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "localise_sources"])
def test_a_step_says_what_it_did_and_leaves_the_rest_alone(everything: Recording, name: str) -> None:
    source, parameters = EXAMPLES[name]
    known = {k: SignalSpec(modality=s.modality) for k, s in everything.signals.items()}
    made = {"made": SignalSpec(modality=everything.signals[source].modality)}
    step = StepSpec(step=name, signals=(source,), parameters=parameters)
    card = dataclasses.replace(card_with(step), signals={**known, **made}, tasks=())
    before = {k: np.array(s.values) for k, s in everything.signals.items() if not isinstance(s, SpikeTrain)}
    done, again = (UnifiedPreprocessor(card)(everything) for _ in range(2))
    at = len(everything.history)
    assert done.history[at].startswith(f"{name}({source}")
    assert all(f"{key}=" in done.history[at] for key in to_dict(STEPS[name](**parameters)))
    adds = "made" in done.signals
    assert adds == ("into" in parameters)
    changed = {k for k in everything.signals if done.signals[k] is not everything.signals[k]}
    assert changed == (set() if adds or name == "gaze_events" else {source})
    assert (done.id, done.bounds, done.session) == (everything.id, everything.bounds, everything.session)
    for k, values in before.items():
        np.testing.assert_array_equal(everything.signals[k].values, values)  # type: ignore[union-attr]
    result, twin = (signal_of(r, "made" if adds else source) for r in (done, again))
    np.testing.assert_array_equal(result.values, twin.values)
    assert name == "gaze_events" or result.values.dtype == np.float32
    assert STEPS[name](**parameters).reach_s(everything.signals[source]) >= 0


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_what_learns_from_the_whole_recording_is_refused_under_a_block_split(name: str) -> None:
    source, parameters = EXAMPLES[name]
    step = from_dict(STEPS[name], parameters)
    assert step.fits == (name in {"zscore", "remove_eye_components", "remove_confounds", "gaze_events"})
    if step.fits:
        signals = {source: SignalSpec(modality=STEPS[name].modalities[0])}
        with pytest.raises(ValueError, match=r"learns from the whole recording.*split by recording, session or subject"):
            UnifiedPreprocessor(
                dataclasses.replace(
                    card_with(),
                    signals=signals,
                    tasks=(),
                    split=SplitSpec(),
                    preprocess=(StepSpec(step=name, signals=(source,), parameters=parameters),),
                )
            )
