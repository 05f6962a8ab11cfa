"""Checkpoints that are whole or refused, and the files that finished weights are kept in.

    checkpoints/step-000100/
        weights.safetensors  ema.safetensors  optimizer.safetensors
        state.json           data cursor, config and seed, provenance, seconds so far
        manifest.json        size and sha256 of each file, written last

A checkpoint is written beside its place and renamed into it, so a process killed at any moment
leaves the old ones as they were. No file is unpickled. The learning rate and all randomness are
pure functions of the step and the seed (see ``schedule`` and ``loop``), so the step stands for them.
Tensors are whole (see ``sharding``): a run of two processes goes on with one that accumulates twice as much.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from neurofm_ml.config import to_dict
from neurofm_ml.files import sha256, write_json
from neurofm_ml.presets import TrainConfig

log = logging.getLogger(__name__)

TENSORS = ("weights", "ema", "optimizer")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Training after `step` updates: three sets of named tensors and `state`, which is plain JSON."""

    step: int
    weights: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `checkpoint` under `folder` in one atomic step, then drop all but the `keep` newest."""
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    final = folder / f"step-{checkpoint.step:06d}"
    partial = folder / f".{final.name}.part"
    partial.mkdir()
    for name in TENSORS:
        _save_tensors(partial / f"{name}.safetensors", getattr(checkpoint, name))
    write_json(partial / "state.json", {"step": checkpoint.step, **checkpoint.state})
    files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in sorted(partial.iterdir())}
    write_json(partial / "manifest.json", {"schema_version": 1, "files": files})
    _fsync(partial)
    if final.exists():
        _discard(final)
    partial.rename(final)
    _fsync(folder)
    for old in checkpoint_folders(folder)[:-keep]:
        _discard(old)
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint folder. Raises ValueError naming the file that is missing, cut short or altered."""
    _verify(path)
    state = json.loads((path / "state.json").read_text())
    weights, ema, optimizer = (load_file(path / f"{name}.safetensors") for name in TENSORS)
    return Checkpoint(state.pop("step"), weights, ema, optimizer, state)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest sound checkpoint under `folder`; damaged ones are logged and passed over."""
    for path in reversed(checkpoint_folders(folder)):
        try:
            return load_checkpoint(path)
        except ValueError as error:
            log.warning("%s Going back to the checkpoint before it.", error)
    return None


def checkpoint_folders(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted(folder.glob("step-*"), key=lambda p: int(p.name.removeprefix("step-")))


def identity(cfg: TrainConfig, seed: int, world: int) -> dict[str, Any]:
    """What makes a run that run. How its micro-batches are laid out on `world` processes does not."""
    layout = ("strategy", "fsdp", "deepspeed", "activation_checkpointing", "compile", "accumulate", "keep")
    kept = {name: value for name, value in to_dict(cfg).items() if name not in layout}
    return {"seed": seed, **kept, "accumulate x processes": cfg.accumulate * world}


def refuse_other_run(checkpoint: Checkpoint, own: Mapping[str, Any], out: Path) -> None:
    """Raise ValueError listing everything this run has otherwise than the checkpoint it would resume."""
    was = checkpoint.state["config"]
    changed = [f"{name} was {was.get(name)!r}, is {value!r}" for name, value in own.items() if was.get(name) != value]
    if changed:
        raise ValueError(
            f"{out} holds a checkpoint of another run ({'; '.join(changed)}); choose another folder or delete its checkpoints."
        )


def save_weights(folder: Path, weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Finished weights: ``model.safetensors``, and ``model.json`` with `description` (family, config, vocabulary...).

    ``model.json`` comes last and names the sha256 of the weights, so half a pair is never taken for one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".model.safetensors.part"
    _save_tensors(partial, weights)
    digest = sha256(partial)
    partial.replace(folder / "model.safetensors")
    write_json(folder / "model.json", {**description, "weights_sha256": digest})


def load_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights and the description that `save_weights` wrote. Raises ValueError when they do not belong together."""
    description = _read_json(folder / "model.json", "no finished model is here; run the job that makes it")
    path = folder / "model.safetensors"
    if not path.exists() or sha256(path) != description.pop("weights_sha256", None):
        raise ValueError(f"{path} is missing, cut short or altered: it is not what model.json describes; make the artifact again.")
    return load_file(path), description


def _verify(path: Path) -> None:
    manifest = _read_json(path / "manifest.json", "the checkpoint is incomplete")
    expected = {*(f"{name}.safetensors" for name in TENSORS), "state.json"}
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) != expected or not all(isinstance(entry, dict) for entry in files.values()):
        raise ValueError(f"Checkpoint refused: {path / 'manifest.json'} does not list {', '.join(sorted(expected))}.")
    for name, entry in files.items():
        file = path / name
        size = file.stat().st_size if file.exists() else 0
        if size != entry.get("bytes"):
            raise ValueError(f"Checkpoint refused: {file} has {size} bytes where its manifest says {entry.get('bytes')}; it was cut short.")
        if sha256(file) != entry.get("sha256"):
            raise ValueError(f"Checkpoint refused: {file} does not have the sha256 of its manifest; it was altered.")


def _read_json(path: Path, when_missing: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: {when_missing}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): it was cut short or altered.") from None
    return found if isinstance(found, dict) else {}


def _sweep(folder: Path) -> None:
    """Remove what a killed process was writing or deleting."""
    for left in folder.glob(".step-*"):
        shutil.rmtree(left)


def _discard(path: Path) -> None:
    """Delete a folder so that a half-deleted one never stands under a checkpoint's name."""
    doomed = path.with_name(f".{path.name}.old")
    path.rename(doomed)
    shutil.rmtree(doomed)


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Copies, on the CPU: safetensors refuses tied weights that share memory."""
    save_file({name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}, path)
    _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
