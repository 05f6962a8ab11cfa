"""A card's preprocessing: applied in order, written into the history, refused where it would leak."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from neurofm_ml.data.preprocess import STEPS, UnifiedPreprocessor
from neurofm_ml.data.preprocess.filters import band_pass, resample
from neurofm_ml.data.simulate import simulate
from neurofm_ml.knowledge.cards import DatasetCard, SplitSpec, StepSpec, datasets
from neurofm_ml.types import Recording, Signal

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
        (StepSpec(step="resample", parameters={"sfreq": "fast"}), "sfreq is 'fast'; it needs float"),
        (StepSpec(step="band_pass", signals=("meg",), parameters={"low_hz": 1}), "names meg; the card has spikes"),
    ],
)
def test_a_wrong_step_is_refused_before_anything_is_read(step: StepSpec, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        UnifiedPreprocessor(card_with(step))


@pytest.mark.parametrize(
    ("step", "match"),
    [
        (
            StepSpec(step="notch", signals=("behaviour",), parameters={"freqs_hz": [50]}),
            r"not on behaviour; the recording has spikes \(spikes\)",
        ),
        (StepSpec(step="lfp"), "works on lfp, ecog, ieeg; the recording has spikes"),
        (StepSpec(step="notch", parameters={"freqs_hz": [64]}), r"simulation/sub1_ses1, step 'notch'.*does not fit"),
    ],
)
def test_a_step_that_does_not_fit_the_recording_is_refused(recording: Recording, step: StepSpec, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        UnifiedPreprocessor(card_with(step))(recording)


def test_under_a_block_split_a_filter_may_not_reach_over_the_gap(recording: Recording) -> None:
    step = StepSpec(step="band_pass", signals=("eeg",), parameters={"low_hz": 1.0})
    UnifiedPreprocessor(card_with(step, split=SplitSpec(gap_s=2.0)))(recording)
    with pytest.raises(ValueError, match=r"filters on 'eeg' reach .* beyond the gap of 1 s.*set split.gap_s to at least 1.92"):
        UnifiedPreprocessor(card_with(step, split=SplitSpec(gap_s=1.0)))(recording)
    with pytest.raises(ValueError, match=r"reach 3\.84 s"):
        UnifiedPreprocessor(card_with(step, step, split=SplitSpec(gap_s=2.0)))(recording)


def test_every_step_is_described() -> None:
    assert all(STEPS[name].__doc__ and STEPS[name].modalities for name in STEPS)
