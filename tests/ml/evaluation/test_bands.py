"""Amplitudes of fast potentials in bands: a rhythm's size is found whatever its phase, and decoded where raw samples are not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.evaluation.baselines.ridge import fit_ridge
from neurofm_ml.evaluation.tasks.bands import BANDS, band_amplitudes
from neurofm_ml.evaluation.tasks.tasks import DecodingData, find_cases
from neurofm_ml.types import Array, Signal

SFREQ, HZ = 250.0, 10.0


def rhythm(size: Array, freq_hz: float, seed: int = 0) -> Signal:
    """A rhythm of `size` (T,) per bin of 0.1 s on a random phase, in white noise; a second channel is noise alone."""
    rng = np.random.default_rng(seed)
    each = round(SFREQ / HZ)
    t = np.arange(len(size) * each) / SFREQ
    wave = np.repeat(size, each) * np.cos(2 * np.pi * freq_hz * t + rng.uniform(0, 2 * np.pi))
    values = np.stack([wave, np.zeros_like(wave)], axis=1) + 0.01 * rng.standard_normal((len(t), 2))
    return Signal(values.astype(np.float32), SFREQ, "lfp", 0.0, ("a", "b"))


@pytest.mark.parametrize("band", range(1, 6))
def test_a_rhythm_stands_in_its_band_with_its_mean_square(band: int) -> None:
    low, high = BANDS[band]
    found = band_amplitudes(rhythm(np.full(200, 3.0), (low * high) ** 0.5), HZ).reshape(200, -1, 2)
    assert found.shape[1] == sum(high < 0.9 * SFREQ / 2 for _, high in BANDS)
    inner = found[20:-20]
    assert inner[..., 0].mean(0).argmax() == band
    assert np.exp(inner[:, band, 0]).mean() == pytest.approx(3.0**2 / 2, rel=0.02)
    assert inner[..., 1].max() < inner[:, band, 0].min() - 4


def test_the_size_of_a_rhythm_is_decoded_from_its_band() -> None:
    rng = np.random.default_rng(1)
    sizes = {split: np.exp(np.convolve(rng.standard_normal(n + 19), np.ones(20) / 20, "valid")) for split, n in
             (("train", 1500), ("validation", 400), ("test", 600))}  # fmt: skip
    signals = {split: rhythm(size, 8.0, seed) for seed, (split, size) in enumerate(sizes.items())}
    y = {split: np.log(size)[:, None] for split, size in sizes.items()}
    times = {split: np.arange(len(size)) / HZ for split, size in sizes.items()}

    def r2(x: dict[str, Array]) -> float:
        data = DecodingData(x, y, times, np.zeros(x["train"].shape[1], bool))
        return data.r2("test", fit_ridge(data, x, lags=(0, 1)).predict(x["test"]))

    assert r2({split: band_amplitudes(signal, HZ) for split, signal in signals.items()}) > 0.9
    raw = {split: np.asarray(s.values, np.float64).reshape(len(sizes[split]), -1) for split, s in signals.items()}
    assert r2(raw) < 0.1


def test_a_task_reads_fast_potentials_in_bands(shards: Path) -> None:
    case = find_cases(shards, [])[0]
    data = dataclasses.replace(case, task=dataclasses.replace(case.task, inputs=("spikes", "eeg"))).data
    n_eeg = data.x["train"].shape[1] - int(data.counts.sum())
    usable = sum(high < 0.9 * 128 / 2 for _, high in BANDS)
    assert n_eeg % usable == 0
    assert n_eeg > 0
    assert all(len(x) == len(data.y[split]) for split, x in data.x.items())


def test_missing_samples_are_refused() -> None:
    signal = rhythm(np.ones(50), 8.0)
    values = np.array(signal.values)
    values[100] = np.nan
    with pytest.raises(ValueError, match="2 of 2500 values are NaN or infinite"):
        band_amplitudes(dataclasses.replace(signal, values=values), HZ)
