"""The release folder of one run: weights, ONNX, scores, card, and a manifest that accounts for every file.

README.md                    the model card
pretrained/                  model.safetensors and model.json
decoders/<name>/             model.safetensors, model.json, decoder.onnx, decoder.json
scores.parquet, comparisons.parquet, card.json
manifest.json                each file's sha256, and the data version of the artifact it came from
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from neurofm_ml.files import file_hash, write_json
from neurofm_ml.presets import BundleConfig
from neurofm_ml.types import Check, Report


def bundle(cfg: BundleConfig, inputs: Mapping[str, Path], out: Path) -> Report:
    """Copy what is released of the artifacts in `inputs`, write the manifest, read everything back against it."""
    pretrained, adapted, onnx, scores, card = (inputs[role] for role in ("pretrained", "adapted", "onnx", "scores", "model_card"))
    sources = {
        "README.md": (card, "card.md"),
        "card.json": (card, "card.json"),
        "scores.parquet": (scores, "scores.parquet"),
        "comparisons.parquet": (scores, "comparisons.parquet"),
        **{f"pretrained/{name}": (pretrained, name) for name in ("model.safetensors", "model.json")},
        **{str(path.relative_to(adapted)): (adapted, str(path.relative_to(adapted))) for path in _models(adapted)},
        **{f"decoders/{path.relative_to(onnx)}": (onnx, str(path.relative_to(onnx))) for path in sorted(onnx.glob("*/decoder.*"))},
    }
    release = out / "release"
    for target, (artifact, name) in sources.items():
        (release / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact / name, release / target)
    files = {
        target: {"sha256": file_hash(release / target), "data_version": _version(artifact)} for target, (artifact, _) in sources.items()
    }
    write_json(release / "manifest.json", {"model": f"neurofmx-{cfg.size}-{cfg.seed}", "files": files})
    damage = find_damage(release)
    whole = Check("manifest_holds", not damage, numbers={"damaged": len(damage)}, threshold="0", note="; ".join(damage))
    megabytes = sum((release / target).stat().st_size for target in files) / 1e6
    metrics = {"files": len(files), "megabytes": round(megabytes, 1)}
    return Report(metrics, (whole,), {"card": "release/README.md", "manifest": "release/manifest.json"})


def find_damage(release: Path) -> list[str]:
    """What is wrong with a release folder by its own manifest: files missing, altered or not accounted for."""
    listed: dict[str, dict[str, str]] = json.loads((release / "manifest.json").read_text())["files"]
    there = {str(p.relative_to(release)) for p in release.rglob("*") if p.is_file()} - {"manifest.json"}
    missing = [f"{name} is missing" for name in sorted(set(listed) - there)]
    extra = [f"{name} is not in the manifest" for name in sorted(there - set(listed))]
    altered = [f"{name} is altered" for name in sorted(there & set(listed)) if file_hash(release / name) != listed[name]["sha256"]]
    return missing + extra + altered


def _models(adapted: Path) -> list[Path]:
    return sorted(p for p in (adapted / "decoders").glob("*/model.*"))


def _version(artifact: Path) -> str:
    return str(json.loads((artifact / "result.json").read_text())["data_version"])
