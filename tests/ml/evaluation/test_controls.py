"""Controls sit at chance, and their p values mean what they say."""

from collections.abc import Callable

import numpy as np
import pytest

from neurofm_ml import metrics
from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.statistics.controls import control_and_p, shifted_r2


def test_shifts_agree_with_a_loop(make_series) -> None:
    rng = np.random.default_rng(0)
    y, p = 5 + make_series(rng, 0.7, 61), 4 + make_series(rng, 0.7, 61)
    plain, best = shifted_r2(y, p)
    shifts = [np.roll(p, s, axis=0) for s in range(61)]
    np.testing.assert_allclose(plain, [metrics.r2(y, s) for s in shifts], rtol=1e-9)
    fits = [np.mean([np.corrcoef(y[:, k], s[:, k])[0, 1] ** 2 for k in range(2)]) for s in shifts]
    np.testing.assert_allclose(best, fits, rtol=1e-9, atol=1e-12)


def test_control_of_a_good_prediction_is_at_chance_and_its_p_the_least_possible(make_prediction: Callable[..., Prediction]) -> None:
    control, p = control_and_p(make_prediction(noise=0.3))
    assert 0 <= control < 0.05
    assert p == pytest.approx(1 / 322)


def test_a_control_fitted_again_is_kept(make_prediction: Callable[..., Prediction]) -> None:
    assert control_and_p(make_prediction(control=-0.03))[0] == -0.03


def test_p_of_predictions_without_knowledge_is_no_smaller_than_it_should_be(
    make_prediction: Callable[..., Prediction], make_series
) -> None:
    rng = np.random.default_rng(0)
    p = [control_and_p(make_prediction(y_true=make_series(rng, 0.9, 400), y_pred=make_series(rng, 0.9, 400)))[1] for _ in range(400)]
    assert np.mean(np.array(p) < 0.05) < 0.09
    assert 0.4 < np.mean(p) < 0.6


def test_masked_bins_take_no_part(make_prediction: Callable[..., Prediction]) -> None:
    whole = make_prediction()
    mask = np.arange(400) >= 100
    holes = make_prediction(y_true=np.where(mask[:, None], whole.y_true, np.nan), mask=mask)
    part = make_prediction(**{k: getattr(whole, k)[100:] for k in ("y_true", "y_pred", "mask")})
    assert control_and_p(holes) == control_and_p(part)
