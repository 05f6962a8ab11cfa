"""Jobs of the release group: what leaves the house.

Imports stand inside: a process that only plans work must not pay for torch.
"""

from pathlib import Path

from neurofm_ml import presets
from neurofm_ml.jobs.spec import Inputs, claims, job
from neurofm_ml.types import Report


@job("export_onnx", presets.OnnxConfig, "1", checks=claims("onnx_matches_torch"))
def export_onnx(cfg: presets.OnnxConfig, inputs: Inputs, out: Path) -> Report:
    """Adapted decoders -> ONNX files, each compared with torch."""
    from neurofm_ml.release.onnx import export

    return export(cfg, inputs["adapted"][0], out)


@job("write_card", presets.CardConfig, "2", checks=claims("every_score_is_shown", warn=("may_be_redistributed",)))
def write_card(cfg: presets.CardConfig, inputs: Inputs, out: Path) -> Report:
    """Scores and provenance -> the model card."""
    from neurofm_ml.release.card import write

    return write(cfg, inputs["scores"][0], inputs["pretrained"][0], inputs["adapted"][0], out)


@job("bundle", presets.BundleConfig, "1", checks=claims("manifest_holds"))
def bundle(cfg: presets.BundleConfig, inputs: Inputs, out: Path) -> Report:
    """Checkpoints, ONNX, scores, card -> one release folder with a manifest."""
    from neurofm_ml.release.bundle import bundle

    return bundle(cfg, {role: paths[0] for role, paths in inputs.items()}, out)
