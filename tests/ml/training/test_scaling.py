"""Scaling laws: planted exponents lie in their intervals, flat losses give intervals that hold 0, cells are trained once."""

import numpy as np
import pandas as pd
import pytest

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.presets import ScalingConfig
from neurofm_ml.training import scaling
from neurofm_ml.training.scaling import fit_law, fit_scaling

THREE, SIX = np.array([1e4, 4e4, 1.6e5]), np.geomspace(1e4, 1e7, 6)


def planted(size, exponent, floor, noise, seeds, rng):
    """Losses (S, R) of a power law with noise of a constant share."""
    return (0.5 * (size / size[0]) ** -exponent + floor)[:, None] * (1 + noise * rng.normal(size=(len(size), seeds)))


@pytest.mark.parametrize(("size", "exponent", "floor"), [(THREE, 0.2, 0.0), (THREE, 0.05, 0.0), (SIX, 0.3, 0.2), (SIX, 0.5, 0.0)])
def test_a_planted_law_is_found(size, exponent, floor):
    law = fit_law(size, planted(size, exponent, floor, 0.0, 3, np.random.default_rng(0)))
    assert law.exponent == pytest.approx(exponent, abs=0.005)
    assert law.floor == pytest.approx(floor, abs=0.01)
    np.testing.assert_allclose(law(size), 0.5 * (size / size[0]) ** -exponent + floor, rtol=1e-3)


@pytest.mark.parametrize(("size", "exponent", "floor", "noise"), [(THREE, 0.1, 0.0, 0.03), (THREE, 0.0, 0.0, 0.03), (SIX, 0.3, 0.2, 0.01)])
def test_intervals_hold_the_truth_as_often_as_they_say(size, exponent, floor, noise):
    rng = np.random.default_rng(1)
    laws = [fit_law(size, planted(size, exponent, floor, noise, 3, rng), n_boot=200) for _ in range(150)]
    assert 0.88 <= np.mean([law.ci_low <= exponent <= law.ci_high for law in laws]) <= 1.0
    assert np.median([law.ci_high - law.ci_low for law in laws]) < 0.6  # and they say something


def test_flat_losses_are_reported_as_flat(tmp_path):
    rng = np.random.default_rng(2)
    rows = [
        {"width": w, "seed": s, "parameters": w * 1000, "flops": w * 1e9, "loss": 0.5 + 0.01 * rng.normal()}
        for w in (8, 16, 32)
        for s in range(3)
    ]
    found = scaling.report(pd.DataFrame(rows), 500, tmp_path)
    assert found.metrics["ci_low"] < 0 < found.metrics["ci_high"]
    assert [check.passed for check in found.checks] == [True, False]
    assert (tmp_path / "scaling.png").stat().st_size > 5000


def test_a_diverged_cell_blocks(tmp_path):
    rows = [{"width": w, "seed": s, "parameters": w, "flops": w, "loss": np.inf if w == 8 else 1.0} for w in (8, 16, 32) for s in range(2)]
    assert not scaling.report(pd.DataFrame(rows), 10, tmp_path).checks[0].passed


@pytest.mark.parametrize(
    ("wrong", "match"),
    [({"widths": [16, 32, 32]}, "needs three or more different ones"), ({"seeds": [1]}, "needs two or more different ones")],
)
def test_too_few_cells_are_refused(wrong, match):
    with pytest.raises(ValueError, match=match):
        patch(presets.scaling("tiny"), wrong)


def test_negative_losses_are_refused():
    with pytest.raises(ValueError, match="losses go down to -1, and a power law is positive"):
        fit_law(THREE, np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]]))


def test_cells_are_trained_once(shards, scaler, tmp_path, monkeypatch):
    monkeypatch.setattr("neurofm_ml.training.trial.load_scaler", lambda _: scaler)
    small = {"train": {"steps": 2, "batch_size": 2}, "model": {"n_heads": 2, "d_state": 4, "n_layers": 1}}
    cfg = ScalingConfig(size="tiny", base=patch(presets.scaling("tiny").base, small), widths=(4, 8, 16), seeds=(0, 1), validation_batches=1)
    fit, left = scaling.Pretraining.__call__, iter(range(3))

    def tiring(self, changes, folder, until):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return fit(self, changes, folder, until)

    with monkeypatch.context() as tired:
        tired.setattr(scaling.Pretraining, "__call__", tiring)
        with pytest.raises(KeyboardInterrupt):
            fit_scaling(cfg, [shards], [], tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells/*/metrics.csv")}
    report = fit_scaling(cfg, [shards], [], tmp_path)
    table = pd.read_parquet(tmp_path / "cells.parquet")
    assert len(before) == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(table) == 6
    assert table.loss.nunique() == 6
    assert table.groupby("width").parameters.nunique().eq(1).all()
    assert {"exponent", "ci_low", "ci_high", "compute_exponent"} <= set(report.metrics)
