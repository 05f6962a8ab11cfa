"""The doctor sees what is there, names what is broken with its remedy, and tells no secret."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from neurofm_ml import doctor
from neurofm_ml.knowledge.cards import datasets

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing but where home is."""
    for name in [n for n in os.environ if n.startswith(("NEUROFM_", "AWS_", "WANDB_", "DAGSTER_", "KUBE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NEUROFM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, str]]:
    """Run the doctor: its exit code, and what it printed on one line."""

    def run() -> tuple[int, str]:
        code = doctor.main()
        return code, " ".join(capsys.readouterr().out.split())

    return run


def test_a_fresh_checkout_is_healthy(told: Any, tmp_path: Path) -> None:
    code, said = told()
    assert code == 0
    assert said.endswith("nothing is broken")
    assert f"torch {torch.__version__}" in said
    assert "mamba_ssm not installed: the scan is the chunked one" in said
    assert f"artifacts {tmp_path}/home/artifacts, 0 current" in said
    assert f"of {len(datasets())} are here: simulation" in said
    assert "NEUROFM_DATA is not set: abide_nyu" in said


def test_as_a_command_it_ends_with_1_where_something_is_broken() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "neurofm_ml.doctor"], env={**os.environ, "NEUROFM_ENV": "cloud"}, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1
    assert "! NEUROFM_ENV: 'cloud'\n    set it to one of local, workstation, kubernetes." in done.stdout
    assert not done.stderr


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("NEUROFM_DATA", "/nowhere", "/nowhere is no folder point NEUROFM_DATA at a folder that exists"),
        ("NEUROFM_CARDS", "/nowhere", "NEUROFM_CARDS is '/nowhere', which is no folder; point it at a folder of cards or unset it."),
        ("NEUROFM_HOME", f"{__file__}/home", "not writable point NEUROFM_HOME at a folder that you may write to"),
        ("NEUROFM_GPU_PRICE_PER_HOUR", "cheap", "NEUROFM_GPU_PRICE_PER_HOUR is 'cheap'; it needs a number"),
        ("NEUROFM_STORE", "s3://bucket/lab", "S3 keys: not set export both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("AWS_ACCESS_KEY_ID", "s3cr3t", "half set export both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("KUBECONFIG", "/nowhere/config", "/nowhere/config cannot be used"),
        ("NEUROFM_ENV", "kubernetes", "NEUROFM_IMAGE: not set export NEUROFM_IMAGE; NEUROFM_ENV=kubernetes needs it."),
        ("WANDB_MODE", "online", "online without a key wandb login, or export WANDB_API_KEY"),
    ],
)
def test_what_is_configured_and_broken_is_named_with_its_remedy(
    name: str, value: str, expected: str, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROFM_ENV", "kubernetes" if name == "KUBECONFIG" else "local")
    monkeypatch.setenv(name, value)
    if name == "WANDB_MODE":
        monkeypatch.setenv("NEUROFM_WANDB_PROJECT", "toys")
    code, said = told()
    assert code == 1
    assert expected in said


def test_secrets_are_told_by_presence_alone(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ENDPOINT_URL",
        "DAGSTER_PG_HOST",
        "DAGSTER_PG_PASSWORD",
        "WANDB_API_KEY",
    ):
        monkeypatch.setenv(name, "s3cr3t")
    monkeypatch.setenv("NEUROFM_WANDB_PROJECT", "toys")
    monkeypatch.setenv("WANDB_MODE", "online")
    code, said = told()
    assert code == 0
    assert "s3cr3t" not in said
    assert "S3 keys set" in said
    assert "DAGSTER_PG_PASSWORD set" in said


# ---------------------------------------------------------------- packages and kernels
def test_versions_are_compared_with_the_tested_set(told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text(f"# tested\nnumpy==0.1\ntorch=={torch.__version__.split('+')[0]}\nnot_here==1.0\n")
    monkeypatch.setattr(doctor, "_CONSTRAINTS", pins)
    code, said = told()
    assert code == 0
    assert "1 packages as in constraints.txt, 1 otherwise: numpy " in said
    assert "(tested: 0.1)" in said


def test_a_missing_package_is_broken(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: ["numpy", "no-such-package>=2", 'optional; extra == "dev"'])
    code, said = told()
    assert code == 1
    assert "no-such-package: is not installed pip install -c constraints.txt no-such-package" in said
    assert "optional" not in said


def test_a_fused_kernel_that_cannot_be_imported_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "2.2.4")
    assert doctor._scan(cuda=False).said == "2.2.4, idle without CUDA: the scan is the chunked one"
    broken = doctor._scan(cuda=True)
    assert "No module named 'mamba_ssm'" in broken.said
    assert broken.remedy == "build it anew for this torch, or uninstall it."


# ---------------------------------------------------------------- data and cards
def test_what_is_here_is_told_from_what_is_not_and_why(told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = datasets()["myo_gestures"]
    (tmp_path / "data" / card.root).mkdir(parents=True)
    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path / "data"))
    code, said = told()
    assert code == 0
    assert f"no file of the card in {tmp_path}/data/{card.root}: {card.name}" in said
    assert "their folders are not in NEUROFM_DATA: abide_nyu" in said
    assert "to fetch by python -m neurofm_ml.data fetch NAME: ajile12" in said


def test_mistakes_in_cards_of_every_kind_are_told(told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, text in (("mine.yaml", "nam: mine"), ("tables/rows.yaml", "name: rows"), ("corpora/peaks.yaml", "reader: sleut")):
        (tmp_path / "cards" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cards" / place).write_text(text)
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path / "cards"))
    code, said = told()
    assert code == 1
    assert "broken: 3" in said
    for place in ("mine.yaml", "tables/rows.yaml", "corpora/peaks.yaml"):
        assert f"card: {tmp_path}/cards/{place}: " in said


# ---------------------------------------------------------------- Dagster and Kubernetes
def test_dagsters_settings_name_the_environment_they_need(told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    database = {"hostname": {"env": "DAGSTER_PG_HOST"}, "password": {"env": "DAGSTER_PG_PASSWORD"}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"storage": {"postgres": {"postgres_db": database}}}))
    monkeypatch.setenv("DAGSTER_PG_HOST", "here")
    code, said = told()
    assert code == 1
    assert f"{tmp_path}, storage postgres" in said
    assert "dagster.yaml asks for DAGSTER_PG_PASSWORD, not set export DAGSTER_PG_PASSWORD." in said
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "s3cr3t")
    assert told()[0] == 0


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[BaseHTTPRequestHandler]]:
    """An API server that knows its version, and a kubeconfig that leads there."""

    class Api(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            fields = ("major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform")
            body = json.dumps({**dict.fromkeys(fields, ""), "gitVersion": "v1.36.2"}).encode()
            self.send_response(self.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{server.server_port}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": place}}],
        "users": [{"name": "me", "user": {"token": "s3cr3t"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    for name, value in (("NEUROFM_ENV", "kubernetes"), ("NEUROFM_IMAGE", "worker:1"), ("NEUROFM_SHARED", str(tmp_path))):
        monkeypatch.setenv(name, value)
    yield Api
    server.shutdown()
    server.server_close()


def test_a_cluster_that_answers(api: Any, told: Any, tmp_path: Path) -> None:
    code, said = told()
    assert code == 0
    assert f"answers: v1.36.2, by {tmp_path}/kubeconfig" in said
    assert "s3cr3t" not in said


def test_a_cluster_that_refuses(api: Any, told: Any) -> None:
    api.status = 401
    code, said = told()
    assert code == 1
    assert "answers 401 Unauthorized renew the credentials of the kubeconfig" in said
    assert "s3cr3t" not in said


def test_a_cluster_that_is_silent(api: Any, told: Any, tmp_path: Path) -> None:
    text = (tmp_path / "kubeconfig").read_text()
    port = text.split("127.0.0.1:")[1].split("\n")[0]
    (tmp_path / "kubeconfig").write_text(text.replace(port, "1"))
    code, said = told()
    assert code == 1
    assert "http://127.0.0.1:1 does not answer (MaxRetryError) check the network" in said
