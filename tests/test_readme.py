"""The README runs: its library example, its card, its commands."""

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import yaml

from neurofm_ml import presets
from neurofm_ml.config import to_dict
from neurofm_ml.jobs import JobSpec, run
from neurofm_ml.knowledge.cards import datasets, raw_files

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return found


def test_library_example(capsys):
    exec(compile(block("python"), "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert shown.startswith("Recording(simulation/sub1_ses1, 300 s, spikes: SpikeTrain(")
    assert "shared parameters" in shown


def test_commands_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = block("sh") + "\n".join(re.findall(r"`[^`\n]*make [^`\n]*`", README))
    rest = README.split("lists the rest: ")[1].split("\n")[0]
    named = set(re.findall(r"make ([a-z]+)", shown)) | set(re.findall(r"`([a-z]+)`", rest))
    assert {"demo", "ui", "full", "test"} <= named
    assert named <= targets


def test_a_users_folder_and_card_become_shards(tmp_path, monkeypatch):
    card = yaml.safe_load(block("yaml"))
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "my_reaches.yaml").write_text(block("yaml"))
    lab = tmp_path / "data" / card["root"]
    lab.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("monday", "tuesday"):
        scipy.io.savemat(lab / f"{name}.mat", {"counts": rng.poisson(1.0, (1200, 12)), "velocity": rng.standard_normal((1200, 2))})
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NEUROFM_HOME", str(tmp_path / "home"))
    raw = tuple(str(path) for path in raw_files(datasets()["my_reaches"]))
    recordings = run(
        JobSpec(job="ingest", config=to_dict(presets.IngestConfig(dataset="my_reaches")), inputs={"raw": raw}, out=str(tmp_path / "r"))
    )
    shards = run(
        JobSpec(
            job="write_shards",
            config=to_dict(presets.ShardsConfig(dataset="my_reaches")),
            inputs={"recordings": (recordings.path,)},
            out=str(tmp_path / "s"),
        )
    )
    assert recordings.metrics["n_recordings"] == 2
    assert not shards.failed
    assert all(shards.metrics[f"windows.{split}"] > 0 for split in ("train", "validation", "test"))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:neurofm_\w+|benchmarks)[/\w.]*)`", README))))
def test_paths_exist(path):
    assert (ROOT / path).exists()
