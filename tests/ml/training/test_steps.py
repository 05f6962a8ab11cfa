"""The training step: what is shown, what is asked for, and that every objective learns by itself."""

import dataclasses
from pathlib import Path

import pytest
import torch

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models import NeuroFMx
from neurofm_ml.objectives import OBJECTIVES, reversal
from neurofm_ml.presets import AugmentConfig
from neurofm_ml.training.corruption import corrupt, forecast_start, moments, true_activity, true_future
from neurofm_ml.training.families import FAMILIES
from neurofm_ml.training.loop import fit
from neurofm_ml.training.neurofmx import build
from neurofm_ml.training.steps import weighted_loss
from neurofm_ml.training.weighting import balanced
from neurofm_ml.types import Batch

OFF = AugmentConfig(modality_dropout=0.0, unit_dropout=0.0, time_mask=0.0, noise=0.0, drift=0.0)
SMALL = {"d_model": 16, "n_heads": 2, "d_state": 4, "n_layers": 1, "dropout": 0.0}
CAUSAL = {**SMALL, "bidirectional": False}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_model(vocabulary: Vocabulary, **changes) -> NeuroFMx:
    torch.manual_seed(0)
    return NeuroFMx(patch(presets.neurofmx("tiny"), {**SMALL, **changes}), vocabulary)


def parts_of(model: NeuroFMx, batch: Batch, weights: dict[str, float], cfg: AugmentConfig = OFF, **more) -> dict[str, torch.Tensor]:
    return weighted_loss(cfg, weights, **more)(model, batch, seeded(), 0.5)[1]


# ---------------------------------------------------------------- what is shown
def test_a_model_in_eval_mode_sees_the_batch_as_it_is(make_batch, vocabulary):
    batch, cfg = make_batch("spikes", "calcium"), AugmentConfig(modality_dropout=0.9, time_shift_s=1.0, channel_mask=0.5)
    shown = corrupt(small_model(vocabulary).eval(), batch, cfg, seeded(), 0.5)
    assert shown.noisy is batch
    assert shown.clean is batch
    assert any(hidden.any() for hidden in shown.hidden.values())


@pytest.mark.parametrize("mask", ["random", "block", "adaptive"])
def test_hidden_patches_and_silent_channels_are_what_is_scored(mask, make_batch, vocabulary):
    model, batch = small_model(vocabulary), make_batch("spikes", "eeg", batch=64)
    cfg = patch(OFF, {"time_mask": 0.2, "mask": mask, "channel_mask": 0.3, "channel_mask_s": 2.0})
    shown = corrupt(model, batch, cfg, seeded(), 0.5)
    for name, target in true_activity(model, shown).items():
        hidden = shown.hidden[name]
        assert float(hidden.float().mean()) == pytest.approx(0.2, abs=0.03)
        size = model.tokenizer(name).size(batch.streams[name])
        for row, patch_number, channel in ((0, 7, 1), (5, 30, 2), (9, 11, 4)):
            samples = shown.noisy.streams[name].values[row, patch_number * size : (patch_number + 1) * size, channel]
            assert target.scored[row, patch_number, channel] == bool(hidden[row, patch_number] or (samples == 0).all())
        share = float((target.scored & ~hidden[..., None]).float().mean())
        assert share == pytest.approx(0.8 * 0.3 * 2 / 12, rel=0.35)
        assert target.there.all()


def test_adaptive_masks_turn_to_strong_patches(make_batch, vocabulary):
    model, batch = small_model(vocabulary), make_batch("calcium", batch=256)
    stream = batch.streams["calcium"]
    loud = torch.where(torch.arange(60)[:, None] < 6, 5.0, 1.0) * torch.ones_like(stream.values)
    batch = dataclasses.replace(batch, streams={"calcium": dataclasses.replace(stream, values=loud)})
    cfg = patch(OFF, {"time_mask": 0.1, "mask": "adaptive"})
    shares = [float(corrupt(model, batch, cfg, seeded(), p).hidden["calcium"][:, :6].float().mean()) for p in (0.0, 0.5, 1.0)]
    assert shares[0] == pytest.approx(0.1, abs=0.03)
    assert shares[0] < shares[1] < shares[2]


def test_the_future_is_the_patches_at_the_horizons(make_batch, vocabulary):
    model, batch = small_model(vocabulary, horizons_s=(0.2, 1.0, 4.0)), make_batch("spikes", "eeg", "fmri")
    shown = corrupt(model, batch, OFF, seeded(), 0.0)
    future = true_future(model, shown, torch.tensor([6.0, 9.5]))
    counts = batch.streams["spikes"].counts  # 5 Hz
    assert torch.equal(future["spikes"].values[0, :, :, 0], counts[0, [31, 35, 50]])
    assert torch.equal(future["spikes"].values[1, :2, :, 0], counts[1, [49, 53]])  # the first bin to begin at 9.7 s or later
    assert future["spikes"].there[:, :, 0].tolist() == [[True, True, True], [True, True, False]]
    volumes = batch.streams["fmri"].values  # 0.5 Hz: the next volume begins at 8 s, or at 10 s and then 12 s, which is the end
    assert torch.equal(future["fmri"].values[0, :, :, 0], volumes[0, [4, 4, 5]])
    assert future["fmri"].there[:, :, 0].tolist() == [[True, True, True], [True, False, False]]


def test_forecasts_start_where_enough_is_seen_and_enough_is_left(make_batch):
    batch = make_batch("spikes", batch=500)
    start = forecast_start(batch, 2.0, seeded())
    assert 5.0 <= float(start.min()) < 5.2
    assert 9.8 < float(start.max()) <= 10.0
    assert torch.allclose(forecast_start(batch, 60.0, seeded()), torch.tensor(0.2))


def test_moments_are_a_part_of_those_that_are_there():
    mask = torch.rand(20, 30, generator=seeded()) < 0.5
    drawn = moments(mask, 40, seeded(1))
    assert int(drawn.sum()) == 40
    assert not (drawn & ~mask).any()
    assert torch.equal(moments(mask, 1000, seeded(1)), mask)


# ---------------------------------------------------------------- what is asked for
def test_next_step_never_sees_the_bin_it_predicts(make_batch, vocabulary):
    """With a later input changed, the loss of the bins up to it and itself changes through its target alone."""
    model, batch = small_model(vocabulary, bidirectional=False), make_batch("calcium")
    stream = batch.streams["calcium"]
    values = stream.values.clone()
    values[:, -1] += 7.0
    other = dataclasses.replace(batch, streams={"calcium": dataclasses.replace(stream, values=values)})
    before, after = (parts_of(model, b, {"next_step": 1.0})["next_step"] for b in (batch, other))
    with torch.no_grad():
        latents = model(batch).latents
        guess = model.predict_activity(dataclasses.replace(latents, values=latents.values.roll(1, 1)), batch, stream)[:, -1, :, 0]
    change = ((guess - values[:, -1]).square() - (guess - stream.values[:, -1]).square()).sum() / stream.values.numel()
    assert (after - before).item() == pytest.approx(float(change), rel=1e-3)


def test_next_step_is_refused_for_models_that_see_the_future(make_batch, vocabulary):
    with pytest.raises(ValueError, match=r'"next_step" needs a model .* set NeuroFMxConfig\.bidirectional to False'):
        parts_of(small_model(vocabulary), make_batch("spikes"), {"next_step": 1.0})


def test_the_target_of_latents_is_normalised_and_undisturbed(make_batch, vocabulary):
    model, batch = small_model(vocabulary, dropout=0.5), make_batch("spikes")
    parts_of(model, batch, {"jepa": 1.0})
    assert model.training
    with torch.no_grad():
        clean = model.eval()(batch).latents.values
    flat = clean.flatten(0, 1)
    target = (clean - flat.mean(0)) / flat.std(0, correction=0)
    assert torch.allclose(target.flatten(0, 1).std(0, correction=0), torch.ones(16), atol=1e-4)
    # Without dropout the model sees what made the target.
    model = small_model(vocabulary)
    found = parts_of(model, batch, {"jepa": 1.0})["jepa"]
    assert found.item() == pytest.approx(torch.nn.functional.smooth_l1_loss(clean, target).item(), rel=1e-4)


def test_late_fusion_is_the_mean_of_what_the_modalities_say_alone(make_batch, vocabulary):
    """Of the predictions and, the heads being affine, of the latents: there is one place after the backbone to fuse."""
    model, batch = small_model(vocabulary), make_batch("spikes", "eeg")
    eeg = batch.streams["eeg"]
    deaf = dataclasses.replace(
        eeg, mask=eeg.mask & torch.tensor([[True], [False]]), values=eeg.values * torch.tensor([1.0, 0.0])[:, None, None]
    )
    batch = dataclasses.replace(batch, streams={**batch.streams, "eeg": deaf})  # the second window has spikes alone
    target = batch.targets["toy/velocity"]
    with torch.no_grad():
        alone = [model(dataclasses.replace(batch, streams={n: s})) for n, s in batch.streams.items()]
        said = [p.behaviour["toy/velocity"] for p in alone]
        mean = torch.stack([(said[0][0] + said[1][0]) / 2, said[0][1]])
        latent = torch.stack([(alone[0].latents.values[0] + alone[1].latents.values[0]) / 2, alone[0].latents.values[1]])
        assert torch.allclose(model.behaviour["toy/velocity"](latent), mean, atol=1e-5)
        joint = (model(batch).behaviour["toy/velocity"] - target).square().mean()
        late = (mean - target).square().mean()
    found = parts_of(model, batch, {"behaviour": 1.0}, fusion="mid+late")["behaviour"]
    assert found.item() == pytest.approx((joint + late).item() / 2, rel=1e-4)
    assert parts_of(model, batch, {"behaviour": 1.0})["behaviour"].item() == pytest.approx(joint.item(), rel=1e-4)


def test_the_encoder_works_against_the_discriminator_by_the_schedule(make_batch, vocabulary):
    vocabulary = dataclasses.replace(vocabulary, domains={"species": ("mouse", "rat")})
    batch = dataclasses.replace(make_batch("spikes"), domains={"species": torch.tensor([0, 1])})
    gradients = []
    for progress in (0.0, 0.1, 1.0):
        model = small_model(vocabulary)
        weighted_loss(OFF, {"domains": 1.0})(model, batch, seeded(), progress)[0].backward()
        gradients.append((model.fusion.out.weight.grad, model.domains["species"].tell[0].weight.grad))
    (none, told), (some, same), (all_of_it, _) = gradients
    assert not none.any()
    assert all_of_it.any()
    assert torch.allclose(some, reversal(0.1) / reversal(1.0) * all_of_it, atol=1e-8)
    assert torch.equal(told, same)


# ---------------------------------------------------------------- every objective learns by itself
@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "gradient_norm"])
def test_weights_are_among_the_parts(weighting, make_batch, vocabulary):
    model, batch = small_model(vocabulary), make_batch("spikes")
    cfg, weights = patch(OFF, {"time_mask": 0.3}), {"behaviour": 1.0, "masked": 0.1, "jepa": 0.0}
    with balanced(model, weighting, list(weights)):
        total, parts = weighted_loss(cfg, weights, weighting)(model, batch, seeded(), 0.5)
        total.backward()
    assert set(parts) == {"behaviour", "masked", "weight/behaviour", "weight/masked"}
    if weighting != "gradient_norm":
        assert float(total) == pytest.approx(sum(float(parts[f"weight/{n}"] * parts[n]) for n in ("behaviour", "masked")), rel=1e-5)


def test_every_objective_is_tried():
    assert set(LEARN) == set(OBJECTIVES)


#: What each objective needs of the model, and by how much its mean falls from the first tenth of the run to the last.
LEARN = {
    "behaviour": (SMALL, 0.9),
    "masked": (SMALL, 0.999),
    "reconstruction": (SMALL, 0.999),
    "next_step": (CAUSAL, 0.999),
    "forecast": (SMALL, 0.999),
    "jepa": (SMALL, 0.9),
    "contrastive": (SMALL, 0.98),
    "trimodal": (SMALL, 0.98),
    "domains": (SMALL, 0.98),
}


@pytest.mark.parametrize("name", LEARN)
def test_every_objective_alone_falls_on_the_simulation_and_is_in_the_metrics(name, shards, scaler, problems, tmp_path: Path):
    model_changes, falls_to = LEARN[name]
    cfg = patch(
        presets.pretrain("tiny"),
        {
            "model": model_changes,
            "train": {"steps": 24, "batch_size": 4, "lr": 1e-2, "log_every": 4, "checkpoint_every": 24},
            "augment": {"modality_dropout": 0.0, "noise": 0.1, "drift": 0.1, "unit_dropout": 0.2},
            "objectives": {"behaviour": 0.0, "masked": 0.0, name: 1.0},
        },
    )
    model, batches = build(cfg, problems, [shards], scaler)
    if name == "domains":  # a game of two: by itself the encoder would flee from the discriminator without end
        model.requires_grad_(False).domains.requires_grad_(True)
    loss = FAMILIES["neurofmx"].loss(cfg)
    curves = fit(model, batches, loss, cfg.train, tmp_path, seed=0).curves
    steps, values = curves[name]
    assert list(steps) == list(range(4, 25, 4))
    assert values[-2:].mean() < falls_to * values[0]
    assert list(curves[f"weight/{name}"][1]) == [1.0] * 6
