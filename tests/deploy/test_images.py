"""The images hold what their code imports, at pinned versions, run as nobody in particular, and carry no orchestrator to the GPU.

No image is built here: instructions are read, and what an image would hold is played with the packages that are installed.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from dockerfile import Stage, stages
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
#: What each image installs; the code itself comes without its dependencies.
IMAGES = {"control": EXTRAS["control"], "worker": PROJECT["dependencies"] + EXTRAS["worker"]}


def problems(root: Path) -> list[str]:
    """Everything wrong with the Dockerfile of a checkout."""
    try:
        found = stages((root / "deploy" / "Dockerfile").read_text())
    except (ValueError, KeyError) as error:
        return [repr(error)]
    pins = constraints(root)
    wrong = [f"{stage.name}: {what}" for stage in found.values() for what in _stage_problems(root, stage, found, pins)]
    return wrong + [f"{name}: no such target" for name in ("control", "worker", "ray") if name not in found]


def _stage_problems(root: Path, stage: Stage, found: dict[str, Stage], pins: dict[str, str]) -> list[str]:
    wrong = []
    if stage.parent not in found and not re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", stage.parent):
        wrong.append(f"{stage.parent} is not pinned to a version")
    for word, rest in stage.steps:
        if word == "COPY":
            wrong += _copy_problems(root, rest, found)
        if word == "RUN" and "pip install" in rest:
            wrong += _pip_problems(rest, pins)
        if word in ("ENV", "ARG") and re.search(r"(?i)secret|token|password|key", rest):
            wrong.append(f"a secret in {word} {rest}")
    if stage.name in ("control", "worker", "ray"):
        if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", stage.last("USER")):
            wrong.append(f"runs as {stage.last('USER') or 'root'}")
        if not stage.last("HEALTHCHECK"):
            wrong.append("has no health check")
    return wrong


def _copy_problems(root: Path, rest: str, found: dict[str, Stage]) -> list[str]:
    words = rest.split()
    if words[0].startswith("--from="):
        origin = words[0].removeprefix("--from=")
        return [] if origin in found else [f"COPY from {origin}, which is no stage"]
    allowed = [line[1:] for line in (root / "deploy" / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    return [f"COPY {name}: not there, or ignored" for name in words[:-1] if name not in allowed or not (root / name).exists()]


def _pip_problems(rest: str, pins: dict[str, str]) -> list[str]:
    words = rest.partition("pip install ")[2].split(" && ")[0].split()
    if "--no-deps" in words:
        return []
    if words[:2] != ["-c", "constraints.txt"]:
        return [f"pip install {' '.join(words)}: without constraints.txt"]
    named = [word for word in words[2:] if not word.startswith("-") and not word.endswith(".txt")]
    return [f"{name} is not pinned" for name in named if canonicalize_name(name) not in pins]


def constraints(root: Path) -> dict[str, str]:
    lines = (root / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines) if version}


def closure(roots: list[str]) -> set[str]:
    """Names of everything that an install of `roots` brings, by the metadata of what is installed here; a package that is not
    (for a GPU, say) stands for itself."""
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(root) for root in roots]
    while todo:
        wanted = todo.pop()
        for extra in (*wanted.extras, ""):
            if (canonicalize_name(wanted.name), extra) not in seen:
                seen.add((canonicalize_name(wanted.name), extra))
                todo += [r for r in requirements(wanted.name) if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def requirements(name: str) -> list[Requirement]:
    try:
        return [Requirement(line) for line in distribution(name).requires or ()]
    except PackageNotFoundError:
        return []


def test_the_dockerfile_is_sound() -> None:
    assert problems(ROOT) == []


@pytest.mark.parametrize("image", IMAGES)
def test_every_package_of_an_image_is_pinned(image: str) -> None:
    assert closure(IMAGES[image]) - set(constraints(ROOT)) == set()


def test_ray_and_the_build_backend_are_pinned() -> None:
    assert {"ray", "setuptools"} <= set(constraints(ROOT))
    assert EXTRAS["ray"] == ["ray[default,tune]"]
    assert f"rayVersion: {constraints(ROOT)['ray']}\n" in (ROOT / "deploy" / "components" / "ray" / "cluster.yaml").read_text()


def test_ray_holds_what_the_probes_of_kuberay_call() -> None:
    steps = stages((ROOT / "deploy" / "Dockerfile").read_text())["ray"].steps
    assert any(word == "RUN" and re.search(r"apt-get install .*\bwget\b", rest) for word, rest in steps)


def test_the_worker_holds_no_orchestrator_and_control_no_torch() -> None:
    worker, control = closure(IMAGES["worker"]), closure(IMAGES["control"])
    assert {name for name in worker if name.startswith("dagster")} == {"dagster-pipes"}
    assert "torch" in worker
    assert "torch" not in control


ONLY = """
import importlib, importlib.metadata, sys
from packaging.utils import canonicalize_name
held = set(sys.argv[1].split(","))
owners = importlib.metadata.packages_distributions()
class Image:
    def find_spec(self, name, path=None, target=None):
        owner = {canonicalize_name(d) for d in owners.get(name.partition(".")[0], ())}
        if owner and not owner & held:
            raise ModuleNotFoundError(f"{name} ({', '.join(owner)}) is not in the image", name=name)
sys.meta_path.insert(0, Image())
for name in sys.argv[2].split(","):
    importlib.import_module(name)
"""


def in_image(image: str, modules: str) -> subprocess.CompletedProcess[str]:
    """Import modules in a Python that finds only what the image holds."""
    held = ",".join({*closure(IMAGES[image]), "neurofm"})
    return subprocess.run([sys.executable, "-c", ONLY, held, modules], cwd=ROOT, capture_output=True, text=True, check=False)


def library() -> str:
    paths = [p.relative_to(ROOT) for p in (ROOT / "neurofm_ml").rglob("*.py") if p.name != "__main__.py"]
    return ",".join(".".join(p.with_suffix("").parts).removesuffix(".__init__") for p in paths)


def test_the_worker_imports_with_what_its_image_holds() -> None:
    ran = in_image("worker", "neurofm_assets.worker," + library())
    assert ran.returncode == 0, ran.stderr


def test_control_imports_with_what_its_image_holds() -> None:
    ran = in_image("control", "neurofm_assets.definitions,dagster_k8s,dagster_postgres,kubernetes,psycopg2")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(("image", "module"), [("worker", "dagster"), ("control", "torch")])
def test_what_an_image_lacks_is_noticed(image: str, module: str) -> None:
    assert f"{module} ({module}) is not in the image" in in_image(image, module).stderr


def test_the_lists_of_requirements_are_written(tmp_path: Path) -> None:
    """The one RUN of the stage that makes them, run as it stands."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    run = stages((ROOT / "deploy" / "Dockerfile").read_text())["requirements"].last("RUN")
    subprocess.run(["sh", "-c", run.replace("python ", f"{sys.executable} ", 1)], cwd=tmp_path, check=True)
    for image, wanted in {**IMAGES, "ray": EXTRAS["ray"]}.items():
        assert (tmp_path / f"{image}.txt").read_text().split("\n") == wanted


@pytest.mark.parametrize(
    ("right", "wrong", "reported"),
    [
        ("COPY neurofm_ml neurofm_ml", "COPY neurofm_mll neurofm_mll", "COPY neurofm_mll"),
        ("USER 1000:1000\nEXPOSE", "USER root\nEXPOSE", "control: runs as root"),
        ("python:3.12.11-slim-bookworm", "python:latest", "not pinned"),
        ("--from=requirements /opt/neurofm/worker.txt", "--from=requirement /opt/neurofm/worker.txt", "no stage"),
        ("RUN pip install -c constraints.txt -r worker.txt", "RUN pip install -r worker.txt", "without constraints.txt"),
        ("-c constraints.txt setuptools", "-c constraints.txt setuptoools", "setuptoools is not pinned"),
        ("HEALTHCHECK --interval=10m", "HELTHCHECK --interval=10m", "HELTHCHECK"),
        ("ENV DAGSTER_HOME", "ENV API_TOKEN=abc DAGSTER_HOME", "a secret"),
        ("FROM python AS worker", "FROM python AS workr", "worker"),
    ],
)
def test_a_typo_in_the_dockerfile_is_reported(tmp_path: Path, right: str, wrong: str, reported: str) -> None:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("neurofm_ml", "neurofm_assets"):
        (tmp_path / name).mkdir()
    assert problems(tmp_path) == []
    path = tmp_path / "deploy" / "Dockerfile"
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    assert any(reported in problem for problem in problems(tmp_path))
