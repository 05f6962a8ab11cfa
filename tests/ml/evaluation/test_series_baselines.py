"""Contract of every baseline of a series: it finds what is planted, finds nothing in rolled labels, and never looks at the test block."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.config import to_dict
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.scaler import fit
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.evaluation.baselines import baselines
from neurofm_ml.evaluation.baselines.baselines import BASELINES, why_not
from neurofm_ml.evaluation.baselines.factors import factor_analysis, fit_factors, principal_components
from neurofm_ml.evaluation.tasks.tasks import Case, DecodingData, find_cases
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.presets import SPLITS, BaselinesConfig, RatesConfig, ScalerConfig, ShardsConfig, TrainConfig
from neurofm_ml.types import Array, Recording, Signal, SpikeTrain

SECONDS = 80.0
#: The test block is the last quarter; from here on its spikes differ too.
TEST_S, LATE_S = 60.0, 76.0
TINY = BaselinesConfig(
    dataset="simulation",
    train=TrainConfig(steps=25, batch_size=8, checkpoint_every=25),
    scratch_train=TrainConfig(steps=25, batch_size=8, checkpoint_every=25),
    rates=RatesConfig(updates=40, d_model=32, segment=16),
    cebra_updates=20,
)

Change = Callable[[Recording], Recording]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Change], Case]:
    """The one case of a simulated recording that was changed in some way."""
    card = datasets()["simulation"]
    signals = {name: card.signals[name] for name in ("spikes", "behaviour")}
    card = dataclasses.replace(card, recordings=card.recordings[:1], signals=signals, expected={})
    (recording,) = simulate(card, SECONDS)

    def make(change: Change) -> Case:
        folder = tmp_path_factory.mktemp("series")
        save_recording(change(recording), folder / "recordings" / "recordings")
        (folder / "recordings" / "card.json").write_text(json.dumps(to_dict(card)))
        for name in ("shards", "spikes", "pose"):
            (folder / name).mkdir()
        shard_recordings(ShardsConfig(dataset="simulation"), folder / "recordings", folder / "shards")
        for name in ("spikes", "pose"):
            fit(ScalerConfig(modality=name), [folder / "shards"], folder / name)
        (case,) = find_cases(folder / "shards", [folder / "spikes", folder / "pose"])
        return case

    return make


@pytest.fixture(scope="module")
def planted(made: Callable[[Change], Case]) -> Case:
    return made(lambda recording: recording)


@pytest.fixture(scope="module")
def other_test_block(made: Callable[[Change], Case]) -> Case:
    return made(_otherwise_in_the_test_block)


@pytest.fixture(scope="module")
def rolled(made: Callable[[Change], Case]) -> Case:
    return made(lambda recording: _behaving(recording, lambda v: np.roll(v, len(v) // 2, 0)))


def _behaving(recording: Recording, change: Callable[[Array], Array]) -> Recording:
    behaviour = recording.signals["behaviour"]
    assert isinstance(behaviour, Signal)
    changed = dataclasses.replace(behaviour, values=change(behaviour.values).astype(np.float32))
    return recording.with_signals({**recording.signals, "behaviour": changed}, "changed")


def _otherwise_in_the_test_block(recording: Recording) -> Recording:
    """Other labels in the whole of it, and no spikes late in it."""
    spikes = recording.signals["spikes"]
    assert isinstance(spikes, SpikeTrain)
    early = spikes.times < LATE_S
    fewer = dataclasses.replace(spikes, times=spikes.times[early], unit_index=spikes.unit_index[early])
    start = round(TEST_S * 32)
    changed = _behaving(recording, lambda v: np.concatenate([v[:start], -3 * v[start:][::-1] + 7]))
    return changed.with_signals({**changed.signals, "spikes": fewer}, "changed")


@pytest.mark.parametrize("name", BASELINES)
def test_it_finds_what_is_planted_and_nothing_else(name: str, planted: Case, other_test_block: Case, rolled: Case, tmp_path: Path) -> None:
    if reason := why_not(planted, name):
        pytest.skip(reason)
    # What is inferred without labels serves planted and rolled ones alike: one folder, one fit.
    found, control = (BASELINES[name](case, TINY, tmp_path / "same") for case in (planted, rolled))
    blind = BASELINES[name](other_test_block, TINY, tmp_path / "other")
    assert found.value > 0.4
    assert control.value < 0.15
    assert not found.control > 0.1
    early = found.times < LATE_S - 9
    assert early.sum() > 40
    assert not np.allclose(found.y_true, blind.y_true)
    np.testing.assert_allclose(found.y_pred[early], blind.y_pred[early], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.y_true, planted.data.y["test"], rtol=1e-4, atol=1e-4)
    assert (found.family, found.method, found.case) == ("baseline", name, planted.key)


def test_cebra_is_left_out_by_name_where_it_is_not_installed(planted: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda name: None)
    assert "pip install neurofm[cebra]" in why_not(planted, "cebra")
    assert why_not(planted, "ridge") == ""


@pytest.fixture
def low_rank() -> DecodingData:
    """Two latents in 12 channels, each with noise of its own; the target is the latents."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(1000, 2))
    x = latent @ rng.normal(size=(2, 12)) + rng.uniform(0.3, 1.0, 12) * rng.normal(size=(1000, 12))
    blocks = [dict(zip(SPLITS, np.split(v, (600, 750)), strict=True)) for v in (x, latent, np.arange(1000.0))]
    return DecodingData(*blocks, np.zeros(12, bool))


def test_factor_analysis_agrees_with_scikit_learn(low_rank: DecodingData) -> None:
    from sklearn.decomposition import FactorAnalysis

    x = low_rank.x["train"] - low_rank.x["train"].mean(0)
    np.testing.assert_allclose(x @ factor_analysis(x, 2), FactorAnalysis(2, max_iter=200, random_state=0).fit_transform(x), atol=1e-8)


def test_principal_components_agree_with_scikit_learn(low_rank: DecodingData) -> None:
    from sklearn.decomposition import PCA

    x = low_rank.x["train"] - low_rank.x["train"].mean(0)
    ours = x @ principal_components(x, 3)
    np.testing.assert_allclose(np.abs(ours), np.abs(PCA(3).fit_transform(x)), atol=1e-8)


def test_a_unit_that_was_silent_in_training_does_not_outweigh_the_others(low_rank: DecodingData) -> None:
    silent = {split: np.c_[x, np.full(len(x), float(split == "test"))] for split, x in low_rank.x.items()}
    data = dataclasses.replace(low_rank, x=silent, counts=np.zeros(13, bool))
    assert data.r2("test", fit_factors(data, silent, factor_analysis, lags=(0,)).predict(silent["test"])) > 0.9


def test_one_channel_has_no_factors(low_rank: DecodingData) -> None:
    alone = {split: x[:, :1] for split, x in low_rank.x.items()}
    with pytest.raises(ValueError, match="there is 1 channel; factors need 2 or more"):
        fit_factors(dataclasses.replace(low_rank, x=alone), alone, principal_components)
