"""The Terraform of each provider: what is used is declared and reverse, nothing is open that should be closed, versions are pinned.

The providers' own schemas come from a registry, so what is checked here is the language, the references and our rules; where the
terraform binary is at hand it formats the files and evaluates variables and manifests, which need no provider.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from modules import blocks
from schemas import RELEASES, schema_problems

ROOT = Path(__file__).parents[2]
TERRAFORM = ROOT / "deploy" / "terraform"
PROVIDERS = ["coreweave", "crusoe"]
needs_terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="needs terraform")


def problems(folder: Path) -> list[str]:
    """Everything wrong with a module."""
    try:
        found = blocks(folder)
    except ValueError as error:
        return [str(error)]
    text = "\n".join(path.read_text() for path in sorted(folder.glob("*.tf")))
    return [*_references(found, text), *_declarations(found), *_secrets(found), *_bucket(found)]


def _references(found: dict[str, list[dict[str, Any]]], text: str) -> Iterator[str]:
    code = re.sub(r"#.*", "", text)
    declared = {name for block in found["variable"] for name in block}
    used = set(re.findall(r"\bvar\.(\w+)", re.sub(r"(?s)validation \{.*?\n  \}", "", code)))
    yield from (f"variable {name} is used and not declared" for name in used - declared)
    yield from (f"variable {name} is declared and not used" for name in declared - used)
    named = {name for block in found.get("locals", ()) for name in block}
    yield from (f"local {name} is not there" for name in set(re.findall(r"\blocal\.(\w+)", code)) - named)
    resources = {f"{kind}.{name}" for block in found["resource"] for kind, inner in block.items() for name in inner}
    asked = set(re.findall(r"\b((?:aws|coreweave|crusoe)_\w+\.\w+)\.?", code))
    yield from (f"resource {name} is not there" for name in asked - resources)


def _declarations(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Variables and outputs that say nothing of themselves; versions that float; providers nobody asked for."""
    for kind in ("variable", "output"):
        for block in found[kind]:
            for name, inner in block.items():
                allowed = {"variable": {"description", "type", "default", "validation"}, "output": {"description", "value"}}[kind]
                if not inner.get("description"):
                    yield f"{kind} {name} has no description"
                yield from (f"{kind} {name} has an unknown {field}" for field in set(inner) - allowed)
    (settings,) = found["terraform"]
    wanted = {name: entry for group in settings["required_providers"] for name, entry in group.items()}
    for name, entry in wanted.items():
        if not re.fullmatch(r"\d+\.\d+\.\d+", entry.get("version", "")):
            yield f"provider {name} is not pinned"
    kinds = {kind.split("_")[0] for block in found["resource"] for kind in block}
    yield from (f"provider {name} is not required" for name in kinds - set(wanted))


def _secrets(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Assignments of a literal to something that sounds like a secret."""

    def walk(value: Any, way: str) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(inner, f"{way}.{key}")
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner, way)
        elif isinstance(value, str) and re.search(r"(?i)(secret|token|password|access_?key)[^.]*$", way) and "${" not in value:
            yield f"{way} holds a literal"

    yield from walk({kind: found[kind] for kind in ("provider", "resource", "variable", "locals") if kind in found}, "")


def _bucket(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Buckets keep old versions, encrypt, and forget after a while."""
    of_kind = {kind: list(inner.values()) for block in found["resource"] for kind, inner in block.items()}
    whole = json.dumps(of_kind)
    if '"versioning_enabled": true' not in whole and '"status": "Enabled"' not in json.dumps(
        of_kind.get("coreweave_object_storage_bucket_versioning", "")
    ):
        yield "the bucket keeps no versions"
    if "AES256" not in json.dumps(of_kind.get("aws_s3_bucket_server_side_encryption_configuration", "")):
        yield "the bucket is not encrypted"
    (encryption,) = [block["bucket_encryption"] for block in found["variable"] if "bucket_encryption" in block] or [{}]
    if encryption.get("default") is not True:
        yield "the bucket is not encrypted unless asked"
    for part in ("noncurrent_version_expiration", "abort_incomplete_multipart_upload"):
        if part not in whole:
            yield f"the bucket has no {part}"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_modules_are_sound(provider: str) -> None:
    assert problems(TERRAFORM / provider) == []


@needs_terraform
def test_files_are_formatted() -> None:
    ran = subprocess.run(["terraform", "fmt", "-check", "-diff", "-recursive", TERRAFORM], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("provider", PROVIDERS)
def test_gpu_nodes_are_h100_and_labelled(provider: str) -> None:
    text = "".join(path.read_text() for path in (TERRAFORM / provider).glob("*.tf"))
    found = {name: inner for block in blocks(TERRAFORM / provider)["variable"] for name, inner in block.items()}
    assert "h100" in found["gpu_instance_type"]["default"]
    assert '"neurofm/pool" = "h100"' in text
    assert '"neurofm/pool" = "cpu"' in text


def evaluated(folder: Path, files: dict[str, str], *assignments: str) -> subprocess.CompletedProcess[str]:
    """A plan of these files in an empty folder: nothing but variables and outputs, so no provider is fetched."""
    for name, text in files.items():
        (folder / name).write_text(text)
    words = [word for assignment in assignments for word in ("-var", assignment)]
    subprocess.run(["terraform", "init", "-backend=false", "-no-color"], cwd=folder, capture_output=True, check=True)
    plan = ["terraform", "plan", "-input=false", "-no-color", "-out=plan", *words]
    return subprocess.run(plan, cwd=folder, capture_output=True, text=True, check=False)


GIVEN = {"coreweave": [], "crusoe": ["project_id=p", "ib_network_id=n", "ssh_key=ssh-ed25519 AAAA"]}


@needs_terraform
@pytest.mark.parametrize(
    ("provider", "assignment", "refused"),
    [
        ("coreweave", "gpu_nodes=1", ""),
        ("crusoe", "gpu_nodes=1", ""),
        ("coreweave", "gpu_nodes=99", "Between 0 and 8"),
        ("coreweave", "gpu_instance_type=gd-8xa100-i128", "H100"),
        ("coreweave", "name=Neuro FM", "lowercase"),
        ("coreweave", "zone=us-east", "US-EAST-04A"),
        ("crusoe", "location=US", "us-east1-a"),
        ("crusoe", "ssh_key=-----BEGIN OPENSSH PRIVATE", "public key"),
        ("crusoe", "kubernetes_version=1.32", "1.32.7-cmk.3"),
    ],
)
def test_variables_are_judged(tmp_path: Path, provider: str, assignment: str, refused: str) -> None:
    files = {"variables.tf": (TERRAFORM / provider / "variables.tf").read_text()}
    ran = evaluated(tmp_path, files, *GIVEN[provider], assignment)
    assert (ran.returncode == 0) == (not refused)
    assert refused in " ".join(ran.stderr.replace("│", " ").split())


@needs_terraform
def test_node_pools_of_coreweave_are_manifests(tmp_path: Path) -> None:
    outputs = (TERRAFORM / "coreweave" / "outputs.tf").read_text()
    files = {name: (TERRAFORM / "coreweave" / name).read_text() for name in ("variables.tf",)}
    ran = evaluated(tmp_path, {**files, "outputs.tf": outputs[outputs.index('output "node_pools"') :]}, "gpu_nodes=2", "spot=false")
    assert ran.returncode == 0, ran.stderr
    shown = subprocess.run(["terraform", "show", "-json", "plan"], cwd=tmp_path, capture_output=True, text=True, check=True)
    pools = list(yaml.safe_load_all(json.loads(shown.stdout)["planned_values"]["outputs"]["node_pools"]["value"]))
    assert [problem for pool in pools for problem in schema_problems(pool, RELEASES[0])] == []
    gpu, cpu = (pool["spec"] for pool in pools)
    assert (gpu["maxNodes"], gpu["computeClass"], gpu["nodeLabels"]) == (2, "default", {"neurofm/pool": "h100"})
    assert cpu["nodeLabels"] == {"neurofm/pool": "cpu"}


@pytest.mark.parametrize(
    ("provider", "file", "right", "wrong", "reported"),
    [
        ("coreweave", "main.tf", "var.zone", "var.zne", "variable zne is used and not declared"),
        ("coreweave", "main.tf", "var.checkpoint_days", "30", "variable checkpoint_days is declared and not used"),
        ("coreweave", "main.tf", "coreweave_networking_vpc.this.id", "coreweave_networking_vpc.ths.id", "coreweave_networking_vpc.ths"),
        ("coreweave", "main.tf", 'status = "Enabled"\n  }', 'status = "Suspended"\n  }', "keeps no versions"),
        ("coreweave", "main.tf", 'sse_algorithm = "AES256"', 'sse_algorithm = "none"', "not encrypted"),
        ("coreweave", "main.tf", "rule {", "rule [", "main.tf"),
        ("coreweave", "versions.tf", '"0.15.0"', '">= 0.15"', "provider coreweave is not pinned"),
        ("coreweave", "versions.tf", "local.s3_endpoint", "local.s3_endpiont", "local s3_endpiont"),
        ("coreweave", "versions.tf", 'provider "coreweave" {}', 'provider "coreweave" {\n  token = "CW-1"\n}', "holds a literal"),
        ("crusoe", "main.tf", "versioning_enabled = true", "versioning_enabled = false", "keeps no versions"),
        ("crusoe", "variables.tf", "description = \"Project", "descripton = \"Project", "unknown descripton"),
        ("crusoe", "variables.tf", 'variable "location"', 'variable "loction"', "variable location is used and not declared"),
        ("crusoe", "outputs.tf", "crusoe_kubernetes_cluster.this", "crusoe_kubernetes_clustr.this", "crusoe_kubernetes_clustr.this"),
    ],
)  # fmt: skip
def test_a_typo_is_reported_in_hcl(tmp_path: Path, provider: str, file: str, right: str, wrong: str, reported: str) -> None:
    shutil.copytree(TERRAFORM / provider, tmp_path / provider)
    path = tmp_path / provider / file
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    assert any(reported in problem for problem in problems(tmp_path / provider))
