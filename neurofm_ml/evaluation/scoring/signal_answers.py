"""Job `answer_signals`: what a pretrained NeuroFMx says of silenced channels and of what follows, on the rows of the baselines."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from tqdm import tqdm

from neurofm_ml.artifacts import save_work
from neurofm_ml.data.predictions import Prediction, load_predictions, save_prediction
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.windows import read_windows
from neurofm_ml.evaluation.baselines.baselines import why_unasked
from neurofm_ml.evaluation.baselines.forecasting import model_forecast
from neurofm_ml.evaluation.baselines.reconstruction import model_reconstruction
from neurofm_ml.evaluation.features.features import objectives_of
from neurofm_ml.evaluation.features.probe import METHOD
from neurofm_ml.evaluation.scoring.signal_probes import probe_forecasts, probe_reconstruction
from neurofm_ml.evaluation.tasks.signals import SignalCase, find_signals
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import BaselinesConfig, SignalsConfig
from neurofm_ml.training.saved import load_model
from neurofm_ml.types import Report

#: Objectives that teach the head which tells activity.
ACTIVITY = frozenset({"masked", "next_step", "reconstruction"})


def answer_signals(cfg: SignalsConfig, pretrained: Path, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Write predictions for every signal of the sessions that the model was pretrained on; a killed run goes on where it stood.

    Linear probes of the frozen latents answer all; the model's own heads what its pretraining taught them.
    """
    model, taught = load_model(pretrained), objectives_of(pretrained)
    done = {p.case for p in load_predictions(out / "predictions") if p.method == METHOD}
    for path in tqdm(shards, desc="forecasts and reconstructions", unit="dataset", disable=None):
        asked = BaselinesConfig(dataset=load_card(path).name)
        cases = [case for case in find_signals(path, scaler, asked.horizons_s) if knows(model, case) and not why_unasked(case, "ridge")]
        for _, group in groupby(cases, key=lambda case: (case.recording, case.signal, case.category)):
            together = list(group)
            if together[-1].key not in done:
                for said in _answers(model, taught, together, asked, cfg.seed):
                    save_prediction(said, out / "predictions")
                save_work(out)
    answered = load_predictions(out / "predictions")
    return Report({"answers": len(answered), "datasets": len({p.dataset for p in answered})})


def _answers(
    model: NeuroFMx, taught: frozenset[str], cases: Sequence[SignalCase], asked: BaselinesConfig, seed: int
) -> Iterator[Prediction]:
    """What is said of one signal of a recording: its forecasts, or its reconstruction; the probe of the last case comes last."""
    if cases[0].category == "forecasting":
        if "forecast" in taught:
            yield from (model_forecast(model, case, seed) for case in cases)
        yield from probe_forecasts(model, cases, seed)
        return
    for case in cases:
        if ACTIVITY & taught:
            yield model_reconstruction(model, case, asked, seed)
        yield probe_reconstruction(model, case, asked, seed)


def knows(model: NeuroFMx, case: SignalCase) -> bool:
    """Whether the model has learned the session, and reads what was recorded."""
    table = read_windows(case.shards)
    session = str(table.session[table.recording == case.recording].iloc[0])
    return case.modality in model.tokenizers and bool(model.vocabulary.session_row(f"{case.dataset}/{session}"))
