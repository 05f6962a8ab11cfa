"""The import rule: who may import whom, where heavy third parties live, and that the library needs no Dagster."""

import ast
import fnmatch
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(p.relative_to(ROOT) for package in ("neurofm_ml", "neurofm_assets") for p in (ROOT / package).rglob("*.py"))
LIBRARY = [p for p in SOURCES if p.parts[0] == "neurofm_ml"]

#: Lowest first: a module imports from its own layer and those before it.
LAYERS = [
    {"types", "config", "registry", "metrics", "presets", "files", "markdown", "remote", "s3", "artifacts", "gang"},
    {"knowledge"},
    {"data"},
    {"nn"},
    {"tokenizers"},
    {"models", "objectives"},
    {"training"},
    {"evaluation"},
    {"interp", "integration"},
    {"release"},
    {"jobs", "doctor"},
]
SIBLINGS = {"interp": "integration", "integration": "interp"}

#: Third parties that are slow to import, and the files that may do it, inside a function.
HOMES = {
    "av": ["data/readers/media.py"],
    "cebra": ["evaluation/baselines/cebra_baseline.py"],
    "deepspeed": ["training/zero.py"],
    "great_expectations": ["data/schemas.py"],
    "kubernetes": ["compute/*", "doctor.py"],
    "lightning_fabric": ["training/*"],
    "matplotlib": ["*"],
    "mamba_ssm": ["nn/ssm.py"],
    "mne": ["data/readers/*", "data/preprocess/source.py"],
    "nimare": ["data/foci/*"],
    "onnx": ["release/*"],
    "onnxruntime": ["release/*"],
    "peft": ["training/lora.py"],
    "pynwb": ["data/readers/nwb/*"],
    "pyreadr": ["data/readers/rdata.py"],
    "transformers": ["tokenizers/text.py"],
    "ray": ["training/raytune.py"],
    "sklearn": ["evaluation/*", "data/preprocess/artefacts.py"],
    "wandb": ["training/tracking.py"],
}
TORCH_FREE = [
    "artifacts.py",
    "s3.py",
    "types.py",
    "config.py",
    "registry.py",
    "files.py",
    "markdown.py",
    "gang.py",
    "metrics/*",
    "presets/*",
    "jobs/*",
    "knowledge/*",
]
ASSETS_MAY_IMPORT = {
    "artifacts",
    "gang",
    "jobs",
    "presets",
    "config",
    "registry",
    "types",
    "files",
    "knowledge.cards",
    "knowledge.pools",
    "knowledge.claims",
    "knowledge.corpora",
    "knowledge.files",
    "knowledge.roots",
    "knowledge.tables",
}


def imports(path: Path, top: bool = False) -> Iterator[str]:
    """Dotted names imported in a file; with `top`, only those that run when it is imported."""
    todo: list[ast.AST] = [ast.parse((ROOT / path).read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif top and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_type_checking(node)):
            continue
        todo.extend(ast.iter_child_nodes(node))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def layer_of(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.parts != ("neurofm_ml", "__init__.py")], ids=str)
def test_a_layer_imports_only_layers_below(path: Path) -> None:
    own = path.parts[1].removesuffix(".py")
    used = {name.split(".")[1] for name in imports(path) if name.startswith("neurofm_ml.")}
    assert not {name for name in used if layer_of(name) > layer_of(own)}
    assert SIBLINGS.get(own) not in used
    assert not {name for name in imports(path) if name.split(".")[0] in ("dagster", "dagster_pipes", "neurofm_assets")}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_heavy_third_parties_stay_at_home(path: Path) -> None:
    heavy = {name.split(".")[0] for name in imports(path)} & set(HOMES)
    assert not heavy & {name.split(".")[0] for name in imports(path, top=True)}, "import it inside the function that uses it"
    where = Path(*path.parts[1:]).as_posix()
    assert not {name for name in heavy if not any(fnmatch.fnmatch(where, home) for home in HOMES[name])}


@pytest.mark.parametrize("path", LIBRARY, ids=str)
def test_planning_needs_no_torch(path: Path) -> None:
    where = Path(*path.parts[1:]).as_posix()
    if any(fnmatch.fnmatch(where, pattern) for pattern in TORCH_FREE):
        assert "torch" not in {name.split(".")[0] for name in imports(path, top=True)}


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parts[0] == "neurofm_assets"], ids=str)
def test_assets_import_no_model_and_no_torch(path: Path) -> None:
    used = list(imports(path))
    assert "torch" not in {name.split(".")[0] for name in used}
    for name in (n.removeprefix("neurofm_ml.") for n in used if n.startswith("neurofm_ml.")):
        assert name in ASSETS_MAY_IMPORT or name.rpartition(".")[0] in ASSETS_MAY_IMPORT
    if path.name == "worker.py":
        assert {name.split(".")[0] for name in used} - set(sys.stdlib_module_names) == {"dagster_pipes", "neurofm_ml"}


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_every_module_of_the_library_imports_without_dagster() -> None:
    names = [".".join(p.with_suffix("").parts).removesuffix(".__init__") for p in LIBRARY]
    python(f"import sys, importlib; sys.modules['dagster'] = None\nfor name in {names}: importlib.import_module(name)")


def test_definitions_load_without_torch_or_other_heavy_packages() -> None:
    loaded = python("import sys, neurofm_assets.definitions; print(*sys.modules)").split()
    assert not {"torch", "pandas", "scipy", *HOMES} & set(loaded)


def test_the_worker_needs_no_dagster() -> None:
    python("import sys; sys.modules['dagster'] = None; import neurofm_assets.worker")
