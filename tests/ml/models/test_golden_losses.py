"""Five losses per family at size tiny: a refactor must reproduce them. `make golden` accepts new ones."""

import pytest
import torch

from neurofm_ml import presets
from neurofm_ml.models import MODELS
from neurofm_ml.training import pretrain  # noqa: F401 (fills FAMILIES)
from neurofm_ml.training.families import FAMILIES
from neurofm_ml.training.optimizer import adamw

#: Family -> modalities and seconds of its batches. Models of parcels are held in test_parcel_golden.py.
HELD = {"neurofmx": (("spikes", "calcium", "eeg", "fmri"), 12.0), "eegnet": (("eeg",), 2.0), "meg_transformer": (("meg",), 1.0)}


@pytest.mark.parametrize("family", HELD)
def test_golden_losses(family, golden, make_batch, vocabulary):
    cfg = presets.pretrain("tiny") if family == "neurofmx" else getattr(presets, f"{family}_pretrain")("tiny")
    torch.manual_seed(0)
    model = MODELS[family](cfg.model, vocabulary)
    loss, optimizer = FAMILIES[family].loss(cfg), adamw(model, cfg.train)
    losses, (modalities, seconds) = [], HELD[family]
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        torch.manual_seed(step)
        total, _ = loss(model, make_batch(*modalities, seconds=seconds, seed=step), generator, step / 5)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(round(total.item(), 5))
    # Kernels differ between processors in the last digits, which five updates amplify.
    assert losses == pytest.approx(golden(f"losses_{family}", losses), rel=2e-3)
