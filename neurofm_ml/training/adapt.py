"""The `adapt` job: fine-tune a pretrained model on every decoding problem, one decoder per recording and input."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from neurofm_ml.data.batches import build_vocabulary
from neurofm_ml.data.predictions import Prediction, save_prediction
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler, load_scaler
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import AdaptConfig
from neurofm_ml.training.decoders import Decoder, Problem, describe, extend, find_problems, fit_decoder, load_model, predict_block, save_decoder
from neurofm_ml.training.loop import History
from neurofm_ml.types import Check, Report


def adapt(cfg: AdaptConfig, pretrained: Path, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Fine-tune on the training block of every problem; write ``decoders/<problem>`` and ``predictions``.

    A problem that is finished is not fitted again, so a killed run goes on where it stood.
    """
    scale = load_scaler(scaler)
    base = load_model(pretrained)
    wanted = [path for path in shards if cfg.datasets is None or load_card(path).name in cfg.datasets]
    problems = [problem for path in wanted for problem in find_problems(path)]
    if not problems:
        raise ValueError("no dataset here has a decoding task with train, validation and test blocks; add `tasks` to a card or adapt other datasets.")
    checks: list[Check] = []
    for problem in tqdm(problems, desc="adapt", disable=None):
        if not (out / "decoders" / problem.name / "model.json").exists():
            model = extend(base, build_vocabulary([problem.shards]), cfg.seed)
            history = fit_decoder(model, problem, scale, cfg.train, cfg.augment, out / "fits" / problem.name, cfg.seed)
            save_predictions(model, problem, scale, "fine-tuned", cfg.seed, history, out / "predictions")
            save_decoder(out / "decoders" / problem.name, Decoder(model, describe(model, problem, scale)))
    return Report({"decoders": len(problems), "parameters": base.n_parameters()}, (_all_fell(out, problems),))
