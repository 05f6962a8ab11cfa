"""The `search` job: which changes to a config give the smallest loss on validation windows.

Settings of all trials are drawn before the first starts. Ray Tune runs them by ASHA, PBT or side by side; where Ray is not
installed they run one after the other by synchronous successive halving (Jamieson and Talwalkar 2016). Either way a trial
keeps its checkpoints in ``trials/<number>`` and every judgement in ``trials/<number>/record.jsonl``, so a search that was
killed goes on: what was judged is not tried again.
"""

import importlib.util
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml.config import patch, to_dict
from neurofm_ml.files import write_json
from neurofm_ml.presets import Leaf, SearchConfig
from neurofm_ml.training.pretrain import choose
from neurofm_ml.training.trial import Objective, Pretraining
from neurofm_ml.types import Check, Report

log = logging.getLogger(__name__)

Setting = dict[str, Any]  # name of a leaf -> value


def search(cfg: SearchConfig, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Writes ``trials.parquet``, every judgement, and ``best.json``, the best patch of `cfg.base`; test windows are not read."""
    used, _ = choose(cfg.base.datasets, shards)
    steps = rungs(cfg)
    cfg = patch(cfg, {"base": {"train": {"steps": steps[-1]}}})
    return find_best(cfg, Pretraining(cfg.base, tuple(used.values()), tuple(scaler), steps[0], cfg.validation_batches), out)


def find_best(cfg: SearchConfig, objective: Objective, out: Path) -> Report:
    """The search itself, of anything that can be tried."""
    settings = draw(cfg)
    has_ray = importlib.util.find_spec("ray") is not None
    if cfg.method == "pbt" and not has_ray:
        raise ValueError('SearchConfig.method is "pbt", which needs Ray; pip install "ray[tune]", or choose "asha".')
    if has_ray:
        from neurofm_ml.training.raytune import run_trials

        run_trials(cfg, objective, settings, out)
    else:
        log.warning("Ray is not installed: trials run one after the other, by successive halving.")
        halve(cfg, objective, settings, out)
    return _report(cfg, collect(out), "ray" if has_ray else "halving", out)


def rungs(cfg: SearchConfig) -> list[int]:
    """Updates after which trials are judged, the last of them at most ``base.train.steps``; each is a multiple of the first."""
    steps, n = cfg.base.train.steps, cfg.n_rungs
    if cfg.method == "random":
        return [steps]
    if cfg.method == "pbt":
        return [k * (steps // n) for k in range(1, n + 1)]
    first = max(1, steps // cfg.reduction ** (n - 1))
    return [min(first * cfg.reduction**k, steps) for k in range(n)]


def draw(cfg: SearchConfig) -> list[Setting]:
    """Settings of all trials, a pure function of the config: the base's own first, the others at random."""
    rng = np.random.default_rng(cfg.seed)
    base = to_dict(cfg.base)
    own = {leaf.name: _leaf(base, leaf.name) for leaf in cfg.space}
    drawn = [{leaf.name: pick(leaf, rng) for leaf in cfg.space} for _ in range(cfg.n_trials - 1)]
    for setting in drawn:
        patch(cfg.base, changes(cfg, setting))  # what the config refuses is refused before anything runs
    return [own, *drawn]


def pick(leaf: Leaf, rng: np.random.Generator) -> Any:
    """One value of a leaf at random."""
    if choices := leaf.values or leaf.words:
        return choices[int(rng.integers(len(choices)))]
    low, high = (math.log(leaf.low), math.log(leaf.high)) if leaf.log else (leaf.low, leaf.high)
    found = float(rng.uniform(low, high))
    return math.exp(found) if leaf.log else found


def changes(cfg: SearchConfig, setting: Mapping[str, Any]) -> dict[str, Any]:
    """A setting as a nested patch of the base; whole leaves get whole numbers."""
    base, nested = to_dict(cfg.base), dict[str, Any]()
    for name, value in setting.items():
        *path, last = name.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})
        was = _leaf(base, name)
        inner[last] = bool(value) if isinstance(was, bool) else round(value) if isinstance(was, int) else value
    return nested


def _leaf(base: Mapping[str, Any], name: str) -> Any:
    """The value of a leaf by its path. Raises ValueError naming the part that is not there."""
    found: Any = base
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise ValueError(f"SearchConfig.space names the leaf {name!r}; the config has no {part!r} there.")
        found = found[part]
    return found


def halve(cfg: SearchConfig, objective: Objective, settings: Sequence[Setting], out: Path) -> None:
    """All trials to the first rung, the best 1 / `reduction` of them to the next, and so on."""
    alive = list(range(len(settings)))
    for until in rungs(cfg):
        losses = {number: judge(cfg, objective, number, settings[number], until, out) for number in alive}
        alive = sorted(alive, key=lambda number: losses[number])[: math.ceil(len(alive) / cfg.reduction)]


def judge(cfg: SearchConfig, objective: Objective, number: int, setting: Setting, until: int, out: Path) -> float:
    """The loss of a trial after update `until`: as it stands in the record, else tried and recorded."""
    folder = out / "trials" / f"{number:04d}"
    folder.mkdir(parents=True, exist_ok=True)
    for row in read_record(folder):
        if row["steps"] == until:
            return float(row["loss"])
    return judge_anew(cfg, objective, number, setting, until, out)


def judge_anew(cfg: SearchConfig, objective: Objective, number: int, setting: Setting, until: int, out: Path) -> float:
    """The same, whatever the record says."""
    folder, start = out / "trials" / f"{number:04d}", time.perf_counter()
    loss = objective(changes(cfg, setting), folder, until)
    row = {"trial": number, "steps": until, "loss": loss, "seconds": round(time.perf_counter() - start, 3), **setting}
    with (folder / "record.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    return loss


def read_record(folder: Path) -> list[dict[str, Any]]:
    """Judgements of one trial, in their order; a line that a killed process left unfinished does not count."""
    path = folder / "record.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def collect(out: Path) -> pd.DataFrame:
    """One row per judgement: trial, steps, loss, seconds, and the settings it was trained with at that time."""
    rows = [row for folder in sorted((out / "trials").iterdir()) for row in read_record(folder)]
    return pd.DataFrame(rows).drop_duplicates(["trial", "steps"], keep="last", ignore_index=True)


def _report(cfg: SearchConfig, table: pd.DataFrame, engine: str, out: Path) -> Report:
    table.to_parquet(out / "trials.parquet", index=False)
    ended = table[table.steps == table.steps.max()]
    best = ended.loc[ended.loss.idxmin()]
    finite = bool(np.isfinite(best.loss))
    setting = {leaf.name: best[leaf.name] for leaf in cfg.space}
    setting = {name: value.item() if isinstance(value, np.generic) else value for name, value in setting.items()}
    write_json(out / "best.json", changes(cfg, setting))
    base = table[(table.trial == 0) & (table.steps == table[table.trial == 0].steps.max())].iloc[-1]
    metrics = {
        "loss": float(best.loss),
        "base_loss": float(base.loss),
        "base_steps": int(base.steps),
        "trials": int(table.trial.nunique()),
        "ended": len(ended),
        "updates": int(table.groupby("trial").steps.max().sum()),
        "engine": engine,
        **{f"best {name}": value for name, value in setting.items()},
    }
    edges = [name for name, at in ((leaf.name, _at_edge(leaf, setting[leaf.name])) for leaf in cfg.space) if at]
    checks = (
        Check("a_trial_ended", finite, numbers={"loss": float(best.loss), "ended": len(ended)}, threshold="one with a finite loss"),
        Check("best_is_inside", not edges, "warn", {"at_the_edge": len(edges)}, "no leaf within 2 % of an end", ", ".join(edges)),
    )
    return Report(metrics, checks, {"trials": "trials.parquet", "best patch": "best.json"})


def _at_edge(leaf: Leaf, value: Any) -> bool:
    """Whether a number lies at an end of its range, where better ones may lie beyond."""
    if leaf.words or leaf.values:
        return bool(leaf.values) and len(leaf.values) > 2 and value in (min(leaf.values), max(leaf.values))
    scale = math.log if leaf.log else float
    place = (scale(value) - scale(leaf.low)) / (scale(leaf.high) - scale(leaf.low))
    return not 0.02 < place < 0.98
