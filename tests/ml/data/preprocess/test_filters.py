"""Filters and resampling against MNE, and against what a sine must become."""

import numpy as np
import pytest

from neurofm_ml.data.preprocess.filters import SETTLED, band_pass, butterworth, notch, resample, settling_s, zero_phase

SFREQ = 250.0


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5000, 3))


@pytest.mark.parametrize(("low", "high"), [(1.0, 40.0), (None, 30.0), (0.5, None)])
def test_band_pass_is_that_of_mne(noise: np.ndarray, low: float | None, high: float | None) -> None:
    import mne

    iir = {"order": 4, "ftype": "butter", "output": "sos"}
    theirs = mne.filter.filter_data(noise.T, SFREQ, low, high, method="iir", iir_params=iir, verbose="error").T
    # Ends are extended for different lengths of time.
    np.testing.assert_allclose(band_pass(noise, SFREQ, low, high)[1000:-1000], theirs[1000:-1000], atol=5e-4)


def test_notch_is_that_of_mne_and_takes_out_the_mains(noise: np.ndarray) -> None:
    import mne

    iir = {"order": 2, "ftype": "butter", "output": "sos"}
    theirs = mne.filter.filter_data(noise.T, SFREQ, 51, 49, method="iir", iir_params=iir, verbose="error").T
    np.testing.assert_allclose(notch(noise, SFREQ, (50,))[1000:-1000], theirs[1000:-1000], atol=1e-6)
    t = np.arange(5000) / SFREQ
    kept, mains = np.sin(2 * np.pi * 10 * t), np.sin(2 * np.pi * 50 * t) + np.sin(2 * np.pi * 100 * t)
    cleaned = notch(kept + mains, SFREQ, (50, 100))
    assert np.abs(cleaned - kept)[500:-500].max() < 0.01


def test_a_filter_has_no_delay_and_is_linear_in_its_channels(noise: np.ndarray) -> None:
    t = np.arange(5000) / SFREQ
    wave = np.sin(2 * np.pi * 10 * t)
    np.testing.assert_allclose(band_pass(wave + 5, SFREQ, 1, 40)[500:-500], wave[500:-500], atol=2e-3)
    np.testing.assert_array_equal(band_pass(noise, SFREQ, 1, 40)[:, 1], band_pass(noise[:, 1], SFREQ, 1, 40))


@pytest.mark.parametrize(("low", "high"), [(1.0, 40.0), (None, 3.0), (0.2, None)])
def test_what_lies_beyond_the_settling_time_moves_nothing(low: float | None, high: float | None) -> None:
    sos = butterworth(SFREQ, low, high)
    pulse = np.zeros(20001)
    pulse[10000] = 1
    response = np.abs(zero_phase(pulse, sos, SFREQ))
    far = np.abs(np.arange(20001) - 10000) > settling_s(sos, SFREQ) * SFREQ
    assert response[far].sum() < 5 * SETTLED * response.sum()
    assert response[far].max() < SETTLED * response.max()


def test_resampling_keeps_slow_waves_and_their_times_and_folds_nothing_back() -> None:
    t = np.arange(10000) / 1000
    slow, fast = np.sin(2 * np.pi * 20 * t), np.sin(2 * np.pi * 230 * t)
    down = resample(np.stack([slow + 3, fast], 1), 1000, 250)
    assert down.shape == (2500, 2)
    np.testing.assert_allclose(down[50:-50, 0], 3 + np.sin(2 * np.pi * 20 * np.arange(2500) / 250)[50:-50], atol=2e-3)
    # 230 Hz would come back as 20 Hz.
    assert np.abs(down[50:-50, 1]).max() < 1e-3
    np.testing.assert_allclose(resample(down[:, 0], 250, 1000)[400:-400], 3 + slow[400:-400], atol=4e-3)


def test_resampling_is_that_of_mne(noise: np.ndarray) -> None:
    import mne

    theirs = mne.filter.resample(noise.T, up=2.0, down=5.0, method="polyphase", verbose="error").T
    np.testing.assert_allclose(resample(noise, 250, 100)[50:-50], theirs[50:-50], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: band_pass(x, SFREQ, 1, 125), "rise between 0 and 125 Hz"),
        (lambda x: band_pass(x, SFREQ, 40, 1), "low_hz is 40, high_hz is 1"),
        (lambda x: band_pass(x, SFREQ, None, None), "one must be given"),
        (lambda x: notch(x, 100, (50,)), "does not fit between 0 and 50 Hz"),
        (lambda x: resample(x, 250, np.pi), "ratio of whole numbers"),
        (lambda x: resample(x, 250, 0), "ratio of whole numbers"),
        (lambda x: band_pass(np.where(x > 3, np.nan, x), SFREQ, 1, 40), "values are NaN or infinite"),
    ],
)
def test_what_cannot_be_filtered_is_refused(noise: np.ndarray, call: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call(noise)  # type: ignore[operator]
