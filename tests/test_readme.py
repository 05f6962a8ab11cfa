"""The README runs: its examples, its card, its commands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io

from neurofm_ml.data.__main__ import _parser
from neurofm_ml.knowledge.cards import datasets

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return found


def test_python_examples_print_what_they_say(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    of_a_file, of_a_library = blocks("python")
    exec(compile(of_a_file, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("Recording(file/probe, 5 s, lfp: Signal(")
    exec(compile(of_a_library, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert shown.startswith("Recording(simulation/sub1_ses1, 300 s, spikes: SpikeTrain(")
    assert "shared parameters" in shown


def test_commands_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = "\n".join([*blocks("sh"), *re.findall(r"`[^`\n]*make [^`\n]*`", README)])
    rest = README.split("lists the rest: ")[1].split("\n\n")[0]
    named = set(re.findall(r"make ([a-z]+)", shown)) | set(re.findall(r"`([a-z]+)`", rest))
    assert {"demo", "ui", "full", "test", "doctor", "shards"} <= named
    assert named <= targets


def test_data_commands_are_known():
    (commands,) = (text for text in blocks("sh") if "neurofm_ml.data" in text)
    for line in commands.splitlines():
        words = shlex.split(line, comments=True)[3:]
        asked = _parser().parse_args(words)
        assert asked.command == "datasets" or asked.dataset in datasets()


def test_a_users_folder_and_card_become_shards(tmp_path):
    (card,), (command,) = blocks("yaml"), (text for text in blocks("sh") if "make shards" in text)
    assert len(card.splitlines()) == 15
    (tmp_path / "lab/reaches").mkdir(parents=True)
    (tmp_path / "lab/my_reaches.yaml").write_text(card)
    rng = np.random.default_rng(0)
    for name in ("ada_monday", "ada_tuesday", "bob_monday"):
        arrays = {"counts": rng.poisson(1.0, (1200, 12)), "velocity": rng.standard_normal((1200, 2))}
        scipy.io.savemat(tmp_path / f"lab/reaches/{name}.mat", arrays)
    target, given = shlex.split(command, comments=True)[1:]
    recipe = re.search(rf"^{target}:.*\n\t@\$\(PY\) (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    words = recipe.replace("$(DATASET)", given.removeprefix("DATASET=")).split()
    places = {"NEUROFM_CARDS": str(tmp_path / "lab"), "NEUROFM_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, *words], env={**os.environ, **places}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for asset in ("recordings", "quality", "shards"):
        assert re.search(rf"^{asset} +my_reaches .* made +{tmp_path}/home/artifacts/{asset}/my_reaches/", done.stdout, re.MULTILINE)
    (windows,) = (tmp_path / "home/artifacts/shards/my_reaches").glob("*/windows.parquet")
    table = pd.read_parquet(windows)
    assert set(table.split) == {"train", "validation", "test"}
    assert set(table.subject) == {"ada", "bob"}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:neurofm_\w+|benchmarks)[/\w.]*)`", README))))
def test_paths_exist(path):
    assert (ROOT / path).exists()
