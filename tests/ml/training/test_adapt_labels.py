"""Label decoders: planted labels are found on held-out people, numbers come in their own unit, what is finished stays."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from neurofm_ml import presets
from neurofm_ml.config import patch, to_dict
from neurofm_ml.data.batches import build_vocabulary
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.scaler import fit
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.jobs import JOBS
from neurofm_ml.knowledge.cards import SignalSpec, SplitSpec, TaskSpec, datasets
from neurofm_ml.metrics import auroc
from neurofm_ml.models import BrainLM, EEGNet
from neurofm_ml.presets import ScalerConfig, ShardsConfig
from neurofm_ml.training import adapt_labels as module
from neurofm_ml.training.adapt_labels import adapt_labels, score
from neurofm_ml.training.label_decoders import load_label_decoder, pool
from neurofm_ml.training.saved import save_model
from neurofm_ml.types import Intervals, Latents, Recording, Signal, Subject

SFREQ, SECONDS, PEOPLE = 64.0, 48.0, 12
TASKS = (
    TaskSpec(name="diagnosis", target="subject.diagnosis", inputs=("eeg",), classes=("control", "patient"), metric="auroc"),
    TaskSpec(name="age", target="subject.age", inputs=("eeg",)),
    TaskSpec(name="state", target="intervals.blocks", inputs=("eeg",), classes=("rest", "move"), metric="balanced_accuracy"),
)


def person(number: int) -> Recording:
    """Patients have a strong rhythm in the first channels; age is its speed; while moving, the last channels are loud."""
    rng = np.random.default_rng(number)
    patient, age = number % 2, 20 + 5 * number
    t = np.arange(round(SECONDS * SFREQ)) / SFREQ
    values = rng.normal(size=(len(t), 6))
    values[:, :3] += (1 + 4 * patient) * np.sin(2 * np.pi * 10 * t)[:, None]
    start = np.arange(0, SECONDS, 8.0)
    moving = np.arange(len(start)) % 2
    values[:, 3:] *= np.where(moving[(t // 8).astype(int)], 4.0, 1.0)[:, None]
    blocks = Intervals(start, start + 8, tuple("move" if m else "rest" for m in moving))
    subject = Subject(f"s{number}", age=float(age), diagnosis=("control", "patient")[patient])
    signals = {"eeg": Signal(values.astype(np.float32), SFREQ, "eeg")}
    return Recording(f"r{number}", "people", subject, "visit", "Homo sapiens", "CC0", signals, {"blocks": blocks}, (0.0, SECONDS))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Shards split by subject, and their scaler."""
    home = tmp_path_factory.mktemp("people")
    card = dataclasses.replace(
        datasets()["simulation"],
        name="people",
        signals={"eeg": SignalSpec(modality="eeg", sfreq=SFREQ)},
        tasks=TASKS,
        split=SplitSpec(kind="subject"),
        grid_hz=8.0,
        window_s=4.0,
        stride_s=4.0,
    )
    (home / "recordings").mkdir()
    for number in range(PEOPLE):
        save_recording(person(number), home / "recordings" / "recordings")
    (home / "recordings" / "card.json").write_text(json.dumps(to_dict(card)))
    for name in ("shards", "scaler"):
        (home / name).mkdir()
    shard_recordings(ShardsConfig(dataset="people"), home / "recordings", home / "shards")
    fit(ScalerConfig(modality="eeg"), [home / "shards"], home / "scaler")
    return home / "shards", home / "scaler"


CFG = patch(presets.adapt_labels("tiny"), {"train": {"steps": 60, "batch_size": 32, "lr": 1e-2, "checkpoint_every": 60}})


@pytest.fixture(scope="module")
def adapted(people: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapted")
    torch.manual_seed(0)
    save_model(out / "base", EEGNet(presets.eegnet("tiny"), build_vocabulary([people[0]])))
    report = adapt_labels(CFG, out / "base", [people[0]], [people[1]], out)
    assert {c.name: c.severity for c in report.checks} == dict(JOBS["adapt_labels"].checks)
    assert report.metrics["decoders"] == 1
    assert all(check.passed for check in report.checks)
    return out


def test_checkpoints_are_gone_and_curves_stay(adapted: Path) -> None:
    assert not list(adapted.rglob("step-*"))
    assert [path.parent.name for path in adapted.rglob("metrics.csv")] == ["people"]


def test_planted_labels_are_found_on_people_never_seen(adapted: Path) -> None:
    said = pd.read_parquet(adapted / "labels.parquet").query("split == 'test'")
    diagnosis = said[said.task == "diagnosis"]
    assert auroc(diagnosis.truth.to_numpy(), np.stack(list(diagnosis.said))[:, 1]) > 0.95
    state = said[said.task == "state"]
    assert np.mean(np.stack(list(state.said)).argmax(1) == state.truth) > 0.9
    years = np.stack(list(said[said.task == "age"].said))
    assert 10 < years.mean() < 90, "in years, not in deviations"


def test_what_is_said_is_of_the_windows_it_names(adapted: Path, people: tuple[Path, Path]) -> None:
    said = pd.read_parquet(adapted / "labels.parquet")
    windows = pd.read_parquet(people[0] / "windows.parquet")
    assert set(said.split) == {"validation", "test"}
    ages = said[said.task == "age"].merge(windows, on=["recording", "start"], suffixes=("", "_there"))
    assert len(ages) == len(windows[windows.split != "train"])
    assert (ages.split == ages.split_there).all()
    assert (ages.truth == [20 + 5 * int(name[1:]) for name in ages.recording]).all()


def test_a_saved_decoder_is_the_fitted_one(adapted: Path) -> None:
    decoder = load_label_decoder(adapted / "decoders" / "people")
    assert decoder.classes == {"people/diagnosis": ("control", "patient"), "people/age": (), "people/state": ("rest", "move")}
    with (adapted / "decoders" / "people" / "model.safetensors").open("r+b") as file:
        file.seek(-3, 2)
        byte = file.read(1)
        file.seek(-3, 2)
        file.write(bytes([byte[0] ^ 1]))
    try:
        with pytest.raises(ValueError, match="cut short or altered"):
            load_label_decoder(adapted / "decoders" / "people")
    finally:
        with (adapted / "decoders" / "people" / "model.safetensors").open("r+b") as file:
            file.seek(-3, 2)
            file.write(byte)


def test_what_is_finished_is_not_fitted_again(adapted: Path, people: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_adapt_one", lambda *_: pytest.fail("fitted again"))
    adapt_labels(CFG, adapted / "base", [people[0]], [people[1]], adapted)


def test_what_an_encoder_cannot_read_is_left_out_by_name(adapted, people, tmp_path, caplog) -> None:
    """Decoders of the others are finished already."""
    other = shutil.copytree(people[0], tmp_path / "shards")
    card = json.loads((other / "card.json").read_text())
    card |= {"name": "still", "signals": {"eeg": {**card["signals"]["eeg"], "modality": "meg"}}}
    (other / "card.json").write_text(json.dumps(card))
    report = adapt_labels(CFG, adapted / "base", [people[0], other], [people[1]], adapted)
    assert report.metrics["decoders"] == 1
    assert "still" in caplog.text
    with pytest.raises(ValueError, match="none of the datasets still has training windows of eeg"):
        adapt_labels(CFG, adapted / "base", [other], [people[1]], tmp_path)


def test_people_count_once_however_many_windows_they_have() -> None:
    card = dataclasses.replace(datasets()["simulation"], tasks=TASKS[:1])
    rows = [("a", 0.0, 0.9)] + [("a", 0.0, 0.0)] * 9 + [("b", 1.0, 0.2)]
    said = pd.DataFrame([{"task": "diagnosis", "split": "test", "recording": r, "truth": t, "said": [1 - p, p]} for r, t, p in rows])
    assert score(said, card, "test") == {TASKS[0]: 1.0}
    assert score(said[said.recording == "a"], card, "test") == {}


def test_pooling_ignores_what_is_not_valid() -> None:
    values, mask = torch.randn(2, 5, 3), torch.tensor([[True] * 5, [True, True, True, False, False]])
    pooled = pool(Latents(values, torch.zeros(2, 5), mask))
    torch.testing.assert_close(pooled, torch.stack([values[0].mean(0), values[1, :3].mean(0)]))


@pytest.mark.parametrize("tasks", [(), (TaskSpec(name="b", target="hand", inputs=("eeg",)),)], ids=["none", "a series"])
def test_datasets_without_labels_are_refused(tasks, people, tmp_path: Path) -> None:
    card = json.loads((people[0] / "card.json").read_text())
    (tmp_path / "shards").mkdir()
    signals = {**card["signals"], "hand": {"modality": "pose"}}
    (tmp_path / "shards" / "card.json").write_text(json.dumps({**card, "signals": signals, "tasks": [to_dict(task) for task in tasks]}))
    save_model(tmp_path / "base", BrainLM(presets.brainlm("tiny"), build_vocabulary([])))
    with pytest.raises(ValueError, match="no dataset here has a task with a label"):
        adapt_labels(CFG, tmp_path / "base", [tmp_path / "shards"], [people[1]], tmp_path)
