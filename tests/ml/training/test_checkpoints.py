"""Checkpoints: whole or refused, by name, whatever was done to them."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from neurofm_ml.training.checkpoints import Checkpoint, latest_checkpoint, load_checkpoint, load_weights, save_checkpoint, save_weights


def checkpoint(step: int) -> Checkpoint:
    weight = torch.full((3, 4), float(step))
    return Checkpoint(
        step, {"a": weight, "tied": weight}, {"a": weight / 2, "n": torch.tensor(step)}, {"a|step": torch.tensor(1.5)}, {"seed": 7}
    )


def same(one: object, other: object) -> bool:
    return {k: v.tolist() for k, v in dict(one).items()} == {k: v.tolist() for k, v in dict(other).items()}  # type: ignore[call-overload]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = checkpoint(100)
    path = save_checkpoint(tmp_path, saved, keep=1)
    loaded = load_checkpoint(path)
    assert path.name == "step-000100"
    assert (loaded.step, loaded.state) == (100, {"seed": 7})
    for name in ("weights", "ema", "optimizer"):
        assert same(getattr(loaded, name), getattr(saved, name))


def test_the_newest_are_kept_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in (999_998, 999_999, 1_000_000):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert {p.name for p in tmp_path.iterdir()} == {"step-999999", "step-1000000"}
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1_000_000


def test_nothing_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "absent") is None


def test_what_a_killed_process_left_is_ignored_and_swept(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=2)
    for left in (".step-000002.part", ".step-000000.old"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "weights.safetensors").write_bytes(b"half")
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    save_checkpoint(tmp_path, checkpoint(2), keep=2)
    assert {p.name for p in tmp_path.iterdir()} == {"step-000001", "step-000002"}


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


FILES = ("weights.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json")
DAMAGE: list[tuple[str, Callable[[Path], None], str]] = [
    *((name, cut, f"{name} has .* bytes where its manifest says .*cut short") for name in FILES),
    *((name, flip, f"{name} does not have the sha256 of its manifest; it was altered") for name in FILES),
    *((name, Path.unlink, f"{name} has 0 bytes") for name in FILES),
    ("manifest.json", cut, "manifest.json is not valid JSON .*cut short or altered"),
    ("manifest.json", Path.unlink, "manifest.json does not exist: the checkpoint is incomplete"),
    *(
        ("manifest.json", functools.partial(Path.write_text, data=content), "manifest.json does not list ema.safetensors, ")
        for content in ('{"files": {}}', "[]", "3", '{"files": 3}', json.dumps({"files": dict.fromkeys(FILES, 3)}))
    ),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE)
def test_a_damaged_checkpoint_is_refused_and_the_previous_one_used(
    name: str, damage: Callable[[Path], None], message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=3)
    newest = save_checkpoint(tmp_path, checkpoint(2), keep=3)
    damage(newest / name)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(newest)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    assert str(newest / name) in caplog.text
    save_checkpoint(tmp_path, checkpoint(2), keep=3)
    assert same(load_checkpoint(newest).weights, checkpoint(2).weights)


def refused(path: Path, file: Path, content: bytes) -> bool:
    """Whether a checkpoint is refused with other `content` of one of its files; what is not refused must be what was saved."""
    file.write_bytes(content)
    try:
        loaded = load_checkpoint(path)
    except ValueError:
        return True
    assert all(same(getattr(loaded, name), getattr(checkpoint(1), name)) for name in ("weights", "ema", "optimizer"))
    assert (loaded.step, loaded.state) == (1, {"seed": 7})
    return False


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_any_flipped_byte_and_any_cut_is_refused_or_changes_nothing(name: str, tmp_path: Path) -> None:
    """Every byte: the lengths, names, shapes and values of tensors, the words of the JSON."""
    path = save_checkpoint(tmp_path, checkpoint(1), keep=1)
    file = path / name
    content = file.read_bytes()
    flips = [refused(path, file, content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :]) for i in range(len(content))]
    cuts = [refused(path, file, content[:i]) for i in range(len(content))]
    # White space and the schema version of the manifest carry nothing.
    assert all([*flips, *cuts]) if name != "manifest.json" else sum(flips) > 0.8 * len(flips) and sum(cuts) > 0.99 * len(cuts)
    file.write_bytes(content)
    assert not refused(path, file, content)


# ---------------------------------------------------------------- finished weights
WEIGHTS = {"layer.weight": torch.arange(6.0).reshape(2, 3)}
DESCRIPTION = {"family": "toy", "config": {"d_model": 4}, "vocabulary": ["a", "b"]}


def test_finished_weights_come_back_with_their_description(tmp_path: Path) -> None:
    save_weights(tmp_path / "new", WEIGHTS, DESCRIPTION)
    weights, description = load_weights(tmp_path / "new")
    assert same(weights, WEIGHTS)
    assert description == DESCRIPTION
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"model.safetensors", "model.json"}


def _newer(path: Path) -> None:
    """Weights of a later save whose model.json was never written."""
    other = path.parent / "other"
    save_weights(other, {"layer.weight": torch.zeros(2, 3)}, DESCRIPTION)
    (other / "model.safetensors").replace(path)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", cut, "model.safetensors is missing, cut short or altered"),
        ("model.safetensors", flip, "model.safetensors is missing, cut short or altered"),
        ("model.safetensors", Path.unlink, "model.safetensors is missing, cut short or altered"),
        ("model.safetensors", _newer, "model.safetensors is missing, cut short or altered"),
        ("model.json", cut, "model.json is not valid JSON"),
        ("model.json", Path.unlink, "model.json does not exist: no finished model is here"),
    ],
)
def test_half_a_model_is_refused(name: str, damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    save_weights(tmp_path, WEIGHTS, DESCRIPTION)
    damage(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        load_weights(tmp_path)


def test_tensors_of_any_kind_keep_kind_and_value(tmp_path: Path) -> None:
    kinds: dict[str, Tensor] = {
        "bfloat16": torch.ones(2, dtype=torch.bfloat16),
        "int64": torch.tensor([1, 2]),
        "bool": torch.tensor([True]),
        "scalar": torch.tensor(2.5),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
    }
    save_weights(tmp_path, kinds, {})
    weights, _ = load_weights(tmp_path)
    assert same(weights, kinds)
    assert {k: v.dtype for k, v in weights.items()} == {k: v.dtype for k, v in kinds.items()}
    assert json.loads((tmp_path / "model.json").read_text()).keys() == {"weights_sha256"}
