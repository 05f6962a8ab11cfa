"""The README followed from an empty cluster to a finished materialisation, with the commands as they are printed.

What is real: bash, kubectl, Dagster, a Postgres, the jobs and their processes. What stands in: the Kubernetes API of `cluster`, the
object store of `doubles`, and shell functions for `terraform output` and `openssl`, which give what names those two and the database.
`kubectl create secret` speaks protobuf, which the double does not: what it makes is sent by `kubectl apply`.
Replaced in the text: the path of the shared volume, the port of Postgres, and the size, by tiny.
Every job is the real one, but that the worker image ends pretraining after a few of its 800 steps.
Not run, by name: terraform init and apply, crusoe, docker, helm, make setup, port-forward, rollout status and the operators of multinode;
other tests of this folder read them.
"""

import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from assets import postgres
from cluster import Cluster, Image
from cluster.objects import Key, Object
from cluster.scenes import CPU
from doubles import Double, serving

ROOT = Path(__file__).parents[2]
README = (ROOT / "deploy" / "README.md").read_text()
WORKER = "registry.my-lab.org/neurofm/neurofm-worker:0.1.0"
#: Step and number of its shell block: choose, reach the cluster, apply, secrets, where commands run.
PREPARATION = [(1, 0), (3, 0), (5, 1), (6, 0), (8, 1)]
MATERIALISATION = (9, 0)
#: Commands of these blocks that need a cloud, or that wait for containers which the double keeps and does not run.
ELSEWHERE = ("node_pools", "rollout status", "make setup", "port-forward")
STAND_INS = """
terraform() {
  case "${@: -1}" in
    storage_class) echo shared ;;
    bucket) echo bucket ;;
    s3_endpoint) echo "$STORE_URL" ;;
    s3_addressing) echo path ;;
    *) return 1 ;;
  esac
}
openssl() { echo "$DATABASE_PASSWORD"; }
kubectl() {
  case "$*" in
    *"create secret"*) command kubectl "$@" --dry-run=client -o yaml | command kubectl apply -f - ;;
    *) command kubectl "$@" ;;
  esac
}
"""
#: sitecustomize.py of the worker image.
SHORT = """
import dataclasses
import sys

if "neurofm_assets.worker" in sys.orig_argv:
    from neurofm_ml import jobs

    real = jobs.JOBS["pretrain_neurofmx"]

    def short(cfg, inputs, out):
        return real.function(dataclasses.replace(cfg, train=dataclasses.replace(cfg.train, steps=20)), inputs, out)

    jobs.JOBS._members["pretrain_neurofmx"] = dataclasses.replace(real, function=short)
"""


def block(step: int, number: int) -> str:
    """A shell block of a step, without the commands that run elsewhere."""
    (section,) = re.findall(rf"^## {step}\. .*?(?=^## )", README, re.MULTILINE | re.DOTALL)
    text = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[number].replace("\\\n", " ")
    return "".join(line for line in text.splitlines(keepends=True) if not any(name in line for name in ELSEWHERE))


class Operator:
    """A person at a shell in the root of a checkout: what one block exports, the next ones see."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.exports = folder, folder / "exports"
        self.env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(folder), **env}
        self.exports.touch()
        (folder / "deploy").symlink_to(ROOT / "deploy")

    def type(self, text: str) -> None:
        script = f"set -euo pipefail\n. {self.exports}\n{STAND_INS}\n{text}\nexport -p > {self.exports}\n"
        subprocess.run(["bash", "-c", script], cwd=self.folder, env=self.env, check=True)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A Postgres with the database that the manifests make."""
    import psycopg2

    with postgres.running() as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        where = {"host": env["DAGSTER_PG_HOST"], "port": env["DAGSTER_PG_PORT"], "dbname": env["DAGSTER_PG_DB"]}
        connection = psycopg2.connect(user=env["DAGSTER_PG_USERNAME"], password=env["DAGSTER_PG_PASSWORD"], **where)
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE dagster")
        connection.close()
        yield env


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Double]:
    (tmp_path / "served/bucket").mkdir(parents=True)
    with serving(tmp_path / "served") as double:
        double.secret = "secret"
        yield double


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Empty, and reached through kubeconfig.yaml in the root of the checkout."""
    (tmp_path / "image").mkdir()
    (tmp_path / "image/sitecustomize.py").write_text(SHORT)
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": f"{tmp_path}/image:{ROOT}"}
    with Cluster.running({WORKER: Image(env, tmp_path)}, (CPU,)) as running:
        running.kubeconfig(tmp_path / "kubeconfig.yaml")
        yield running


def decoded(cluster: Cluster, name: str) -> dict[str, str]:
    """A Secret's values, which the double's kubelet is given as well: it reads them in clear."""
    key = Key("", "secrets", "neurofm", name)
    secret = cluster.objects.get(key)
    values = {entry: b64decode(value).decode() for entry, value in secret["data"].items()}

    def open_it(now: Object) -> None:
        now["stringData"] = values

    cluster.objects.update(key, secret["metadata"]["uid"], open_it)
    return values


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="the steps are commands of kubectl")
def test_the_readme_leads_from_nothing_to_a_materialisation(
    cluster: Cluster, database: dict[str, str], bucket: Double, tmp_path: Path
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": "secret"}
    operator = Operator(tmp_path, {**keys, "STORE_URL": bucket.url, "DATABASE_PASSWORD": database["DAGSTER_PG_PASSWORD"]})
    preparation = "\n".join(block(*place) for place in PREPARATION)
    shared = re.sub(r"=/shared\b", f"={tmp_path}/shared", preparation)
    operator.type(shared.replace("DAGSTER_PG_PORT=5432", f"DAGSTER_PG_PORT={database['DAGSTER_PG_PORT']}"))
    assert decoded(cluster, "neurofm-postgres") == {"postgresql-password": database["DAGSTER_PG_PASSWORD"]}
    assert decoded(cluster, "neurofm-s3")["NEUROFM_STORE"] == "s3://bucket/neurofm"
    assert 'NEUROFM_ENV="kubernetes"' in operator.exports.read_text()

    operator.type(block(*MATERIALISATION).replace("SIZE=small", "SIZE=tiny"))
    made = cluster.ever("jobs")
    assert made == 9, "recordings, quality, shards, five scalers, a model"
    assert {job["metadata"]["namespace"] for job in cluster.jobs()} == {"neurofm"}
    assert {job["status"]["conditions"][-1]["type"] for job in cluster.jobs()} == {"Complete"}
    assert list((tmp_path / "served/bucket/neurofm").glob("**/neurofmx_pretrained/tiny-0/*/result.json"))

    operator.type(block(*MATERIALISATION).splitlines()[-1])
    assert cluster.ever("jobs") == made
    with dg.DagsterInstance.from_config(str(tmp_path / ".neurofm-cluster")) as instance:
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
        second, first = instance.fetch_materializations(dg.AssetKey("neurofmx_pretrained"), limit=10).records
    assert first.partition_key == second.partition_key == "0|tiny"
    assert [record.asset_materialization.metadata["reused"].value for record in (first, second)] == [False, True]
