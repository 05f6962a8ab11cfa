"""Training on parcels with known truth: what can be predicted is, what cannot is not, collapse is seen, resuming is exact."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from parcel_batches import NOBODY, Planted, batch_of, coupled, low_rank, planted_gradients, white
from parcel_shards import DATA, communities, scaler_of, write_real, write_series
from torch import Tensor, nn

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import Collate, build_vocabulary
from neurofm_ml.data.loader import Loader
from neurofm_ml.models import BrainJEPA, BrainLM
from neurofm_ml.training import brain_jepa, brainlm
from neurofm_ml.training.checkpoints import latest_checkpoint
from neurofm_ml.training.families import FAMILIES
from neurofm_ml.training.history import History
from neurofm_ml.training.label_decoders import pool
from neurofm_ml.training.loop import fit
from neurofm_ml.training.pretrain import choose
from neurofm_ml.types import Array, Batch

SMALL = {"d_model": 32, "n_layers": 2, "n_heads": 2}
VOLUMES = {"form": "autoregressive", "patch_s": 0.0, "n_samples": 1}
Make = Callable[[np.random.Generator], Array]


def lm_config(steps: int, **shape: Any) -> presets.BrainLMPretrainConfig:
    train = {"steps": steps, "checkpoint_every": steps, "log_every": 5}
    return patch(presets.brainlm_pretrain("tiny"), {"model": {**SMALL, **shape}, "train": train})


def jepa_config(steps: int, **changes: Any) -> presets.BrainJEPAPretrainConfig:
    train = {"steps": steps, "checkpoint_every": steps, "log_every": 5}
    return patch(presets.brain_jepa_pretrain("tiny"), {"model": {**SMALL, "n_gradients": 3}, "train": train, **changes})


def jepa_model(cfg: presets.BrainJEPAPretrainConfig, kind: type[BrainJEPA] = BrainJEPA) -> BrainJEPA:
    torch.manual_seed(0)
    model = kind(cfg.model, NOBODY)
    model.gradients.fill(planted_gradients(3), NOBODY)
    return model


def train_lm(cfg: presets.BrainLMPretrainConfig, make: Make, out: Any) -> tuple[BrainLM, History]:
    model = brainlm.build(cfg, NOBODY, [], None)
    return model, fit(model, Planted(make), brainlm.loss(cfg), cfg.train, out, seed=0)


# ---------------------------------------------------------------- BrainLM
@pytest.mark.parametrize(("shape", "steps", "below"), [({}, 60, 0.5), (VOLUMES, 25, 0.3)], ids=["masked", "autoregressive"])
def test_shared_dynamics_are_predicted_and_noise_is_not(shape, steps, below, tmp_path):
    _, learned = train_lm(lm_config(steps, **shape), low_rank, tmp_path / "dynamics")
    assert learned.last("loss") < below * learned.last("variance")
    _, noise = train_lm(lm_config(steps, **shape), white, tmp_path / "noise")
    assert noise.last("loss") == pytest.approx(noise.last("variance"), rel=0.1)
    if shape:
        assert learned.last("loss") < learned.last("persistence")
        assert noise.last("persistence") == pytest.approx(2 * noise.last("variance"), rel=0.1)


# ---------------------------------------------------------------- Brain-JEPA
def test_latents_are_predicted_without_collapse(tmp_path):
    cfg = jepa_config(150)
    history = fit(jepa_model(cfg), Planted(low_rank), brain_jepa.loss(cfg), cfg.train, tmp_path, seed=0)
    (check,) = brain_jepa.checks(history)
    assert (check.name, check.passed) == ("no_collapse", True)
    assert check.numbers["variance"] > 5 * brain_jepa.MIN_VARIANCE
    # Small errors: smooth L1 is half of their square.
    assert 2 * history.last("cross_parcel") < 0.75 * history.last("embedding_variance")
    assert history.last("explained") > 0.05


class Collapsing(BrainJEPA):
    """No moving average, no predictor, and a target that learns to be predictable."""

    def follow(self, keep: float) -> None: ...

    def targets(self, batch: Batch, patches: Any) -> Tensor:
        return self.context(batch, patches, self.gradients(batch.streams["bold"]), patches.mask)

    def predict(self, batch: Batch, patches: Any, seen: Tensor, asked: Tensor) -> Tensor:
        return self.predictor.head.bias.expand(*asked.shape, -1)


def test_a_planted_collapse_is_seen(tmp_path):
    cfg = patch(jepa_config(80), {"train": {"lr": 5e-3}})
    history = fit(jepa_model(cfg, Collapsing), Planted(low_rank), brain_jepa.loss(cfg), cfg.train, tmp_path, seed=0)
    (check,) = brain_jepa.checks(history)
    assert not check.passed
    assert check.numbers["variance"] < brain_jepa.MIN_VARIANCE
    assert history.checks[1].passed, "the loss fell all the same"


def test_dispersion_counts_what_varies_in_each_parcel():
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(50, 4, 3, dtype=torch.bool)
    basis = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0][:2]
    plane = torch.randn(50, 4, 3, 2, generator=generator) @ basis
    found = brain_jepa.dispersion(plane + 5 * torch.randn(3, 8, generator=generator), mask)
    assert float(found["embedding_dimensions"]) == pytest.approx(2, abs=0.1)
    assert float(found["embedding_variance"]) == pytest.approx(2 / 8, rel=0.1)
    covariance = np.cov(plane.reshape(-1, 8).T.numpy())
    assert float(found["embedding_covariance"]) == pytest.approx((covariance**2)[~np.eye(8, dtype=bool)].mean(), rel=0.1)
    padded = torch.cat([plane, torch.full((50, 4, 1, 8), 99.0)], 2)
    there = torch.cat([mask, torch.zeros(50, 4, 1, dtype=torch.bool)], 2)
    for name, value in brain_jepa.dispersion(padded, there).items():
        assert torch.allclose(value, brain_jepa.dispersion(plane, mask)[name], atol=1e-5)


def test_what_is_asked_for_was_not_seen():
    """Four parts of parcels x patches, in the shares asked for; padding in none of them."""
    cfg = jepa_config(1)
    valid = torch.ones(3, 10, 20, dtype=torch.bool)
    valid[1, 5:], valid[2, :, 10:] = False, False
    seen, asked = brain_jepa.spacetime(valid, cfg, torch.Generator().manual_seed(0))
    parts = torch.stack([seen, *asked.values()])
    assert list(asked) == ["cross_parcel", "cross_time", "double_cross"]
    assert (parts.sum(0) <= valid).all()
    assert seen.sum((1, 2)).tolist() == [6 * 12, 3 * 12, 6 * 6]
    assert asked["cross_parcel"].sum((1, 2)).tolist() == [6 * 4, 3 * 4, 6 * 2]
    assert asked["double_cross"].sum((1, 2)).tolist() == [4 * 4, 2 * 4, 4 * 2]
    during = seen.any(2)
    assert (asked["cross_time"].any(2) & during).sum() == 0
    assert ((during[:, 1:] & ~during[:, :-1]).sum(1) + during[:, 0] == 1).all(), "one stretch of time"
    assert not (asked["cross_parcel"].any(1) & seen.any(1)).any()


# ---------------------------------------------------------------- resuming
class Failing(Planted):
    """Stops the process, as it were, before batch `last` + 1."""

    def __init__(self, make: Make, last: int) -> None:
        super().__init__(make)
        self.last = last

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            if self.step > self.last:
                raise KeyboardInterrupt
            yield batch


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_ends_in_the_same_bits_target_encoder_included(accumulate, tmp_path):
    cfg = jepa_config(6, train={"steps": 6, "checkpoint_every": 2, "log_every": 2, "accumulate": accumulate})

    def run(batches: Planted, name: str) -> nn.Module:
        model = jepa_model(cfg)
        fit(model, batches, brain_jepa.loss(cfg), cfg.train, tmp_path / name, seed=0)
        return model

    whole = run(Planted(low_rank), "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Failing(low_rank, 5 * accumulate), "stopped")
    assert latest_checkpoint(tmp_path / "stopped" / "checkpoints").step == 4
    resumed = run(Planted(low_rank), "stopped")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    kept = latest_checkpoint(tmp_path / "stopped" / "checkpoints").weights
    assert not torch.equal(kept["target.who.weight"], kept["context.who.weight"])


# ---------------------------------------------------------------- what is known of a person
def decoded(model: nn.Module) -> float:
    """Correlation of a person's coupling with what ridge regression reads of it in the embedding, on other people."""
    rng = np.random.default_rng(99)
    coupling = rng.uniform(-1, 1, 240)
    with torch.no_grad():
        x = pool(model.encode(batch_of(coupled(rng, coupling)))).numpy()
    x = (x - x[:120].mean(0)) / x[:120].std(0)
    weights = np.linalg.solve(x[:120].T @ x[:120] + 10 * np.eye(x.shape[1]), x[:120].T @ (coupling[:120] - coupling[:120].mean()))
    return float(np.corrcoef(x[120:] @ weights, coupling[120:])[0, 1])


def people(rng: np.random.Generator) -> Array:
    return coupled(rng, rng.uniform(-1, 1, 8))


def test_brainlm_embeds_how_a_persons_communities_are_coupled(tmp_path):
    model, _ = train_lm(lm_config(80), people, tmp_path)
    assert decoded(model) > 0.4


def test_brain_jepa_embeds_how_a_persons_communities_are_coupled(tmp_path):
    cfg = jepa_config(80)
    model = jepa_model(cfg)
    fit(model, Planted(people), brain_jepa.loss(cfg), cfg.train, tmp_path, seed=0)
    assert decoded(model) > 0.4


# ---------------------------------------------------------------- from shards
@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two datasets with other parcels and repetition times."""
    folder, rng = tmp_path_factory.mktemp("parcels"), np.random.default_rng(0)
    few = [communities(100, 3, seed=i)[0] for i in range(4)]
    return [
        write_series(folder, "many", [communities(seed=i)[0] for i in range(4)], rng.uniform(-60, 60, size=(24, 3))),
        write_series(folder, "few", few, rng.uniform(-60, 60, size=(9, 3)), tr=0.8),
    ]


@pytest.mark.parametrize("family", [brainlm, brain_jepa])
def test_datasets_with_other_parcels_share_a_batch(family, shards, tmp_path):
    cfg = lm_config(2) if family is brainlm else jepa_config(2)
    vocabulary, scaler = build_vocabulary(shards), scaler_of(tmp_path, shards)
    model = family.build(cfg, vocabulary, shards, scaler)
    loader = Loader(shards, split="train", batch_size=4, seed=0, collate=Collate(shards, vocabulary, scaler))
    first = next(iter(loader))
    assert len(first.streams["bold"].dt.unique()) == 2
    history = fit(model, loader, family.loss(cfg), cfg.train, tmp_path / "run", seed=0)
    assert history.checks[0].passed


@pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")
@pytest.mark.parametrize("family", [brainlm, brain_jepa])
def test_real_people_at_rest_and_at_a_film(family, tmp_path):
    nyu = write_real(tmp_path, "abide_nyu", [f"00509{i}" for i in range(52, 57)])
    shards = [nyu, write_real(tmp_path, "qtab_partlycloudy", ["sub-0001", "sub-0004", "sub-0007", "sub-0010"])]
    vocabulary, scaler = build_vocabulary(shards), scaler_of(tmp_path, shards)
    cfg = lm_config(60) if family is brainlm else jepa_config(20)
    cfg = patch(cfg, {"train": {"batch_size": 2}})
    model = family.build(cfg, vocabulary, shards, scaler)
    loader = Loader(shards, split="train", batch_size=2, seed=0, collate=Collate(shards, vocabulary, scaler))
    history = fit(model, loader, family.loss(cfg), cfg.train, tmp_path / "run", seed=0)
    assert [check.name for check in history.checks if not check.passed] == []
    assert all(check.passed for check in (brain_jepa.checks(history) if family is brain_jepa else ()))


@pytest.mark.parametrize("family", ["brainlm", "brain_jepa"])
def test_datasets_whose_windows_hold_no_patch_are_left_out_by_name(family, shards, tmp_path):
    cfg = getattr(presets, f"{family}_pretrain")("tiny")
    used, missing = choose(None, shards, ("fmri",), FAMILIES[family].shortest_s(cfg))
    assert (len(used), missing) == (len(shards), [])
    long = patch(cfg, {"model": {"patch_s": 1e4}})
    with pytest.raises(ValueError, match="has training windows of fmri of 10000 s or more"):
        choose(None, shards, ("fmri",), FAMILIES[family].shortest_s(long))
