"""Searches find the planted best, go on where they were killed, and give the same files with and without Ray."""

import importlib.util
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.presets import Leaf, SearchConfig
from neurofm_ml.training.checkpoints import latest_checkpoint
from neurofm_ml.training.search import changes, draw, find_best, read_record, rungs, search
from neurofm_ml.training.trial import Pretraining

BASE = patch(presets.pretrain("tiny"), {"train": {"steps": 80, "lr": 0.02}})
LR = Leaf(name="train.lr", low=1e-3, high=3.0)
CFG = SearchConfig(seed=0, size="tiny", base=BASE, space=(LR,), n_trials=16, n_rungs=3)
NEEDS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


class Descent:
    """Descent of x from 1, down to a floor of lr / 10: after more updates lower rates are best. It diverges above a rate of 2.5."""

    def __call__(self, changes, folder, until):
        state = folder / "state.json"
        x, step = json.loads(state.read_text()) if state.exists() else (1.0, 0)
        (folder / "calls").open("a").write(f"{until}\n")
        lr = changes["train"]["lr"]
        x *= (1 - 0.3 * lr) ** (until - step)
        state.write_text(json.dumps((x, until)))
        return math.inf if lr > 2.5 else x**2 + lr / 10

    def inherit(self, changes, folder, parent):
        shutil.copy(parent / "state.json", folder)


def best_rate(steps: int) -> float:
    """The planted best: the smallest x^2 + lr / 10 after so many updates."""
    grid = np.geomspace(1e-3, 3, 10000)
    return float(grid[np.argmin((1 - 0.3 * grid) ** (2 * steps) + grid / 10)])


@pytest.fixture
def without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)


def test_halving_finds_the_planted_rate(without_ray, tmp_path):
    report = find_best(CFG, Descent(), tmp_path)
    table, found = pd.read_parquet(tmp_path / "trials.parquet"), json.loads((tmp_path / "best.json").read_text())
    assert rungs(CFG) == [20, 40, 80]
    assert table.groupby("steps").size().to_dict() == {20: 16, 40: 8, 80: 4}
    assert report.metrics["engine"] == "halving"
    assert best_rate(80) / 2 < found["train"]["lr"] < best_rate(80) * 2
    assert patch(BASE, found).train.lr == found["train"]["lr"]


def test_every_trial_ends_when_chosen_at_random(without_ray, tmp_path):
    report = find_best(patch(CFG, {"method": "random"}), Descent(), tmp_path)
    assert report.metrics["loss"] == pytest.approx(min((1 - 0.3 * s["train.lr"]) ** 160 + s["train.lr"] / 10 for s in draw(CFG)))
    assert pd.read_parquet(tmp_path / "trials.parquet").groupby("steps").size().to_dict() == {80: 16}


def test_a_search_goes_on_where_it_stopped(without_ray, tmp_path):
    class Tired(Descent):
        left = 19

        def __call__(self, changes, folder, until):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().__call__(changes, folder, until)

    with pytest.raises(KeyboardInterrupt):
        find_best(CFG, Tired(), tmp_path / "a")
    with (tmp_path / "a/trials/0003/record.jsonl").open("a") as file:
        file.write('{"trial": 3, "steps"')  # a line cut short
    find_best(CFG, Descent(), tmp_path / "a")
    find_best(CFG, Descent(), tmp_path / "b")
    whole, resumed = (pd.read_parquet(tmp_path / n / "trials.parquet").drop(columns="seconds") for n in "ba")
    pd.testing.assert_frame_equal(whole, resumed)
    for folder in (tmp_path / "a" / "trials").iterdir():
        asked = (folder / "calls").read_text().split()
        assert len(asked) == len(set(asked)), "judged twice"


def test_a_diverged_trial_is_the_worst(without_ray, tmp_path):
    cfg = patch(CFG, {"space": [{"name": "train.lr", "values": [3.0, 0.3]}], "base": {"train": {"lr": 3.0}}})
    find_best(cfg, Descent(), tmp_path)
    assert json.loads((tmp_path / "best.json").read_text()) == {"train": {"lr": 0.3}}


def test_drawing_keeps_to_the_space_and_to_the_seed():
    space = (
        LR,
        Leaf(name="train.batch_size", low=4, high=64),
        Leaf(name="model.backbone", words=("gru", "ssm")),
        Leaf(name="model.d_model", values=(32, 64)),
    )
    cfg = patch(CFG, {"space": [vars(leaf) for leaf in space], "n_trials": 200})
    settings = draw(cfg)
    assert settings == draw(cfg) != draw(patch(cfg, {"seed": 1}))
    assert settings[0] == {"train.lr": 0.02, "train.batch_size": 16, "model.backbone": "ssm", "model.d_model": 64}
    rates = np.log([s["train.lr"] for s in settings[1:]])
    assert np.abs(np.histogram(rates, 4, (math.log(1e-3), math.log(3.0)))[0] / 199 - 0.25).max() < 0.1
    patched = [patch(BASE, changes(cfg, s)) for s in settings]
    assert {p.model.d_model for p in patched} == {32, 64}
    assert {type(p.train.batch_size) for p in patched} == {int}


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"space": [{"name": "train.rate", "low": 1e-3, "high": 1.0}]}, r"names the leaf 'train.rate'; the config has no 'rate' there"),
        ({"space": [{"name": "train.lr"}]}, "needs either values, words, or low and high"),
        ({"space": [{"name": "train.lr", "low": 0.1, "high": 0.01}]}, "low must be smaller"),
        ({"space": [{"name": "train.lr", "low": -1.0, "high": 0.01}]}, "positive unless log is off"),
        ({"space": [{"name": "train.lr", "values": [-1.0]}]}, "TrainConfig.lr is -1.0; it must be positive"),
        ({"space": []}, "name at least one leaf"),
        ({"reduction": 1}, "it must be 2 or more"),
        ({"base": {"train": {"strategy": "ddp"}}}, 'it must be "single": every run has one process'),
        ({"method": "pbt"}, r'needs Ray; pip install "ray\[tune\]"'),
        ({"n_rungs": 100}, "must not exceed base.train.steps"),
    ],
)
def test_wrong_searches_are_refused(wrong, match, without_ray, tmp_path):
    with pytest.raises(ValueError, match=match):
        find_best(patch(CFG, wrong), Descent(), tmp_path)


# ---------------------------------------------------------------- with Ray
@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Processes of Ray's can import this file."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@NEEDS_RAY
@pytest.mark.slow
def test_ray_gives_the_files_that_halving_gives(tmp_path, monkeypatch):
    report = find_best(CFG, Descent(), tmp_path / "ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    find_best(CFG, Descent(), tmp_path / "plain")
    tables = [pd.read_parquet(tmp_path / name / "trials.parquet") for name in ("ray", "plain")]
    assert list(tables[0]) == list(tables[1])
    assert (tables[0].dtypes == tables[1].dtypes).all()
    assert report.metrics["engine"] == "ray"
    found = [json.loads((tmp_path / name / "best.json").read_text()) for name in ("ray", "plain")]
    assert all(best_rate(80) / 2 < patch(BASE, best).train.lr < best_rate(80) * 2 for best in found)
    assert len(tables[0]) < 16 * 3  # ASHA stopped some
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@NEEDS_RAY
@pytest.mark.slow
def test_a_population_beats_each_of_its_first_members(tmp_path):
    cfg = patch(CFG, {"method": "pbt", "n_trials": 6, "n_rungs": 8, "n_parallel": 2})
    report = find_best(cfg, Descent(), tmp_path)
    alone = [(1 - 0.3 * s["train.lr"]) ** 160 + s["train.lr"] / 10 for s in draw(cfg)]
    assert report.metrics["loss"] < min(alone)
    table = pd.read_parquet(tmp_path / "trials.parquet")
    assert table.groupby("trial")["train.lr"].nunique().max() > 1  # settings changed on the way
    assert table.groupby("steps").size().to_dict() == dict.fromkeys(range(10, 90, 10), 6)


class Slow(Descent):
    def __call__(self, changes, folder, until):
        found = super().__call__(changes, folder, until)
        marks = folder.parents[1] / "marks"
        marks.mkdir(exist_ok=True)
        (marks / f"{folder.name}-{until}-{os.getpid()}").touch()
        return found


def run_slowly(cfg, out):
    find_best(cfg, Slow(), out)


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.parametrize("method", ["asha", "pbt"])
def test_a_killed_search_goes_on(tmp_path, method):
    cfg = patch(CFG, {"method": method, "n_trials": 8, "n_rungs": 4})
    process = multiprocessing.get_context("spawn").Process(target=run_slowly, args=(cfg, tmp_path))
    process.start()
    while len(list(tmp_path.glob("marks/*"))) < 8:
        process.join(0.05)
        assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    before = {folder: read_record(folder) for folder in (tmp_path / "trials").iterdir()}
    report = find_best(cfg, Slow(), tmp_path)
    assert report.metrics["trials"] == 8
    if method == "asha":
        assert all(read_record(folder)[: len(rows)] == rows for folder, rows in before.items())
        assert all(len({r["steps"] for r in read_record(f)}) == len(read_record(f)) for f in before), "judged twice"


# ---------------------------------------------------------------- pretraining
SMALL = {"train": {"steps": 4, "batch_size": 2, "log_every": 2}, "model": {"d_model": 16, "n_heads": 2, "d_state": 4, "n_layers": 1}}


@pytest.fixture
def pretraining(shards, scaler, monkeypatch):
    monkeypatch.setattr("neurofm_ml.training.trial.load_scaler", lambda _: scaler)
    return Pretraining(patch(presets.pretrain("tiny"), SMALL), (shards,), (), every=2, validation_batches=1)


def test_a_stopped_run_goes_on_to_the_same_loss_and_is_not_judged_twice(pretraining, tmp_path):
    first = pretraining({}, tmp_path / "a", 2)
    assert latest_checkpoint(tmp_path / "a" / "checkpoints").step == 2
    assert pretraining({}, tmp_path / "a", 4) == pretraining({}, tmp_path / "b", 4) != first
    (tmp_path / "a" / "checkpoints").rename(tmp_path / "gone")
    assert pretraining({}, tmp_path / "a", 2) == first  # as it stands in the metrics


def test_a_run_takes_up_the_weights_of_another_with_settings_of_its_own(pretraining, tmp_path):
    pretraining({}, tmp_path / "parent", 2)
    (tmp_path / "child").mkdir()
    faster = {"train": {"lr": 0.01}}
    pretraining.inherit(faster, tmp_path / "child", tmp_path / "parent")
    assert pretraining(faster, tmp_path / "child", 4) != pretraining({}, tmp_path / "parent", 4)
    with pytest.raises(ValueError, match="holds a checkpoint of another run"):
        pretraining({"train": {"lr": 0.02}}, tmp_path / "child", 6)


@pytest.mark.slow
def test_the_pretraining_job_is_searched(pretraining, shards, tmp_path, without_ray):
    space = (Leaf(name="train.lr", values=(1e-6, 3e-3)),)
    base = patch(pretraining.base, {"train": {"steps": 12}})
    cfg = SearchConfig(seed=0, size="tiny", base=base, space=space, n_trials=3, n_rungs=2)
    report = search(cfg, [shards], [], tmp_path)
    table = pd.read_parquet(tmp_path / "trials.parquet")
    assert all(check.passed for check in report.checks)
    assert np.isfinite(table.loss).all()
    assert patch(cfg.base, json.loads((tmp_path / "best.json").read_text())).train.lr == 3e-3
