"""Contrastive embeddings: planted behaviour is found, nuisance is left out, the loss is what its sums say."""

import numpy as np
import pytest
import torch

from neurofm_ml.config import patch
from neurofm_ml.presets import EmbeddingConfig
from neurofm_ml.training.embedding import Encoder, contrastive_loss, embed, fit_embedding

CFG = EmbeddingConfig(d_model=16, steps=120)


def smooth(rng, n, k, width=15):
    kernel = np.hanning(2 * width)
    noise = np.stack([np.convolve(column, kernel, mode="same") for column in rng.normal(size=(k, n))], 1)
    return (noise - noise.mean(0)) / noise.std(0)


@pytest.fixture(scope="module")
def planted():
    """A slow latent (T, 1) beside two louder ones, in 40 Poisson units, square-rooted: (activity, latent, louder)."""
    rng = np.random.default_rng(0)
    latent, louder = smooth(rng, 2000, 1), smooth(rng, 2000, 2)
    rates = np.exp(-1.2 - (latent - rng.uniform(-2, 2, 40)) ** 2 / 2 + louder @ rng.normal(0, 0.8, (2, 40)))
    return np.sqrt(rng.poisson(rates)), latent, louder


def explained(embedded, values, train=1500, k=10):
    """R2 of nearest neighbours on what follows the training block."""
    distance = ((embedded[train + 30 :, None] - embedded[None, :train]) ** 2).sum(-1)
    guess = values[:train][np.argsort(distance, 1)[:, :k]].mean(1)
    truth = values[train + 30 :]
    return 1 - ((guess - truth) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum()


def test_it_finds_the_planted_latent_and_leaves_the_nuisance_out(planted):
    activity, latent, louder = planted
    embedded = fit_embedding(activity[:1500], latent[:1500], CFG, seed=1).embed(activity)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-5)
    assert explained(embedded, latent) > 0.85 > explained(activity, latent) + 0.1
    assert explained(embedded, louder) < 0.2 < explained(activity, louder) - 0.2


def test_labels_of_another_time_teach_nothing(planted):
    activity, latent, _ = planted
    rolled = np.roll(latent[:1500], 700, axis=0)
    embedded = fit_embedding(activity[:1500], rolled, CFG).embed(activity)
    assert explained(embedded, np.concatenate([rolled, np.roll(latent, 700, axis=0)[1500:]])) < 0.3


def test_times_alone_bring_neighbours_together(planted):
    activity = planted[0][:600]
    embedded = embed(activity, np.arange(600.0)[:, None], patch(CFG, {"bandwidth": 0.05, "n_outputs": 3}))
    near, far = (float((embedded[:-lag] * embedded[lag:]).sum(1).mean()) for lag in (2, 300))
    assert near > 0.95 > far + 0.1


def test_the_same_arguments_give_the_same_bits_and_leave_the_generator_alone(planted):
    activity, latent, _ = planted
    cfg, state = patch(CFG, {"steps": 5}), torch.get_rng_state()
    first = embed(activity[:300], latent[:300], cfg, seed=4)
    assert (first == embed(activity[:300], latent[:300], cfg, seed=4)).all()
    assert (torch.get_rng_state() == state).all()
    assert not np.allclose(first, embed(activity[:300], latent[:300], cfg, seed=5))


def test_the_loss_is_a_cross_entropy_over_pairs():
    generator = torch.Generator().manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(7, 3, generator=generator), dim=1)
    y = torch.randn(7, 2, generator=generator)
    y[4] = torch.nan
    known, total = [0, 1, 2, 3, 5, 6], 0.0
    for i in known:
        others = [j for j in known if j != i]
        wanted = torch.stack([-((y[i] - y[j]) ** 2).sum() / 2 for j in others]).softmax(0)
        found = torch.stack([z[i] @ z[j] / 0.3 for j in others]).log_softmax(0)
        total -= float((wanted * found).sum()) / len(known)
    assert float(contrastive_loss(z, y, 0.3)) == pytest.approx(total, rel=1e-5)


def test_unknown_behaviour_teaches_nothing_and_breaks_nothing(planted):
    activity, latent = planted[0][:400], planted[1][:400].copy()
    latent[100:200] = np.nan
    assert np.isfinite(embed(activity, latent, patch(CFG, {"steps": 20}))).all()


def test_a_bin_sees_its_reach_and_no_further():
    encoder = Encoder(4, CFG).eval()
    x = torch.randn(1, 60, 4, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 30] += 1
    with torch.no_grad():
        moved = (encoder(encoder.padded(x)) != encoder(encoder.padded(changed))).any(-1)[0].nonzero()[:, 0]
    assert (int(moved[0]), int(moved[-1])) == (30 - encoder.reach, 30 + encoder.reach)
    assert 2 * encoder.reach + 1 == 2 ** (CFG.n_layers + 1) - 1


@pytest.mark.parametrize(
    ("activity", "behaviour", "match"),
    [
        (np.zeros(5), np.zeros((5, 1)), r"need shapes \(T, N\) and \(T, K\)"),
        (np.zeros((50, 2)), np.zeros((49, 1)), r"got \(50, 2\) and \(49, 1\)"),
        (np.full((50, 2), np.nan), np.random.rand(50, 1), "activity has NaN"),
        (np.zeros((5, 2)), np.random.rand(5, 1), "segment = 16 needs at least as many"),
        (np.zeros((50, 2)), np.ones((50, 1)), "constant or unknown throughout"),
        (np.zeros((50, 2)), np.full((50, 1), np.nan), "constant or unknown throughout"),
    ],
)
def test_what_cannot_teach_is_refused(activity, behaviour, match):
    with pytest.raises(ValueError, match=match):
        fit_embedding(activity, behaviour)


def test_other_channels_are_refused(planted):
    fitted = fit_embedding(planted[0][:100], planted[1][:100], patch(CFG, {"steps": 1}))
    with pytest.raises(ValueError, match=r"was fitted on \(T, 40\)"):
        fitted.embed(planted[0][:, :39])
