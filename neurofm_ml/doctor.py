"""``python -m neurofm_ml.doctor``: what is installed, which kernels run, where things live, what is here, what can be reached.

What belongs here: looking. A finding is one line; one with a remedy is something configured that does not work, and
makes the exit code 1. Of passwords and keys only their presence is told. Everything stands on what the environment
says, so the same command answers on a laptop, in a pod and in CI.
"""

import importlib.util
import os
import platform
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path
from typing import Any

import yaml

from neurofm_ml.files import git_revision, home
from neurofm_ml.knowledge import cards, corpora, files, tables
from neurofm_ml.knowledge.roots import Rooted, data_root

#: Where jobs may run, as NEUROFM_ENV has it.
ENVIRONMENTS = ("local", "workstation", "kubernetes")
#: Less free disk than this stops a run in the middle.
LEAST_FREE_GB = 5.0
API_TIMEOUT_S = 3.0
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_LAYOUT: Mapping[str, Any] = {"width": 120, "subsequent_indent": " " * 23, "break_long_words": False, "break_on_hyphens": False}
_CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


@dataclass(frozen=True)
class Finding:
    """One line. `remedy` says what to do where something configured is broken."""

    name: str
    said: str
    remedy: str = ""


def main() -> int:
    """Print every section; 1 when something is broken, else 0."""
    broken = []
    for title, look in SECTIONS.items():
        found = list(look())
        print(f"\n{title}")
        for finding in found:
            print(textwrap.fill(f"{'!' if finding.remedy else ' '} {finding.name:<20} {finding.said}", **_LAYOUT))
        broken += [finding for finding in found if finding.remedy]
    print("\nnothing is broken" if not broken else f"\nbroken: {len(broken)}")
    for finding in broken:
        print(f"! {finding.name}: {finding.said}\n    {finding.remedy}")
    return 1 if broken else 0


# ---------------------------------------------------------------- packages
def packages() -> Iterator[Finding]:
    """Python, the code, what is missing, what differs from the tested set."""
    yield Finding("python", f"{platform.python_version()} ({platform.system()} {platform.machine()})")
    yield Finding("neurofm", f"{_version('neurofm') or 'not installed'}, revision {git_revision()}")
    for name in _required():
        if _version(name) is None:
            yield Finding(name, "is not installed", f"pip install -c constraints.txt {name}, or make setup.")
    if not _CONSTRAINTS.exists():
        yield Finding("tested set", f"not compared: {_CONSTRAINTS} is not here")
        return
    pins, here = _pins(), {_normal(found.name): found.version for found in distributions()}
    other = [f"{name} {here[name]} (tested: {pin})" for name, pin in pins.items() if name in here and here[name].split("+")[0] != pin]
    same = sum(name in here for name in pins) - len(other)
    yield Finding("tested set", f"{same} packages as in constraints.txt, {len(other)} otherwise" + _listed(other))


def _required() -> list[str]:
    """What the package cannot do without, by its own metadata."""
    try:
        asked = requires("neurofm") or []
    except PackageNotFoundError:
        return []
    return [match[0] for line in asked if "extra ==" not in line and (match := re.match(r"[\w.-]+", line))]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _pins() -> dict[str, str]:
    lines = [line.split("==") for line in _CONSTRAINTS.read_text().splitlines() if "==" in line and not line.startswith("#")]
    return {_normal(name): pin.strip() for name, pin in lines}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# ---------------------------------------------------------------- kernels
def kernels() -> Iterator[Finding]:
    """What computes, and by which code."""
    import torch

    cuda = torch.cuda.is_available()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} threads on {os.cpu_count()} cores")
    unused = not cuda and Path("/dev/nvidia0").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
    remedy = (
        "install the build of torch for this driver's CUDA (nvidia-smi shows it), or hide the GPU by CUDA_VISIBLE_DEVICES=."
        if unused
        else ""
    )
    yield Finding(
        "CUDA", f"{torch.version.cuda}: {', '.join(gpus)}" if cuda else f"none{', though a GPU is here' if unused else ''}", remedy
    )
    yield Finding("bf16", "on the GPU" if cuda and torch.cuda.is_bf16_supported() else "on the CPU, emulated: train in 32-true")
    yield _scan(cuda)
    conv = _version("causal_conv1d")
    yield Finding("causal_conv1d", f"{conv}, used inside mamba_ssm" if conv else "not installed: torch's convolution")
    compiler = "triton" if cuda else "c++"
    ready = importlib.util.find_spec("triton") if cuda else shutil.which("c++") or shutil.which("g++")
    yield Finding("torch.compile", f"ready ({compiler})" if ready else f"off: needs {compiler}")


def _scan(cuda: bool) -> Finding:
    """Which form the state-space scan takes."""
    found = _version("mamba_ssm")
    if not found:
        return Finding("mamba_ssm", "not installed: the scan is the chunked one")
    if not cuda:
        return Finding("mamba_ssm", f"{found}, idle without CUDA: the scan is the chunked one")
    try:
        importlib.import_module("mamba_ssm.ops.triton.ssd_combined")
    except Exception as error:  # compiled against another torch, it fails in its own ways
        return Finding("mamba_ssm", f"{found} cannot be imported ({error})", "build it anew for this torch, or uninstall it.")
    return Finding("mamba_ssm", f"{found}: the fused scan")


# ---------------------------------------------------------------- places
def places() -> Iterator[Finding]:
    """Where data, cards, artifacts and Dagster's records live, and how much room there is."""
    given = os.environ.get("NEUROFM_DATA")
    wrong = given and not Path(given).is_dir()
    remedy = "point NEUROFM_DATA at a folder that exists, or unset it." if wrong else ""
    yield Finding("NEUROFM_DATA", f"{given} is no folder" if wrong else given or "not set: no raw files but the simulation", remedy)
    yield Finding("NEUROFM_CARDS", os.environ.get("NEUROFM_CARDS") or "not set: the package's cards alone")
    yield _home()
    artifacts = home() / "artifacts"
    yield Finding("artifacts", f"{artifacts}, {len(list(artifacts.glob('*/*/current.json')))} current")
    yield from _dagster()


def _home() -> Finding:
    place = next(p for p in (home(), *home().parents) if p.exists())
    free = shutil.disk_usage(place).free / 1e9
    said = f"{home()}, {free:.0f} GB free"
    if not (place.is_dir() and os.access(place, os.W_OK)):
        return Finding("NEUROFM_HOME", f"{said}, not writable", "point NEUROFM_HOME at a folder that you may write to.")
    if free < LEAST_FREE_GB:
        return Finding("NEUROFM_HOME", said, f"a run needs {LEAST_FREE_GB:g} GB; make room, or point NEUROFM_HOME at another disk.")
    return Finding("NEUROFM_HOME", said)


def _dagster() -> Iterator[Finding]:
    """Dagster's home, its storage, and the environment that its settings name."""
    folder = Path(os.environ.get("DAGSTER_HOME") or home() / "dagster")
    settings = folder / "dagster.yaml"
    try:
        said = yaml.safe_load(settings.read_text()) or {} if settings.exists() else {}
    except yaml.YAMLError as error:
        yield Finding("Dagster", f"{settings} is no YAML ({error})", "repair it, or copy dagster.yaml of the checkout there.")
        return
    storage = next(iter(said.get("storage", {"SQLite": None})))
    yield Finding("Dagster", f"{folder}, storage {storage}{'' if folder.exists() else ', not made yet'}")
    if unset := sorted({name for name in _environment_of(said) if not os.environ.get(name)}):
        yield Finding("Dagster's settings", f"{settings} asks for {', '.join(unset)}, not set", f"export {' and '.join(unset)}.")


def _environment_of(settings: Any) -> Iterator[str]:
    """Names of the variables that ``{env: NAME}`` stands for, anywhere in the settings."""
    if isinstance(settings, Mapping):
        if set(settings) == {"env"} and isinstance(settings["env"], str):
            yield settings["env"]
        settings = list(settings.values())
    if isinstance(settings, list):
        for part in settings:
            yield from _environment_of(part)


# ---------------------------------------------------------------- data
def data() -> Iterator[Finding]:
    """What is here, what is not and why, and what is wrong with cards."""
    datasets, kinds = cards.datasets(), {"tables": tables.tables(), "corpora": corpora.corpora()}
    yield from _here("datasets", {name: (datasets[name], files.is_here(datasets[name])) for name in datasets})
    yield from _here("tables", {name: (card, bool(tables.table_files(card))) for name, card in _cards(kinds["tables"])})
    yield from _here("corpora", {name: (card, bool(corpora.corpus_files(card))) for name, card in _cards(kinds["corpora"])})
    for mistake in (*cards.mistakes(), *tables.mistakes(), *corpora.mistakes()):
        yield Finding("card", mistake, "correct it; what it describes is left out until then.")


def _cards(registry: Any) -> list[tuple[str, Any]]:
    return [(name, registry[name]) for name in registry]


def _here(kind: str, found: Mapping[str, tuple[Any, bool]]) -> Iterator[Finding]:
    here = sorted(name for name, (_, present) in found.items() if present)
    absent = {name: card for name, (card, present) in sorted(found.items()) if not present}
    yield Finding(kind, f"{len(here)} of {len(found)} are here" + _listed(here))
    fetched = [name for name, card in absent.items() if getattr(card, "archive", None)]
    if fetched:
        yield Finding("", "to fetch by python -m neurofm_ml.data fetch NAME" + _listed(fetched))
    reasons: dict[str, list[str]] = {}
    for name in (name for name in absent if name not in fetched):
        reasons.setdefault(_why_absent(absent[name]), []).append(name)
    for why, names in reasons.items():
        yield Finding("", f"{why}{_listed(names)}")


def _why_absent(card: Rooted) -> str:
    root = data_root(card)
    if root is None:
        return "NEUROFM_DATA is not set"
    return f"no file of the card in {root}" if root.is_dir() else "their folders are not in NEUROFM_DATA"


def _listed(names: Sequence[str]) -> str:
    return f": {', '.join(names)}" if names else ""


# ---------------------------------------------------------------- compute
def compute() -> Iterator[Finding]:
    """Whether the place that NEUROFM_ENV names can be reached, and what a GPU costs there."""
    env = os.environ.get("NEUROFM_ENV", "local")
    if env not in ENVIRONMENTS:
        yield Finding("NEUROFM_ENV", f"{env!r}", f"set it to one of {', '.join(ENVIRONMENTS)}.")
        return
    yield Finding("NEUROFM_ENV", env)
    if env == "kubernetes":
        for name in ("NEUROFM_IMAGE", "NEUROFM_SHARED"):
            given = bool(os.environ.get(name))
            yield Finding(name, "set" if given else "not set", "" if given else f"export {name}; NEUROFM_ENV=kubernetes needs it.")
        yield _kubernetes()
    yield _price()


def _price() -> Finding:
    from neurofm_ml.training.tracking import PRICE, price_per_hour

    try:
        price = price_per_hour()
    except ValueError as error:
        return Finding("GPU price", str(error), f"export {PRICE} as a number, or unset it.")
    return Finding("GPU price", f"{PRICE} is not set" if price is None else f"{price:g} an hour")


def _kubernetes() -> Finding:
    """Whether the API server answers, by the kubeconfig or, in a pod, by its service account."""
    if not importlib.util.find_spec("kubernetes"):
        return Finding("Kubernetes", "its client is not installed", "pip install -c constraints.txt kubernetes.")
    from kubernetes import client, config

    inside = bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
    path = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube/config")
    where = "the pod's service account" if inside else str(path)
    settings = client.Configuration()
    try:
        config.load_incluster_config(settings) if inside else config.load_kube_config(str(path), client_configuration=settings)
    except (config.ConfigException, OSError, yaml.YAMLError) as error:
        return Finding("Kubernetes", f"{where} cannot be used: {error}", "point KUBECONFIG at a readable kubeconfig.")
    settings.retries = 0
    try:
        found = client.VersionApi(client.ApiClient(settings)).get_code(_request_timeout=API_TIMEOUT_S)
    except client.ApiException as error:
        return Finding("Kubernetes", f"{settings.host} answers {error.status} {error.reason}", "renew the credentials of the kubeconfig.")
    except Exception as error:  # urllib3's and TLS's, by way of the client
        said = f"{settings.host} does not answer ({type(error).__name__})"
        return Finding("Kubernetes", said, f"check the network, the VPN and the server that {where} names.")
    return Finding("Kubernetes", f"{settings.host} answers: {found.git_version}, by {where}")


# ---------------------------------------------------------------- services
def services() -> Iterator[Finding]:
    """Object store, database, W&B: whether they are set up, never with what."""
    yield from _settings("NEUROFM_STORE", "AWS_ENDPOINT_URL", "AWS_REGION")
    given = [bool(os.environ.get(name)) for name in _KEYS]
    lacking = not all(given) and (any(given) or bool(os.environ.get("NEUROFM_STORE")))
    said = "set" if all(given) else "half set" if any(given) else "not set"
    yield Finding("S3 keys", said, f"export both {' and '.join(_KEYS)}." if lacking else "")
    yield from _settings("DAGSTER_PG_HOST", "DAGSTER_PG_PASSWORD")
    yield _wandb()


def _settings(*names: str) -> Iterable[Finding]:
    return [Finding(name, "set" if os.environ.get(name) else "not set") for name in names]


def _wandb() -> Finding:
    mode = os.environ.get("WANDB_MODE") or "offline"
    if not os.environ.get("NEUROFM_WANDB_PROJECT"):
        return Finding("W&B", "off: NEUROFM_WANDB_PROJECT is not set")
    if not _version("wandb"):
        return Finding(
            "W&B", "is not installed, so nothing is tracked", "pip install -c constraints.txt wandb, or unset NEUROFM_WANDB_PROJECT."
        )
    signed_in = os.environ.get("WANDB_API_KEY") or (Path.home() / ".netrc").exists()
    if mode == "online" and not signed_in:
        return Finding("W&B", "online without a key", "wandb login, or export WANDB_API_KEY, or unset WANDB_MODE to stay offline.")
    return Finding("W&B", f"{mode}, kept in {os.environ.get('WANDB_DIR') or home()}/wandb")


SECTIONS: Mapping[str, Callable[[], Iterable[Finding]]] = {
    "packages": packages,
    "kernels": kernels,
    "places": places,
    "data": data,
    "compute": compute,
    "services": services,
}

if __name__ == "__main__":
    sys.exit(main())
