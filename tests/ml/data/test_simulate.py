"""The simulation holds what it says: signal to noise, delays, Poisson counts, a latent that can be found."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from neurofm_ml.data import simulate as sim
from neurofm_ml.data.grid import to_grid
from neurofm_ml.knowledge.cards import DatasetCard, datasets
from neurofm_ml.types import MODALITIES, Array, Recording, Signal, SpikeTrain

DURATION_S = 120.0
Pair = tuple[Recording, sim.Truth]


@pytest.fixture(scope="module")
def card() -> DatasetCard:
    whole = datasets()["simulation"]
    return dataclasses.replace(whole, recordings=whole.recordings[:2])


@pytest.fixture(scope="module")
def simulated(card: DatasetCard) -> list[Pair]:
    return sim.simulate_truth(card, DURATION_S)


def _signal(recording: Recording, name: str) -> Signal:
    signal = recording.signals[name]
    assert isinstance(signal, Signal)
    return signal


def _train(recording: Recording) -> SpikeTrain:
    train = recording.signals["spikes"]
    assert isinstance(train, SpikeTrain)
    return train


def test_every_recording_has_every_signal_of_the_card(card: DatasetCard, simulated: list[Pair]) -> None:
    for recording, truth in simulated:
        assert set(recording.signals) == set(card.signals) == set(truth.planted)
        assert recording.bounds == (0.0, DURATION_S)
        for name, spec in card.signals.items():
            assert recording.signals[name].modality == spec.modality


def test_same_card_same_bytes_and_other_seed_other_bytes(card: DatasetCard, simulated: list[Pair]) -> None:
    first = simulated[0][0]
    again = sim.simulate(dataclasses.replace(card, recordings=card.recordings[:1]), DURATION_S)[0]
    other = sim.simulate(
        dataclasses.replace(card, recordings=card.recordings[:1], split=dataclasses.replace(card.split, seed=1)), DURATION_S
    )[0]
    assert _train(again).times.tobytes() == _train(first).times.tobytes()
    assert not np.array_equal(_train(other).times[:100], _train(first).times[:100])
    for name in set(card.signals) - {"spikes"}:
        assert _signal(again, name).values.tobytes() == _signal(first, name).values.tobytes()
        assert not np.array_equal(_signal(other, name).values, _signal(first, name).values)


FURTHER = ["intracellular", "lfp", "ecog", "ieeg", "meg", "eye", "physio", "video", "audio", "language"]


@pytest.fixture(scope="module")
def further() -> Pair:
    """The other modalities."""
    return sim.simulate_truth(datasets()["simulation_modalities"], DURATION_S)[0]


def test_every_modality_of_recordings_is_simulated() -> None:
    assert set(sim.VIEWS) == set(MODALITIES) - {"foci"}
    seen = {s.modality for name in ("simulation", "simulation_modalities") for s in datasets()[name].signals.values()}
    assert seen == set(sim.VIEWS)


@pytest.mark.parametrize("name", ["calcium", "eeg", "fmri", "behaviour", *FURTHER])
def test_noise_has_the_stated_share(simulated: list[Pair], further: Pair, name: str) -> None:
    recording, truth = further if name in FURTHER else simulated[0]
    planted = truth.planted[name]
    noise = _signal(recording, name).values - planted.noiseless
    ratio = planted.noiseless.var(0).mean() / noise.var(0).mean()
    assert ratio == pytest.approx(planted.view.snr, rel=0.1)


def test_rectified_emg_follows_its_envelope_at_the_stated_snr(further: Pair) -> None:
    recording, truth = further
    envelope, rectified = truth.planted["emg"].noiseless, np.abs(_signal(recording, "emg").values)
    signal = (envelope * np.sqrt(2 / np.pi)).var(0)
    noise = (rectified - envelope * np.sqrt(2 / np.pi)).var(0)
    np.testing.assert_allclose(signal / noise, truth.planted["emg"].view.snr, rtol=0.1)
    assert envelope.min() > 0


def test_the_task_state_is_the_wing_of_the_attractor(further: Pair) -> None:
    recording, truth = further
    state = _signal(recording, "task").values[:, 0]
    step = round(sim.FINE_HZ / 8)
    assert np.array_equal(state, truth.latent[::step, 0] > 0)
    assert 0.2 < state.mean() < 0.8


def test_expected_spike_counts_have_the_stated_snr(card: DatasetCard, simulated: list[Pair]) -> None:
    planted = simulated[0][1].planted["spikes"]
    expected = planted.noiseless / card.grid_hz
    np.testing.assert_allclose(expected.var(0) / expected.mean(0), planted.view.snr, rtol=1e-9)


def test_counts_are_poisson_around_the_planted_rate(simulated: list[Pair]) -> None:
    recording, truth = simulated[0]
    train, rates = _train(recording), truth.planted["spikes"].noiseless
    bins = np.floor(train.times * sim.FINE_HZ).astype(int)
    counts = np.zeros_like(rates)
    np.add.at(counts, (bins, train.unit_index), 1)
    mean = rates / sim.FINE_HZ
    # Pearson's chi squared over its degrees of freedom is 1 for Poisson counts; 15,360 bins x 40 units.
    assert ((counts - mean) ** 2 / mean).mean() == pytest.approx(1.0, abs=0.02)
    assert counts.sum() == pytest.approx(mean.sum(), abs=4 * np.sqrt(mean.sum()))


def _best_lag(late: Array, early: Array, max_lag: int) -> int:
    """Samples by which column-summed cross-correlation says `late` follows `early`."""
    n = len(late)
    scores = [np.sum(late[max_lag + k : n - max_lag + k] * early[max_lag : n - max_lag]) for k in range(-max_lag, max_lag + 1)]
    return int(np.argmax(scores)) - max_lag


@pytest.mark.parametrize("name", ["eeg", "behaviour", "meg", "eye", "audio", "physio"])
def test_signals_follow_the_latent_by_the_stated_delay(simulated: list[Pair], further: Pair, name: str) -> None:
    recording, truth = further if name in FURTHER else simulated[0]
    signal, planted = _signal(recording, name), truth.planted[name]
    step = round(sim.FINE_HZ / signal.sfreq)
    scale = np.abs(planted.mixing).max()
    lag = _best_lag(signal.values / scale, (truth.latent @ planted.mixing.T)[::step] / scale, max_lag=round(1.5 * signal.sfreq))
    assert lag / signal.sfreq == pytest.approx(planted.view.delay_s, abs=0.5 / signal.sfreq)


def test_fmri_is_the_latent_through_the_haemodynamic_response(simulated: list[Pair]) -> None:
    recording, truth = simulated[0]
    response = sim.haemodynamic_response()
    assert np.argmax(response) / sim.FINE_HZ == pytest.approx(5.0, abs=0.1)
    slow = np.stack([np.convolve(z, response)[: len(z)] for z in truth.latent.T], axis=1) @ truth.planted["fmri"].mixing.T
    late, early = _signal(recording, "fmri").values[32:], slow[:: round(sim.FINE_HZ)][32:]
    assert _best_lag(late, early, max_lag=8) == 0
    assert np.corrcoef(late.ravel(), early.ravel())[0, 1] == pytest.approx(np.sqrt(2 / 3), abs=0.03)  # SNR 2


def test_ridge_on_counts_recovers_the_latent(card: DatasetCard, simulated: list[Pair]) -> None:
    recording, truth = simulated[0]
    counts = _signal(to_grid(recording, card), "spikes").values
    latent = truth.latent[np.round((np.arange(len(counts)) + 0.5) / card.grid_hz * sim.FINE_HZ).astype(int)]
    lagged = np.hstack([np.roll(np.sqrt(counts), k, axis=0) for k in range(-4, 5)])[8:-8]
    lagged = np.hstack([lagged, np.ones((len(lagged), 1))])
    half = len(lagged) // 2
    train, test, target = lagged[:half], lagged[half + 16 :], latent[8:-8]
    weights = np.linalg.solve(train.T @ train + 100 * np.eye(train.shape[1]), train.T @ target[:half])
    error = ((test @ weights - target[half + 16 :]) ** 2).mean(0) / target[half + 16 :].var(0)
    assert (1 - error > 0.85).all()


def test_sessions_have_their_own_units_and_subjects_their_own_head(simulated: list[Pair]) -> None:
    (_, a), (_, b) = simulated  # two sessions of one subject
    assert np.array_equal(a.planted["eeg"].mixing, b.planted["eeg"].mixing)
    assert np.array_equal(a.planted["behaviour"].mixing, b.planted["behaviour"].mixing)
    assert not np.array_equal(a.planted["spikes"].mixing, b.planted["spikes"].mixing)
    assert not np.array_equal(a.latent, b.latent)


def test_electrodes_lie_where_the_10_20_system_puts_them() -> None:
    at = dict(zip(sim.ELECTRODES, sim.electrode_positions(), strict=True))
    np.testing.assert_allclose(np.linalg.norm(list(at.values()), axis=1), sim.HEAD_RADIUS_M)
    np.testing.assert_allclose(at["Cz"], (0, 0, sim.HEAD_RADIUS_M), atol=1e-12)
    for left, right in [("Fp1", "Fp2"), ("F7", "F8"), ("C3", "C4"), ("T7", "T8"), ("P3", "P4"), ("O1", "O2")]:
        np.testing.assert_allclose(at[left] * (-1, 1, 1), at[right], atol=1e-12)
        assert at[left][0] < 0
    assert at["Fz"][1] > 0 > at["Pz"][1]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sfreq": None}, "simulated eeg signal needs sfreq"),
        ({"modality": "foci"}, "'foci' of signal 'eeg' is not simulated; allowed: spikes"),
    ],
)
def test_signals_that_cannot_be_simulated(card: DatasetCard, change: dict[str, Any], match: str) -> None:
    signals = {**card.signals, "eeg": dataclasses.replace(card.signals["eeg"], **change)}
    with pytest.raises(ValueError, match=match):
        sim.simulate(dataclasses.replace(card, signals=signals), 10.0)
