"""Trials of a search under Ray Tune: here on as many cores as trials may run at once, or on the cluster that RAY_ADDRESS names.

On a cluster the folder of the search must be one that all nodes share. Ray's dashboard and usage statistics stay off.
"""

import json
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from neurofm_ml.presets import Leaf, SearchConfig
from neurofm_ml.training import search
from neurofm_ml.training.trial import Objective

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "600",
    "TUNE_GLOBAL_CHECKPOINT_S": "10",
}
#: Ray orders trials by their loss and takes quantiles of it: a loss that is not finite stands as this.
WORST = 1e30
#: Bytes of shared memory: trials hand each other numbers alone.
STORE = 100_000_000


def run_trials(cfg: SearchConfig, objective: Objective, settings: Sequence[search.Setting], out: Path) -> None:
    """Run all trials; their records are in ``out/trials`` when this returns. Goes on where `out` holds an unfinished search."""
    out = out.resolve()
    with _ray(cfg):
        from ray import tune

        trainable = partial(_member if cfg.method == "pbt" else _trial, cfg=cfg, objective=objective, out=out)
        sized = tune.with_resources(trainable, {"cpu": 1, "gpu": cfg.gpus_per_trial})
        if tune.Tuner.can_restore(out / "ray"):
            tuner = tune.Tuner.restore(str(out / "ray"), sized, resume_errored=True)
        else:
            tuner = _tuner(cfg, sized, settings, out)
        if errors := tuner.fit().errors:
            raise errors[0]
    shutil.rmtree(out / "ray")  # what counts stands in the records


@contextmanager
def _ray(cfg: SearchConfig) -> Iterator[None]:
    """Ray running, and the handler of SIGTERM, which it replaces, back in place."""
    os.environ.update(QUIET)
    import ray

    main = threading.current_thread() is threading.main_thread()
    former = signal.getsignal(signal.SIGTERM)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        ray.init(
            num_cpus=cfg.n_parallel, include_dashboard=False, log_to_driver=False, object_store_memory=STORE, logging_level=logging.WARNING
        )
    if main:
        signal.signal(signal.SIGTERM, former)
    try:
        yield
    finally:
        ray.shutdown()


def _tuner(cfg: SearchConfig, trainable: Any, settings: Sequence[search.Setting], out: Path) -> Any:
    from ray import tune
    from ray.tune.search.basic_variant import BasicVariantGenerator

    space = {name: tune.choice([setting[name] for setting in settings]) for name in settings[0]}  # every point is given
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=len(settings),
            search_alg=BasicVariantGenerator(points_to_evaluate=list(settings)),
            scheduler=_scheduler(cfg),
            reuse_actors=True,  # a process imports torch once, not once per trial
        ),
        run_config=tune.RunConfig(name="ray", storage_path=str(out), verbose=0, failure_config=tune.FailureConfig(fail_fast=True)),
    )


def _scheduler(cfg: SearchConfig) -> Any:
    from ray.tune import schedulers

    steps = search.rungs(cfg)
    if cfg.method == "asha":
        return schedulers.ASHAScheduler("steps", max_t=steps[-1], grace_period=steps[0], reduction_factor=cfg.reduction)
    if cfg.method == "random":
        return schedulers.FIFOScheduler()
    mutations = {leaf.name: _domain(leaf) for leaf in cfg.space}
    inside = partial(_inside, space=cfg.space)
    return schedulers.PopulationBasedTraining(
        "steps", perturbation_interval=steps[0], hyperparam_mutations=mutations, custom_explore_fn=inside, log_config=False, synch=True
    )


def _domain(leaf: Leaf) -> Any:
    from ray import tune

    if leaf.values or leaf.words:
        return list(leaf.values or leaf.words)
    return (tune.loguniform if leaf.log else tune.uniform)(leaf.low, leaf.high)


def _inside(config: dict[str, Any], space: Sequence[Leaf]) -> dict[str, Any]:
    """A mutated setting with ranges kept."""
    ranged = {leaf.name: leaf for leaf in space if not (leaf.values or leaf.words)}
    return {k: min(max(v, ranged[k].low), ranged[k].high) if k in ranged else v for k, v in config.items()}


def _trial(config: dict[str, Any], cfg: SearchConfig, objective: Objective, out: Path) -> None:
    """One trial, in a process of Ray's."""
    from ray import tune

    for until in search.rungs(cfg):
        loss = search.judge(cfg, objective, _number(), config, until, out)
        tune.report({"loss": min(loss, WORST), "steps": until})


def _member(config: dict[str, Any], cfg: SearchConfig, objective: Objective, out: Path) -> None:
    """A trial of a population: what Ray keeps of it is all that it goes on from."""
    from ray import tune

    folder = out / "trials" / f"{_number():04d}"
    done = _take_up(tune.get_checkpoint(), objective, search.changes(cfg, config), folder)
    for until in (step for step in search.rungs(cfg) if step > done):
        loss = search.judge_anew(cfg, objective, _number(), config, until, out)
        with tempfile.TemporaryDirectory() as kept:
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            (Path(kept) / "done.json").write_text(json.dumps(until))
            tune.report({"loss": min(loss, WORST), "steps": until}, checkpoint=tune.Checkpoint.from_directory(kept))


def _number() -> int:
    """Which trial this is, in the order of their settings: Ray's ids end in it."""
    from ray import tune

    return int(tune.get_context().get_trial_id().rpartition("_")[2])


def _take_up(parent: Any, objective: Objective, changes: dict[str, Any], folder: Path) -> int:
    """Go on from a checkpoint of Ray's, this trial's own or that of a better one; gives the updates done there."""
    record = folder / "record.jsonl"
    rows = record.read_text() if record.exists() else ""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    record.write_text(rows)
    if parent is None:
        return 0
    with parent.as_directory() as found:
        objective.inherit(changes, folder, Path(found))
        return int(json.loads((Path(found) / "done.json").read_text()))
