"""What deploy/README.md names is there: files, targets, modules, assets, variables, objects of the cluster, outputs of Terraform."""

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dockerfile import stages
from modules import blocks
from rendering import find, render

from neurofm_assets.definitions import build_defs
from neurofm_ml import presets

ROOT = Path(__file__).parents[2]
OVERLAYS = ["workstation", "h100", "multinode"]
PROVIDERS = ["coreweave", "crusoe"]
#: Objects that the chart and the operators make; everything else that a command names is ours.
OF_OTHERS = {("Deployment", "dagster-daemon"), ("Deployment", "kueue-controller-manager"), ("Namespace", "kueue-system")}
#: The secrets that a command creates, and their keys.
SECRET = re.compile(r"create secret generic ([\w-]+)|--from-literal=([\w-]+)")
KINDS = {"statefulset": "StatefulSet", "service": "Service", "deployment": "Deployment", "raycluster": "RayCluster"}


def commands(text: str) -> str:
    """All shell blocks, with continued lines joined."""
    return "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")


def problems(text: str) -> list[str]:
    """Everything that the README names and that is not there."""
    shell = commands(text)
    return [*_paths(text), *_programs(text, shell), *_variables(text, shell), *_terraform(shell), *_objects(shell), *_assets(shell)]


def _paths(text: str) -> Iterator[str]:
    for name in set(re.findall(r"(?<![\w$])(?:deploy|neurofm_\w+)/[\w./$-]*[\w/]", text)):
        values = {"$PROVIDER": PROVIDERS, "$OVERLAY": OVERLAYS}
        (choices,) = [more for key, more in values.items() if key in name] or [[""]]
        for choice in choices:
            path = re.sub(r"\$\w+", choice, name)
            if not (ROOT / path).exists():
                yield f"{path} does not exist"
    anchors = {"#" + re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    yield from (f"no heading for {link}" for link in re.findall(r"\]\((#[^)]+)\)", text) if link not in anchors)


def _programs(text: str, shell: str) -> Iterator[str]:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)`", text)) | set(re.findall(r"\bmake ([a-z]+)", shell))
    yield from (f"make {name} does not exist" for name in named - targets)
    for module in set(re.findall(r" -m ([\w.]+)", shell)):
        if importlib.util.find_spec(module) is None:
            yield f"module {module} does not exist"
    images = stages((ROOT / "deploy" / "Dockerfile").read_text())
    yield from (f"no image {name}" for name in re.findall(r"--target (\w+)", shell) if name not in images)


def _variables(text: str, shell: str) -> Iterator[str]:
    """Variables nobody reads, and those that a command uses before anything sets them."""
    sources = "".join(path.read_text() for folder in ("neurofm_ml", "neurofm_assets") for path in (ROOT / folder).rglob("*.py"))
    read = set(re.findall(r"\"(NEUROFM_\w+)\"", sources)) | set(
        re.findall(r"env: (DAGSTER_\w+)", (ROOT / "deploy/base/dagster.yaml").read_text())
    )
    read |= {"DAGSTER_HOME"}
    yield from (f"{name} is read nowhere" for name in set(re.findall(r"\b(?:NEUROFM|DAGSTER)_[A-Z_]+\b", text)) - read)
    credentials = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", "".join(p.read_text() for p in (ROOT / "deploy/terraform").rglob("versions.tf"))))
    known = credentials | {"HOME", "PWD"}
    for line in shell.splitlines():
        used = set(re.findall(r"\$\{?([A-Za-z_]+)", line)) - known
        for exported in re.findall(r"(?:export|for) (.+?)(?:; do|$)", re.sub(r"#.*", "", line)):
            known |= set(re.findall(r"(\w+)(?==|$| in)", exported)) | set(re.findall(r"\b([A-Z_]+)=", exported))
        yield from (f"${name} is not set before {line.strip()!r}" for name in used - known)


def _terraform(shell: str) -> Iterator[str]:
    found = {provider: blocks(ROOT / "deploy" / "terraform" / provider) for provider in PROVIDERS}
    outputs = {provider: {name for block in found[provider]["output"] for name in block} for provider in PROVIDERS}
    for where, name in re.findall(r"-chdir=deploy/terraform/(\S+) output -raw (\w+)", shell):
        for provider in PROVIDERS if where == "$PROVIDER" else [where]:
            if name not in outputs[provider]:
                yield f"{provider} has no output {name}"
    declared = {name for module in found.values() for block in module["variable"] for name in block}
    yield from (f"no Terraform variable {name}" for name in re.findall(r"-var (\w+)=", shell) if name not in declared)


def _objects(shell: str) -> Iterator[str]:
    there = {(thing["kind"], thing["metadata"]["name"]) for name in OVERLAYS for thing in render(ROOT / "deploy" / "overlays" / name)}
    there |= OF_OTHERS
    named = set(re.findall(r"\b(statefulset|deployment|service)/([\w-]+)", shell)) | set(re.findall(r"\b(raycluster) ([\w-]+)", shell))
    yield from (f"no {kind} {name}" for kind, name in named if (KINDS[kind], name) not in there)
    yield from (f"no namespace {name}" for name in re.findall(r"(?:-n|--namespace) (\S+)", shell) if ("Namespace", name) not in there)


def _assets(shell: str) -> Iterator[str]:
    graph = build_defs().resolve_asset_graph()
    for selected, partition in re.findall(r"--select \"?([\w,]+)\"? --partition \"?([^\s\"]+)", shell):
        for name in selected.split(","):
            key = dg.AssetKey(name)
            if not graph.has(key):
                yield f"no asset {name}"
                continue
            partitions = graph.get(key).partitions_def
            keys = partitions.get_partition_keys() if partitions else []
            yield from (f"{name} has no partition {value}" for value in _values(shell, partition) if value not in keys)


def _values(shell: str, text: str) -> list[str]:
    """What a word of the shell may stand for: a loop's values, or an exported one."""
    match = re.search(r"\$(\w+)", text)
    if not match:
        return [text]
    loop = re.search(rf"for {match[1]} in (.+?);", shell)
    given = loop[1].split() if loop else re.findall(rf"\b{match[1]}=(\w+)", shell)
    return [text.replace(match[0], value) for value in given]


README = (ROOT / "deploy" / "README.md").read_text()


def test_what_the_readme_names_is_there() -> None:
    assert problems(README) == []


def test_steps_are_numbered_in_order() -> None:
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", README, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_table_of_sizes_is_that_of_the_presets() -> None:
    for size in ("small", "medium", "large"):
        asked = presets.resources(size)
        hours = asked.nodes * asked.gpus * asked.hours
        assert f"| {size} | {asked.nodes} x {asked.gpus} | {asked.hours} | {hours} |" in README
        train = presets.pretrain(size).train
        assert (train.checkpoint_every, train.precision) == (1000, "bf16-mixed")


def test_the_variables_of_the_readme_are_those_of_the_settings() -> None:
    settings = find(render(ROOT / "deploy" / "overlays" / "h100"), "ConfigMap", "neurofm-settings")["data"]
    exported = dict(re.findall(r"\b(NEUROFM_[A-Z_]+)=(\S+)", commands(README).split("make setup && ")[1].split("mkdir")[0]))
    for name, value in settings.items():
        if name.startswith("NEUROFM_"):
            assert exported[name].rpartition("/")[2] == value.rpartition("/")[2], name


def test_operators_are_up_before_anything_of_their_kinds_is_applied() -> None:
    shell = commands(README)
    before, _, _ = shell.partition("kubectl kustomize")
    assert re.search(r"^helm .* kuberay-operator .* --wait$", before, re.MULTILINE)
    assert "kubectl -n kueue-system rollout status deployment/kueue-controller-manager\n" in before


def test_one_machine_has_no_terraform_and_makes_the_namespace_before_what_lies_in_it() -> None:
    steps, section = README.split("## One machine with k3s\n")
    shell = commands(section.partition("\n## ")[0])
    order = [
        "--default-runtime=nvidia",
        "nvidia-device-plugin.yml",
        "kustomize deploy/overlays/workstation",
        "create secret",
        "rollout status",
    ]
    assert sorted(order, key=shell.index) == order
    assert "terraform" not in shell
    assert set(SECRET.findall(shell)) == set(SECRET.findall(commands(steps)))


def test_ray_is_given_the_newest_job_file(tmp_path: Path) -> None:
    (command,) = re.findall(r"sh -c '(RAY_ADDRESS=auto .*)'", README)
    for name, when in (("job-a.json", 1), ("job-z.json", 3), ("job-m.json", 2)):
        path = tmp_path / "artifacts/best_config/small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (when, when))
    script = command.replace("/shared/neurofm", str(tmp_path)).replace("python -m neurofm_ml.jobs", "printf '%s\\n'")
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"{tmp_path}/artifacts/best_config/small/job-z.json"]


def test_the_commands_are_shell(tmp_path: Path) -> None:
    script = tmp_path / "commands.sh"
    script.write_text("\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)))
    subprocess.run(["sh", "-n", script], check=True)


@pytest.mark.parametrize(
    ("right", "wrong", "reported"),
    [
        ("deploy/helm/values.yaml", "deploy/helm/value.yaml", "deploy/helm/value.yaml does not exist"),
        ("deploy/overlays/$OVERLAY", "deploy/overlay/$OVERLAY", "deploy/overlay/h100 does not exist"),
        ("make setup", "make setp", "make setp does not exist"),
        ("-m neurofm_assets.definitions", "-m neurofm_assets.definition", "module neurofm_assets.definition does not exist"),
        ("--target worker", "--target wroker", "no image wroker"),
        ("NEUROFM_CLAIM=", "NEUROFM_CLAIMS=", "NEUROFM_CLAIMS is read nowhere"),
        ("export REGISTRY=", "export REGISTY=", "$REGISTRY is not set before"),
        ("output -raw bucket", "output -raw buckt", "has no output buckt"),
        ("-var gpu_nodes", "-var gpu_node", "no Terraform variable gpu_node"),
        ("statefulset/neurofm-postgres", "statefulset/neurofm-postgre", "no statefulset neurofm-postgre"),
        ("-n neurofm exec", "-n neurofn exec", "no namespace neurofn"),
        ("recordings,quality,shards", "recordings,quality,shard", "no asset shard"),
        ("SIZE=small", "SIZE=smal", "has no partition 0|smal"),
        ("spikes calcium eeg", "spikes calcum eeg", "scaler has no partition calcum"),
        ("(#costs)", "(#cost)", "no heading for #cost"),
    ],
)
def test_a_typo_in_the_readme_is_reported(right: str, wrong: str, reported: str) -> None:
    assert right in README
    assert any(reported in problem for problem in problems(README.replace(right, wrong)))
