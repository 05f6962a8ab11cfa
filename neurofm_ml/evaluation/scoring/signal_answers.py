"""Job `answer_signals`: what a pretrained NeuroFMx says of silenced channels and of what follows, on the rows of the baselines."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from neurofm_ml.artifacts import save_work
from neurofm_ml.data.predictions import load_predictions, save_prediction
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.windows import read_windows
from neurofm_ml.evaluation.baselines.baselines import why_unasked
from neurofm_ml.evaluation.baselines.forecasting import model_forecast
from neurofm_ml.evaluation.baselines.reconstruction import model_reconstruction
from neurofm_ml.evaluation.tasks.signals import SignalCase, find_signals
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import BaselinesConfig, SignalsConfig
from neurofm_ml.training.saved import load_model
from neurofm_ml.types import Report


def answer_signals(cfg: SignalsConfig, pretrained: Path, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Write predictions for every signal of the sessions that the model was pretrained on; a killed run goes on where it stood."""
    model = load_model(pretrained)
    done = {p.case for p in load_predictions(out / "predictions")}
    for path in tqdm(shards, desc="forecasts and reconstructions", unit="dataset", disable=None):
        asked = BaselinesConfig(dataset=load_card(path).name)
        for case in find_signals(path, scaler, asked.horizons_s):
            if case.key not in done and knows(model, case) and not why_unasked(case, "ridge"):
                forecast = case.category == "forecasting"
                said = model_forecast(model, case, cfg.seed) if forecast else model_reconstruction(model, case, asked, cfg.seed)
                save_prediction(said, out / "predictions")
                save_work(out)
    answered = load_predictions(out / "predictions")
    return Report({"answers": len(answered), "datasets": len({p.dataset for p in answered})})


def knows(model: NeuroFMx, case: SignalCase) -> bool:
    """Whether the model has learned the session, and reads what was recorded."""
    table = read_windows(case.shards)
    session = str(table.session[table.recording == case.recording].iloc[0])
    return case.modality in model.tokenizers and bool(model.vocabulary.session_row(f"{case.dataset}/{session}"))
