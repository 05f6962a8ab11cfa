"""Several processes under torchrun: one artifact, one voice, the exit codes of our jobs."""

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurofm_ml import jobs, presets
from neurofm_ml.config import patch, to_dict
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.scaler import fit
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.jobs import JobSpec, load_result, run
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.training.checkpoints import load_weights
from neurofm_ml.training.curves import read_curves
from neurofm_ml.types import EXIT_BAD_INPUT, EXIT_PREEMPTED

#: A job that both processes share, and one that they do not; each process notes that it was called.
TOY = """
import os, signal, sys, time
from neurofm_ml import gang, jobs
from neurofm_ml.jobs.__main__ import main
from neurofm_ml.presets import OnnxConfig
from neurofm_ml.types import Check, Preempted, Report

def toy(cfg, inputs, out):
    mine = out / ("rank-%d" % gang.rank())
    mine.touch()
    {act}
    if {shared}:
        gang.meet("toy")
        if gang.rank():
            time.sleep(1)  # the first may not publish meanwhile
        assert mine.exists()
    return Report({{"world": gang.world()}}, (Check("is_fine", True),))

jobs.JOBS.add("toy", jobs.Job(OnnxConfig, toy, "1", jobs.claims("is_fine"), resumes=True, shared=lambda cfg: {shared}))
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("NEUROFM_HOME", str(tmp_path / "home"))


def started(*what: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "neurofm_ml.gang", "--standalone", "--nproc-per-node=2", *what]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def toy(tmp_path: Path, act: str = "pass", shared: bool = True) -> list[str]:
    (tmp_path / "toy.py").write_text(TOY.format(act=act, shared=shared))
    spec = JobSpec(job="toy", config={}, out=str(tmp_path / "toys"))
    (tmp_path / "job.json").write_text(json.dumps(to_dict(spec)))
    return [str(tmp_path / "toy.py"), str(tmp_path / "job.json")]


@pytest.mark.parametrize(("shared", "called"), [(True, {"rank-0", "rank-1"}), pytest.param(False, {"rank-0"}, marks=pytest.mark.slow)])
def test_two_processes_publish_one_artifact(shared: bool, called: set[str], tmp_path: Path) -> None:
    command = toy(tmp_path, shared=shared)
    for _ in range(2):  # the second time it is found, by both
        process = started(*command)
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert out.count('"fingerprint"') == 2
    (artifact,) = (path for path in (tmp_path / "toys").iterdir() if path.is_dir())
    assert {path.name for path in artifact.glob("rank-*")} == called
    assert load_result(artifact).metrics == {"world": 2}


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ("if gang.rank(): raise ValueError('wrong')", EXIT_BAD_INPUT),
        pytest.param("if gang.rank(): os._exit(3)", 3, marks=pytest.mark.slow),
        pytest.param("if gang.rank(): os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("if not gang.rank(): raise Preempted('stopped')", EXIT_PREEMPTED, marks=pytest.mark.slow),
    ],
)
def test_a_gang_ends_with_the_code_of_the_process_that_failed_first(act: str, code: int, tmp_path: Path) -> None:
    process = started(*toy(tmp_path, act))
    _, err = process.communicate()
    assert process.returncode == code, err
    assert not (tmp_path / "toys/current.json").exists()


@pytest.mark.slow
def test_a_gang_that_is_asked_to_stop_can_be_resumed(tmp_path: Path) -> None:
    command = toy(tmp_path, "print('here', flush=True) or (gang.hear('never') if not (out / 'again').exists() else None)")
    process = started(*command)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["here\n"] * 2
    process.terminate()
    assert process.wait() == EXIT_PREEMPTED
    process.communicate()
    (work,) = (tmp_path / "toys").glob("work-*")
    (work / "again").touch()
    again = started(*command)
    assert "here" in again.communicate()[0]
    assert again.returncode == 0


# ---------------------------------------------------------------- the real jobs
@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """Shards of two recordings of a minute, every bin of which is labelled, and their scalers."""
    card = datasets()["simulation"]
    card = dataclasses.replace(card, recordings=card.recordings[:2], window_s=4.0, stride_s=2.0)
    source, shards = tmp_path_factory.mktemp("recordings"), tmp_path_factory.mktemp("shards")
    for recording in simulate(card, 60.0):
        save_recording(recording, source / "recordings")
    (source / "card.json").write_text(json.dumps(to_dict(card)))
    shard_recordings(presets.ShardsConfig(dataset="simulation"), source, shards)
    scalers = []
    for modality in card.modalities:
        scalers.append(tmp_path_factory.mktemp(modality))
        fit(presets.ScalerConfig(modality=modality), [shards], scalers[-1])
    return {"shards": (str(shards),), "scaler": tuple(map(str, scalers))}


SMALL = {"d_model": 16, "n_heads": 2, "d_state": 4, "n_layers": 1, "dropout": 0.0}
PLAIN = {"modality_dropout": 0.0, "unit_dropout": 0.0, "time_mask": 0.0, "noise": 0.0, "drift": 0.0}


def spec_of(job: str, cfg: Any, out: Path, **inputs: Sequence[str]) -> JobSpec:
    return JobSpec(job=job, config=to_dict(cfg), inputs={role: tuple(paths) for role, paths in inputs.items()}, out=str(out))


def run_by_two(spec: JobSpec, tmp_path: Path) -> jobs.JobResult:
    (tmp_path / "job.json").write_text(json.dumps(to_dict(spec)))
    process = started("-m", "neurofm_ml.jobs", str(tmp_path / "job.json"))
    _, err = process.communicate()
    assert process.returncode == 0, err
    result = jobs.find(spec)
    assert result is not None
    return result


@pytest.mark.slow
def test_two_processes_train_and_adapt_what_one_does(inputs: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    train = {"steps": 4, "batch_size": 4, "log_every": 1, "checkpoint_every": 2}
    cfg = patch(
        presets.pretrain("tiny"), {"train": train, "model": SMALL, "augment": PLAIN, "objectives": {"behaviour": 1.0, "masked": 0.0}}
    )
    one = run(spec_of("pretrain_neurofmx", cfg, tmp_path / "one", **inputs))
    for strategy in ("ddp", "fsdp"):
        halves = patch(cfg, {"train": {"batch_size": 2, "strategy": strategy}})
        two = run_by_two(spec_of("pretrain_neurofmx", halves, tmp_path / strategy, **inputs), tmp_path)
        curves = [read_curves(Path(result.path) / "metrics.csv") for result in (one, two)]
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(curves[1][name][1], curves[0][name][1], rtol=1e-5)
        assert two.artifacts.keys() == one.artifacts.keys()

    adapted = patch(presets.adapt("tiny"), {"train": {"steps": 2, "batch_size": 2}})
    found = [
        make(spec_of("adapt", adapted, tmp_path / f"adapted-{make.__name__}", pretrained=[one.path], **inputs))
        for make in (run, lambda spec: run_by_two(spec, tmp_path))
    ]
    decoders = [sorted(path.parent for path in Path(result.path).glob("decoders/*/model.json")) for result in found]
    assert len(decoders[0]) > 1
    assert [path.name for path in decoders[0]] == [path.name for path in decoders[1]]
    for alone, shared in zip(*decoders, strict=True):
        for name, weights in load_weights(alone)[0].items():
            assert load_weights(shared)[0][name].equal(weights)
