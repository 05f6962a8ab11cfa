"""The `adapt` job: fit a pretrained model to every decoding problem, one decoder per recording and input."""

import copy
import shutil
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from neurofm_ml import gang
from neurofm_ml.data.predictions import Prediction, save_prediction
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler, load_scaler
from neurofm_ml.metrics import r2
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import AdaptConfig
from neurofm_ml.training.curves import read_curves
from neurofm_ml.training.decoders import Block, Decoder, adapted_to, describe, fit_decoder, predict_block, save_decoder
from neurofm_ml.training.few_labels import scaled_by_labels, with_share
from neurofm_ml.training.history import History
from neurofm_ml.training.problems import Problem, find_problems
from neurofm_ml.training.saved import load_model
from neurofm_ml.training.trainable import fitting
from neurofm_ml.types import Array, Check, Report

#: What the scores table calls each method.
METHODS = {"full": "fine_tuned", "probe": "readout", "new_units": "new_units", "lora": "lora"}


def adapt(cfg: AdaptConfig, pretrained: Path, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Write ``decoders/<problem>`` and ``predictions`` of the test blocks.

    A problem that is finished is not fitted again, so a killed run goes on where it stood. The processes of a gang
    share the problems among them.
    """
    scale = load_scaler(scaler)
    base = load_model(pretrained)
    problems = decoding_problems(cfg.datasets, shards)
    for problem in tqdm(problems[gang.rank() :: gang.world()], desc="adapt", disable=None):
        if not (out / "decoders" / problem.name / "model.json").exists():
            _adapt_one(cfg, base, problem, scale, out)
    gang.meet("adapted")
    return Report({"decoders": len(problems), "parameters": base.n_parameters()}, (_losses(problems, out),))


def decoding_problems(datasets: Collection[str] | None, shards: Sequence[Path]) -> list[Problem]:
    """The problems of `datasets` (None: of all `shards`) that a decoder can be fitted to."""
    wanted = [path for path in shards if datasets is None or load_card(path).name in datasets]
    problems = [problem for path in wanted for problem in find_problems(path)]
    if not problems:
        raise ValueError(
            "no dataset here has a decoding task with train, validation and test blocks; add `tasks` to a card, or choose others."
        )
    if several := [problem.name for problem in problems if len(problem.inputs) > 1]:
        raise ValueError(f"problems {', '.join(several)} read several signals and a decoder reads one; give each input a task in the card.")
    return problems


def _adapt_one(cfg: AdaptConfig, base: NeuroFMx, problem: Problem, scaler: Scaler, out: Path) -> None:
    if cfg.label_share < 1:
        problem = with_share(problem, cfg.label_share)
        scaler = scaled_by_labels(scaler, problem)
    model, history = fine_tune(cfg, base, problem, scaler, out / "fits" / problem.name)
    for prediction in predictions(model, problem, scaler, "test", METHODS[cfg.method], "neurofmx", cfg.seed, history.seconds):
        save_prediction(prediction, out / "predictions")
    shutil.rmtree(out / "fits" / problem.name / "checkpoints")
    save_decoder(out / "decoders" / problem.name, Decoder(model, describe(model, problem, scaler)))


def fine_tune(cfg: AdaptConfig, base: NeuroFMx, problem: Problem, scaler: Scaler, out: Path) -> tuple[NeuroFMx, History]:
    """Fit a copy of `base` to a problem; where that is worse on the validation block than not fitting, the copy as it was.

    Few labels overfit: then what other recordings taught is the better decoder.
    """
    model = adapted_to(base, [problem], scaler, cfg.seed)
    before, unfitted = validation_r2(model, problem, scaler), copy.deepcopy(model)
    with fitting(model, cfg, problem):
        history = fit_decoder(model, problem, scaler, cfg.train, cfg.augment, out, cfg.seed)
    return (unfitted, history) if before > validation_r2(model, problem, scaler) else (model, history)


def validation_r2(model: NeuroFMx, problem: Problem, scaler: Scaler) -> float:
    """Mean R2 over the tasks of a problem on its validation block."""
    blocks = predict_block(model, problem, scaler, "validation").values()
    return float(np.mean([r2(block.truth, block.guess, mask=known(block)) for block in blocks]))


def known(block: Block) -> Array:
    """(T,) True where every column of the truth is known."""
    return np.asarray(np.isfinite(block.truth).all(1))


def predictions(
    model: NeuroFMx, problem: Problem, scaler: Scaler, split: str, method: str, family: str, seed: int, train_seconds: float
) -> list[Prediction]:
    """What a fitted model says of a block, one entry per task."""
    began = time.perf_counter()
    blocks = predict_block(model, problem, scaler, split)
    seconds = time.perf_counter() - began
    return [
        Prediction(
            problem.dataset,
            problem.recording,
            task.name,
            method,
            family,
            y_true=block.truth,
            y_pred=block.guess,
            times=block.times,
            mask=known(block),
            parameters=model.n_parameters(),
            train_seconds=train_seconds,
            samples_per_second=len(block.times) / seconds,
            trained_on=f"{problem.dataset}/{problem.recording}",
            seed=seed,
            metric=task.metric,
        )
        for task, block in zip(problem.tasks, blocks.values(), strict=True)
    ]


def _losses(problems: Sequence[Problem], out: Path) -> Check:
    """Every fit ends finite; the last loss of each is the number judged."""
    last = {p.name: float(read_curves(out / "fits" / p.name / "metrics.csv")["loss"][1][-1]) for p in problems}
    return Check("loss_is_finite", all(np.isfinite(v) for v in last.values()), numbers=last, threshold="finite")
