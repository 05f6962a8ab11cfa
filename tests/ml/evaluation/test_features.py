"""Features: every family's layers against what its own parts give, and the files against the model that made them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parcel_batches import planted_gradients

from neurofm_ml.config import to_dict
from neurofm_ml.data.batches import Vocabulary, build_vocabulary
from neurofm_ml.data.recordings import load_card, save_recording
from neurofm_ml.data.scaler import fit, load_scaler
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.evaluation.features import features as module
from neurofm_ml.evaluation.features.features import COLUMNS, extract, load_features
from neurofm_ml.evaluation.features.hidden import hidden_states, layer_names
from neurofm_ml.evaluation.tasks.tasks import find_cases
from neurofm_ml.knowledge.cards import RecordingSpec, SplitSpec, TaskSpec, datasets
from neurofm_ml.models import MODELS, BrainLM, NeuroFMx
from neurofm_ml.nn.parcels import fmri
from neurofm_ml.nn.pooling import pooled
from neurofm_ml.presets import (
    SPLITS,
    BrainLMConfig,
    FeaturesConfig,
    NeuroFMxConfig,
    ScalerConfig,
    ShardsConfig,
    brain_jepa,
    brainlm,
    eegnet,
    meg_transformer,
)
from neurofm_ml.training.decoders import block_latents
from neurofm_ml.training.label_decoders import modalities_of, pool
from neurofm_ml.training.problems import find_problems
from neurofm_ml.training.saved import save_model
from neurofm_ml.types import Batch, Subject

TASKS = (
    TaskSpec(name="behaviour", target="behaviour", inputs=("spikes",)),
    TaskSpec(name="slow", target="behaviour", inputs=("calcium",)),
    TaskSpec(name="sex", target="subject.sex", inputs=("spikes",), classes=("female", "male"), metric="auroc"),
    TaskSpec(name="age", target="subject.age", inputs=("spikes",)),
)
SHAPES = {
    "neurofmx": NeuroFMxConfig(d_model=16),
    "brainlm": brainlm("tiny"),
    "brain_jepa": brain_jepa("tiny"),
    "eegnet": eegnet("tiny"),
    "meg_transformer": meg_transformer("tiny"),
}
CAUSAL = BrainLMConfig(form="autoregressive")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 s of two people, one of unknown age; windows of 4 s that overlap."""
    card = datasets()["simulation"]
    people = (Subject("ann", sex="female", age=30.0), Subject("bob", sex="male"))
    signals = {name: card.signals[name] for name in ("spikes", "calcium", "behaviour")}
    recordings = tuple(RecordingSpec(id=f"{p.id}_1", subject=p) for p in people)
    split = SplitSpec(gap_s=1.0)
    card = dataclasses.replace(
        card, recordings=recordings, signals=signals, window_s=4.0, stride_s=1.5, split=split, tasks=TASKS, expected={}
    )
    source, out = tmp_path_factory.mktemp("recordings"), tmp_path_factory.mktemp("shards")
    for recording in simulate(card, 50.0):
        save_recording(recording, source / "recordings")
    (source / "card.json").write_text(json.dumps(to_dict(card)))
    shard_recordings(ShardsConfig(dataset="simulation"), source, out)
    return out


@pytest.fixture(scope="module")
def scalers(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp(modality) for modality in ("spikes", "calcium", "pose")]
    for folder, modality in zip(folders, ("spikes", "calcium", "pose"), strict=True):
        fit(ScalerConfig(modality=modality), [shards], folder)
    return folders


def _model(shards: Path) -> NeuroFMx:
    torch.manual_seed(0)
    model = NeuroFMx(NeuroFMxConfig(d_model=16, n_layers=3), build_vocabulary([shards]))
    torch.nn.init.normal_(model.session.weight)
    return model.eval()


@pytest.fixture(scope="module")
def pretrained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    save_model(folder, _model(shards))
    return folder


@pytest.fixture(scope="module")
def extracted(shards: Path, scalers: list[Path], pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("features")
    report = extract(FeaturesConfig(batch_size=7), pretrained, [shards], scalers, out)
    assert report.metrics["windows"] == len(load_features(out)["simulation"].windows)
    assert [check.passed for check in report.checks] == [True]
    return out


# ---------------------------------------------------------------- layers
@pytest.mark.parametrize("family", list(MODELS))
def test_layers_of_every_family_end_in_its_latents(family: str, make_batch: Callable[..., Batch], vocabulary: Vocabulary) -> None:
    torch.manual_seed(0)
    model: Any = MODELS[family](SHAPES[family], vocabulary).eval()
    if family == "brain_jepa":
        model.gradients.fill(planted_gradients(model.cfg.n_gradients), vocabulary)
    modality = "calcium" if family == "neurofmx" else modalities_of(model)[0]
    batch = make_batch(modality, seconds=80.0 if modality == "fmri" else 2.0)
    latents, hidden = model.encode(batch), hidden_states(model, batch)
    assert torch.equal(hidden.values[:, :, -1], latents.values)
    torch.testing.assert_close(hidden.pooled[:, -1], pool(latents))
    assert hidden.values.shape[2] == getattr(SHAPES[family], "n_layers", 0) + 1
    assert hidden.on_grid(batch).shape[:2] == batch.times.shape
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_layers_of_the_backbone_follow_from_each_other(make_batch: Callable[..., Batch], vocabulary: Vocabulary) -> None:
    torch.manual_seed(0)
    model, batch = NeuroFMx(NeuroFMxConfig(d_model=16, n_layers=3), vocabulary).eval(), make_batch("spikes", "eeg")
    hidden = hidden_states(model, batch)
    assert layer_names(hidden.values.shape[2]) == ("tokens", "layer_1", "layer_2", "latents")
    for k, block in enumerate(model.backbone):
        torch.testing.assert_close(block(hidden.values[:, :, k], hidden.mask), hidden.values[:, :, k + 1])


@pytest.mark.parametrize("cfg", [brainlm("tiny"), CAUSAL], ids=["masked", "causal"])
def test_parcels_are_averaged_over_those_that_are_there(
    cfg: BrainLMConfig, make_batch: Callable[..., Batch], vocabulary: Vocabulary
) -> None:
    """Also where windows differ in what they lack, so that a transformer is shown their tokens in other places."""
    torch.manual_seed(0)
    model, batch = BrainLM(cfg, vocabulary).eval(), make_batch("fmri", seconds=120.0)
    stream = batch.streams["fmri"]
    stream.channel_mask[0, :2] = False
    stream.mask[1, -20:] = False
    patches = model.patches(batch)
    tokens = model.encoder.embed(patches, model.who(fmri(batch)), stream.dt)
    found = hidden_states(model, batch)
    there = found.mask
    torch.testing.assert_close(found.values[:, :, 0][there], pooled(tokens, patches.mask)[there])
    assert not there.all()


# ---------------------------------------------------------------- files
def test_bins_are_the_latents_of_the_block_as_probes_read_them(shards: Path, scalers: list[Path], extracted: Path) -> None:
    found, scaler, cases = load_features(extracted)["simulation"], load_scaler(scalers), find_cases(shards, scalers)
    for problem in find_problems(shards):
        model = _model(shards)
        for split in SPLITS:
            twin = block_latents(model, problem, scaler, split)
            ours = found.bins(problem.recording, split, inputs=problem.inputs)
            np.testing.assert_allclose(ours, twin, atol=1e-5)
            for case in (c for c in cases if (c.recording, c.task.inputs) == (problem.recording, problem.inputs)):
                np.testing.assert_array_equal(found.target(problem.recording, split, case.task), case.data.y[split])
                assert len(ours) == len(case.data.y[split])
    assert found.blocks() == [(name, (kind,)) for name in ("ann_1", "bob_1") for kind in ("calcium", "spikes")]
    assert found.has_bins("ann_1", ("calcium",))
    assert not found.has_bins("ann_1", ("eeg",))


def test_windows_stand_beside_their_labels(shards: Path, extracted: Path) -> None:
    found = load_features(extracted)["simulation"]
    table = found.windows
    assert tuple(table) == (*COLUMNS, "sex", "age")
    assert len(table) == len(found.pooled()) == len(np.unique(table.key))
    assert (table.sex == (table.subject == "bob")).all()
    assert (table.age.isna() == (table.subject == "bob")).all()
    assert set(table.age.dropna()) == {30.0}
    assert found.layers == ("tokens", "layer_1", "layer_2", "latents")
    assert (found.card, found.family) == (load_card(shards), "neurofmx")
    assert np.load(found.folder / "pooled.npy", allow_pickle=False).dtype == np.float32


def test_the_size_of_batches_does_not_matter(shards: Path, scalers: list[Path], pretrained: Path, extracted: Path, tmp_path: Path) -> None:
    extract(FeaturesConfig(batch_size=50), pretrained, [shards], scalers, tmp_path)
    one, other = (load_features(folder)["simulation"] for folder in (extracted, tmp_path))
    np.testing.assert_allclose(one.pooled("layer_1"), other.pooled("layer_1"), atol=1e-5)
    assert one.windows.equals(other.windows)


def test_a_finished_dataset_is_not_read_again(
    shards: Path, scalers: list[Path], pretrained: Path, extracted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "hidden_states", lambda *_: pytest.fail("the model ran again"))
    report = extract(FeaturesConfig(datasets=("simulation", "elsewhere")), pretrained, [shards], scalers, extracted)
    assert report.metrics["left_out"] == "not here: elsewhere"


def test_what_a_killed_run_left_is_written_anew(shards: Path, scalers: list[Path], pretrained: Path, tmp_path: Path) -> None:
    (tmp_path / ".simulation.part").mkdir()
    (tmp_path / ".simulation.part" / "layers.json").write_text("[]")
    assert not load_features(tmp_path)
    extract(FeaturesConfig(), pretrained, [shards], scalers, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["about.json", "simulation"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: dataclasses.replace(v, channels={"eeg": ("a/b/c/d",)}, modalities=("eeg",)), "no modality that the model reads"),
        (
            lambda v: dataclasses.replace(v, channels={m: names[:-1] for m, names in v.channels.items()}),
            "2 channels that the model has no rows",
        ),
    ],
)
def test_a_dataset_that_cannot_be_read_is_left_out_by_name(
    change: Callable[[Vocabulary], Vocabulary], reason: str, shards: Path, scalers: list[Path], tmp_path: Path
) -> None:
    vocabulary = build_vocabulary([shards])
    save_model(tmp_path / "model", NeuroFMx(NeuroFMxConfig(d_model=16), change(vocabulary)))
    with pytest.raises(ValueError, match=f"simulation: {reason}"):
        extract(FeaturesConfig(), tmp_path / "model", [shards], scalers, tmp_path)


def test_without_a_scale_nothing_is_read(shards: Path, scalers: list[Path], pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="simulation: no session with a scale"):
        extract(FeaturesConfig(), pretrained, [shards], scalers[2:], tmp_path)


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        (lambda f: f.pooled("layer_9"), "no layer 'layer_9'; there are tokens, layer_1"),
        (lambda f: f.bins("ann_1", "test"), "inputs 'of all kinds'; there are calcium, spikes"),
        (lambda f: f.bins("cid_1", "test", inputs=("spikes",)), "no bins of 'cid_1' from inputs 'spikes'; there are none"),
    ],
)
def test_what_is_not_there_is_named(ask: Callable, match: str, extracted: Path) -> None:
    with pytest.raises(ValueError, match=match):
        ask(load_features(extracted)["simulation"])
