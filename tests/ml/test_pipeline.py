"""The jobs one after the other on the simulation, with a few updates each: from recordings to a release that can be trusted."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from neurofm_ml import presets
from neurofm_ml.config import patch, to_dict
from neurofm_ml.data.predictions import load_predictions
from neurofm_ml.data.scaler import load_scaler
from neurofm_ml.data.windows import load_block
from neurofm_ml.evaluation.scoring.scores import read_scores
from neurofm_ml.files import file_hash
from neurofm_ml.jobs import JobResult, JobSpec, load_result, run
from neurofm_ml.presets import CardConfig
from neurofm_ml.release import bundle, card
from neurofm_ml.release.onnx import Deployed
from neurofm_ml.training.decoders import load_decoders, predict_block
from neurofm_ml.training.pretrain import pretrain
from neurofm_ml.training.problems import find_problems
from neurofm_ml.training.saved import load_model

STEPS = {"train": {"steps": 12, "checkpoint_every": 4}}
MODALITIES = ("spikes", "calcium", "eeg", "fmri", "pose")
PRETRAIN = patch(presets.pretrain("tiny"), STEPS)


def launch(out: Path, job: str, cfg: object, **inputs: Sequence[str]) -> JobResult:
    return run(spec(out, job, cfg, **inputs))


def spec(out: Path, job: str, cfg: object, **inputs: Sequence[str]) -> JobSpec:
    return JobSpec(job=job, config=to_dict(cfg), inputs={k: tuple(v) for k, v in inputs.items()}, out=str(out))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Mapping[str, JobResult]:
    """Every artifact of the chain, by its role."""
    root = tmp_path_factory.mktemp("pipeline")
    done: dict[str, JobResult] = {}

    def make(role: str, job: str, cfg: object, **inputs: Sequence[str]) -> str:
        done[role] = launch(root / role, job, cfg, **inputs)
        assert not done[role].failed, (role, done[role].checks)
        return done[role].path

    recordings = make("recordings", "ingest", presets.IngestConfig(dataset="simulation"), raw=[])
    shards = [make("shards", "write_shards", presets.ShardsConfig(dataset="simulation"), recordings=[recordings])]
    scaler = [make(f"scaler_{m}", "fit_scaler", presets.ScalerConfig(modality=m), shards=shards) for m in MODALITIES]
    pretrained = [make("pretrained", "pretrain_neurofmx", PRETRAIN, shards=shards, scaler=scaler)]
    tuned = patch(presets.adapt("tiny"), STEPS)
    adapted = [make("adapted", "adapt", tuned, pretrained=pretrained, shards=shards, scaler=scaler)]
    quick = {**STEPS, "scratch_train": STEPS["train"], "rates": {"updates": 4, "look_every": 2}, "cebra_updates": 4}
    base = patch(presets.BaselinesConfig(dataset="simulation"), quick)
    baselines = [make("baselines", "fit_baselines", base, shards=shards, scaler=scaler)]
    data = {"shards": shards, "scaler": scaler}
    features = [make("features", "extract_features", presets.FeaturesConfig(), pretrained=pretrained, **data)]
    probes = [make("probes", "probe", presets.ProbeConfig(), features=features, **data)]
    told = [make("signal_answers", "answer_signals", presets.SignalsConfig(), pretrained=pretrained, **data)]
    answers = [*adapted, *probes, *told]
    scores = [make("scores", "score", presets.ScoreConfig(size="tiny", seed=0, n_boot=100), answers=answers, baselines=baselines, **data)]
    make("scorecard", "write_scorecard", presets.ScorecardConfig(size="tiny"), scores=scores)
    onnx = [make("onnx", "export_onnx", presets.OnnxConfig(), adapted=adapted)]
    written = [make("model_card", "write_card", CardConfig(size="tiny", seed=0), scores=scores, pretrained=pretrained, adapted=adapted)]
    released = {"pretrained": pretrained, "adapted": adapted, "onnx": onnx, "scores": scores, "model_card": written}
    make("bundle", "bundle", presets.BundleConfig(size="tiny", seed=0), **released)
    return done


def again(result: JobResult, out: Path) -> JobSpec:
    """The spec of a finished artifact, to be run elsewhere."""
    asked = json.loads((Path(result.path) / "job.json").read_text())
    return JobSpec(job=asked["job"], config=asked["config"], inputs={k: tuple(v) for k, v in asked["inputs"].items()}, out=str(out))


def test_every_method_is_scored_on_the_same_bins(made):
    table = read_scores(Path(made["scores"].path) / "scores.parquet")
    asked = table[table.task == "behaviour"]
    assert {"ridge", "knn", "gru", "lfads", "ndt", "from_scratch", "fine_tuned", "linear_probe"} <= set(asked.method)
    assert {"linear_probe", "reconstructed", "autoregression", "copy_last"} <= set(table.method)
    assert (table.groupby(["recording", "task"]).n.nunique() == 1).all()
    assert (table[["ci_low", "value", "ci_high"]].diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    assert asked.control.max() < 0.1


def test_a_second_run_finds_everything(made):
    for role, result in made.items():
        found = run(again(result, Path(result.path).parent))
        assert found.reused, role
        assert found.data_version == result.data_version


def test_pretraining_reads_no_validation_or_test_window(made, tmp_path):
    """With zeros in their place, which no checksum would let through, it ends in the same bits."""
    shards = tmp_path / "shards"
    shutil.copytree(made["shards"].path, shards)
    for path in (*shards.glob("validation-*.tar"), *shards.glob("test-*.tar")):
        path.write_bytes(bytes(path.stat().st_size))
    pretrain("neurofmx", PRETRAIN, [shards], [Path(made[f"scaler_{m}"].path) for m in MODALITIES], tmp_path)
    assert file_hash(tmp_path / "model.safetensors") == made["pretrained"].artifacts["model.safetensors"]


@pytest.mark.parametrize("share", [0.35, 0.8])
def test_pretraining_killed_and_run_again_ends_in_the_same_bits(made, tmp_path, share):
    job_file = tmp_path / "job.json"
    job_file.write_text(json.dumps(to_dict(again(made["pretrained"], tmp_path / "out"))))
    command = [sys.executable, "-m", "neurofm_ml.jobs", str(job_file)]
    steps = int(share * PRETRAIN.train.steps) // PRETRAIN.train.checkpoint_every * PRETRAIN.train.checkpoint_every
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    )
    while process.poll() is None and not list((tmp_path / "out").glob(f"work-*/checkpoints/step-{steps:0>6}")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / "out").glob("[0-9a-f]*"))
    result = run(again(made["pretrained"], tmp_path / "out"))
    assert result.artifacts["model.safetensors"] == made["pretrained"].artifacts["model.safetensors"]


def test_deployed_decoder_says_what_the_saved_prediction_says(made):
    """Raw counts through the released graph's module equal the scored prediction, wherever one window covers the block."""
    scaler = load_scaler(Path(made[f"scaler_{m}"].path) for m in MODALITIES)
    problem = next(find_problems(Path(made["shards"].path)))
    decoder = next(d for d in load_decoders(Path(made["adapted"].path)) if d.about.name == problem.name)
    saved = next(p for p in load_predictions(Path(made["adapted"].path) / "predictions") if p.recording == problem.recording)
    block = predict_block(decoder.model, problem, scaler, "test")["behaviour"]
    assert np.allclose(block.guess, saved.y_pred, atol=1e-4)
    counts = load_block(problem.shards, problem.recording, "test").signals["spikes"].values
    window = round(8.0 / decoder.about.dt)
    starts = range(0, len(counts) - window + 1, 2)
    batch = torch.from_numpy(np.stack([counts[s : s + window] for s in starts]).astype(np.float32))
    with torch.no_grad():
        raw = Deployed(decoder).eval()(batch).numpy()
    middle = np.array([raw[i, window // 2] for i in range(len(starts))])
    assert np.corrcoef(middle[:, 0], block.guess[np.array(starts) + window // 2, 0])[0, 1] > 0.95


def test_the_card_shows_every_score_and_every_loss(made):
    folder, scores = Path(made["model_card"].path), Path(made["scores"].path)
    text = (folder / "card.md").read_text()
    table, comparisons = read_scores(scores / "scores.parquet"), pd.read_parquet(scores / "comparisons.parquet")
    assert all(f"| {row.value:.3f} |" in text for row in table.itertuples())
    assert card._every_score_is_shown(text, table, comparisons).passed
    shortened = "\n".join(line for line in text.splitlines() if "does not beat baseline" not in line)
    assert not card._every_score_is_shown(shortened, table, comparisons).passed
    altered = text.replace(f"| {table.value[0]:.3f} |", "| 0.999 |")
    assert not card._every_score_is_shown(altered, table, comparisons).passed


def test_a_closed_source_is_named_in_the_card(made, tmp_path):
    """A licence that forbids it stops the redistribution of the weights."""
    shards = tmp_path / "shards"
    shutil.copytree(made["shards"].path, shards)
    about = json.loads((shards / "card.json").read_text())
    (shards / "card.json").write_text(json.dumps({**about, "redistribute": False, "licence": "CC BY-NC-SA 4.0"}))
    pretrained = tmp_path / "pretrained"
    shutil.copytree(made["pretrained"].path, pretrained)
    result = json.loads((pretrained / "result.json").read_text())
    result["inputs"]["shards"][0]["path"] = str(shards)
    (pretrained / "result.json").write_text(json.dumps(result))
    report = card.write(CardConfig(size="tiny", seed=0), Path(made["scores"].path), pretrained, Path(made["adapted"].path), tmp_path)
    check = next(c for c in report.checks if c.name == "may_be_redistributed")
    assert not check.passed
    assert "simulation" in check.note
    assert "may not be passed on: simulation" in (tmp_path / "card.md").read_text()
    assert json.loads((tmp_path / "card.json").read_text())["redistributable"] is False


@pytest.mark.parametrize("damage", ["flip", "remove", "add"])
def test_the_manifest_of_the_bundle_accounts_for_every_file(made, tmp_path, damage):
    release = tmp_path / "release"
    shutil.copytree(Path(made["bundle"].path) / "release", release)
    assert bundle.find_damage(release) == []
    path = release / "pretrained" / "model.safetensors"
    if damage == "flip":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "remove":
        path.unlink()
    else:
        (release / "notes.txt").write_text("?")
    assert len(bundle.find_damage(release)) == 1


def test_a_weight_file_cut_short_is_refused(made, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(made["pretrained"].path, folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors .*cut short or altered"):
        load_model(folder)


def test_result_traces_to_its_inputs(made):
    """A number of the card leads to its row, the row to its run, the run to the data versions of its inputs."""
    table = read_scores(Path(made["scores"].path) / "scores.parquet")
    fingerprints = set(table.fingerprint)
    assert fingerprints == {made[r].fingerprint for r in ("adapted", "probes", "signal_answers", "baselines")}
    for role in ("adapted", "baselines"):
        (entry,) = made[role].inputs["shards"]
        assert load_result(Path(entry["path"])).data_version == entry["data_version"]
