"""Models on disk and models that come to know more."""

from pathlib import Path

import numpy as np
import pytest
import torch

from neurofm_ml import presets
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.data.gradients import Gradients
from neurofm_ml.models import BrainJEPA
from neurofm_ml.training.saved import extend, load_model, save_model

KNOWN = Vocabulary({"fmri": ("a/one/bold/0", "a/one/bold/1")}, ("a/one",), {})
MORE = Vocabulary({"fmri": ("b/two/bold/0",)}, ("b/two",), {})


@pytest.fixture
def model() -> BrainJEPA:
    """With gradients of its two parcels, and of five reference parcels that no vocabulary names."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = BrainJEPA(presets.brain_jepa("tiny"), KNOWN)
    n = model.cfg.n_gradients
    places, values = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(5, n)).astype(np.float32)
    named = {name: rng.normal(size=n).astype(np.float32) for name in KNOWN.channels["fmri"]}
    for field in (m for m in model.modules() if hasattr(m, "fill")):
        field.fill(Gradients(places, values, named), KNOWN)
    return model.eval()


def test_what_comes_back_is_what_was_saved(model: BrainJEPA, tmp_path: Path) -> None:
    save_model(tmp_path, model)
    back = load_model(tmp_path)
    assert type(back) is BrainJEPA
    assert (back.cfg, back.vocabulary) == (model.cfg, model.vocabulary)
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def test_a_wider_model_keeps_what_it_knew_in_its_place(model: BrainJEPA) -> None:
    wider = extend(model, MORE, seed=1)
    assert wider.vocabulary.channels["fmri"] == (*KNOWN.channels["fmri"], *MORE.channels["fmri"])
    for name, value in model.state_dict().items():
        kept = wider.state_dict()[name][tuple(slice(n) for n in value.shape)]
        assert torch.equal(kept, value), name
    assert extend(model, MORE, seed=1).state_dict().keys() == model.state_dict().keys()
