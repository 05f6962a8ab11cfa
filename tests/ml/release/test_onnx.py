"""ONNX export: parity at lengths and batches it was not traced at, and a check that can fail."""

import numpy as np
import pytest
import torch

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import OnnxConfig
from neurofm_ml.release.onnx import export
from neurofm_ml.training.decoders import Decoder, DecoderAbout, save_decoder


@pytest.fixture(params=["spikes", "calcium"])
def adapted(request, tmp_path):
    torch.manual_seed(0)
    vocabulary = Vocabulary({request.param: tuple(f"toy/a/x/{i}" for i in range(5))}, ("toy/a",), {"toy/velocity": 2})
    model = NeuroFMx(patch(presets.neurofmx("tiny"), {"d_model": 16, "n_heads": 2, "d_state": 4}), vocabulary).eval()
    about = DecoderAbout(
        name="toy-a-x", dataset="toy", recording="a", signal="x", modality=request.param, dt=0.2, session_row=1,
        ch_names=tuple("abcde"), ids=(1, 2, 3, 4, 5), mean=(1.0,) * 5, std=(0.5,) * 5, tasks=("toy/velocity",),
        target_names=("velocity/x", "velocity/y"), target_mean=(1.0, -2.0), target_std=(10.0, 3.0),
    )  # fmt: skip
    save_decoder(tmp_path / "adapted" / "decoders" / about.name, Decoder(model, about))
    return tmp_path / "adapted"


def test_parity_and_units(adapted, tmp_path):
    import onnxruntime

    report = export(OnnxConfig(), adapted, tmp_path)
    assert report.checks[0].passed, report.checks
    session = onnxruntime.InferenceSession(tmp_path / "toy-a-x" / "decoder.onnx")
    (out,) = session.run(None, {"activity": np.ones((4, 33, 5), np.float32)})
    assert out.shape == (4, 33, 2)
    assert np.abs(out[..., 0].mean()) < 40


def test_a_worse_file_fails_the_blocking_check(adapted, tmp_path):
    check = export(OnnxConfig(tolerance=1e-12), adapted, tmp_path).checks[0]
    assert not check.passed
    assert check.severity == "error"
