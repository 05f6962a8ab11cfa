"""EEGNet from scratch on one task's training windows: the supervised network of the same loop and budget as the trained series
baseline. Its shape is the published one and is not tuned.

Shapes: n windows, K classes.
"""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from neurofm_ml.data.batches import Collate, build_vocabulary
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.predictions import Prediction
from neurofm_ml.data.scaler import load_scaler
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase
from neurofm_ml.models import EEGNet
from neurofm_ml.presets import BaselinesConfig, EEGNetConfig
from neurofm_ml.training.eegnet import cross_entropy
from neurofm_ml.training.loop import fit
from neurofm_ml.training.problems import provenance
from neurofm_ml.types import Array

#: Training windows below which a network has nothing to learn from.
LEAST_WINDOWS = 50
#: Seconds that one of its latents spans.
LEAST_S = 0.25


@dataclass(frozen=True)
class EEGNetBaseline:
    """A network for one task of EEG windows with classes."""

    name: str = "eegnet"

    def applies(self, case: LabelCase) -> bool:
        if case.modality != "eeg" or case.task not in case.sources[0].card.label_tasks or len(case.sources) > 1 or case.left_out:
            return False
        enough = (case.data.rows.split == "train").sum() >= LEAST_WINDOWS and case.sources[0].card.window_s >= LEAST_S
        return bool(case.task.classes and enough)

    def __call__(self, case: LabelCase, cfg: BaselinesConfig, out: Path) -> Prediction:
        """Train on the training windows, predict the test windows."""
        vocabulary = replace(build_vocabulary(case.shards), labels={f"{case.dataset}/{case.task.name}": case.task.classes})
        torch.manual_seed(cfg.seed)
        model = EEGNet(EEGNetConfig(), vocabulary)
        folder = out / "fits" / f"{case.dataset}-{case.task.name}-{self.name}"
        batches = _windows(case, model, "train", cfg.train.batch_size, cfg.seed)
        made_from = provenance(case.shards)
        history = fit(model, batches, cross_entropy, cfg.train, folder, seed=cfg.seed, provenance=made_from, description=folder.name)
        shutil.rmtree(folder / "checkpoints")
        began = time.perf_counter()
        said = _answers(case, model)
        return case.prediction(
            self.name,
            "baseline",
            said,
            seed=cfg.seed,
            parameters=sum(p.numel() for p in model.parameters()),
            train_seconds=history.seconds,
            samples_per_second=len(said) / (time.perf_counter() - began),
        )


def _windows(case: LabelCase, model: EEGNet, split: str, batch_size: int, seed: int) -> Loader:
    """The windows of a split that have a label."""
    keys = case.data.rows.key[case.data.rows.split == split]
    collate = Collate(case.shards, model.vocabulary, load_scaler(case.scaler), signals=case.task.inputs)
    return Loader(case.shards, split=split, batch_size=batch_size, seed=seed, where={"key": list(keys)}, collate=collate)


@torch.no_grad()
def _answers(case: LabelCase, model: EEGNet) -> Array:
    """(n, K) probabilities of the test windows, as if classes were equally frequent in training."""
    said: dict[int, Array] = {}
    for batch in _windows(case, model, "test", 64, 0).epoch():
        (logits,) = model(batch).values()
        said |= dict(zip(batch.rows.tolist(), case.data.equalised(logits.softmax(1).double().numpy()), strict=True))
    return np.stack([said[row] for row in case.data.rows.row[case.data.rows.split == "test"]])
