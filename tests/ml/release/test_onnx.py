"""ONNX export: parity at lengths and batches it was not traced at, one graph for decoders of different sizes, a check that can fail."""

import numpy as np
import pytest
import torch

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import OnnxConfig
from neurofm_ml.release.onnx import Deployed, export
from neurofm_ml.training.decoders import Decoder, DecoderAbout, save_decoder

#: modality, channels, target columns
CASES = {"a": ("spikes", 5, 2), "b": ("spikes", 7, 3), "c": ("calcium", 4, 1)}


def decoder(name: str, modality: str, channels: int, columns: int) -> Decoder:
    torch.manual_seed(ord(name))
    task = f"toy/{name}"
    vocabulary = Vocabulary({modality: tuple(f"toy/{name}/x/{i}" for i in range(channels))}, (f"toy/{name}",), {task: columns})
    model = NeuroFMx(patch(presets.neurofmx("tiny"), {"d_model": 16, "n_heads": 2, "d_state": 4, "n_layers": 1}), vocabulary).eval()
    about = DecoderAbout(
        name=name, dataset="toy", recording=name, signal="x", modality=modality, dt=0.2, session_row=1,
        ch_names=tuple(map(str, range(channels))), ids=tuple(range(1, channels + 1)), mean=(1.0,) * channels, std=(0.5,) * channels,
        tasks=(task,), target_names=tuple(map(str, range(columns))), target_mean=(1.0,) * columns, target_std=(3.0,) * columns,
    )  # fmt: skip
    return Decoder(model, about)


def of_eeg() -> Decoder:
    return decoder("z", "eeg", 5, 2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("onnx")
    for name, case in CASES.items():
        save_decoder(root / "adapted" / "decoders" / name, decoder(name, *case))
    save_decoder(root / "adapted" / "decoders" / "z", of_eeg())
    return root / "out", export(OnnxConfig(tolerance=1e-12), root / "adapted", root / "out")


def test_parity_of_every_decoder_from_one_graph_a_modality(exported):
    _, report = exported
    assert report.metrics["graphs"] == 2
    assert report.metrics["left_out"] == "z"
    assert set(report.checks[0].numbers) == set(CASES)
    assert max(report.checks[0].numbers.values()) <= 1e-5


def test_a_file_that_differs_more_than_allowed_fails_the_blocking_check(exported):
    check = exported[1].checks[0]
    assert check.severity == "error"
    assert not check.passed


@pytest.mark.parametrize("name", CASES)
def test_any_batch_and_time(exported, name):
    import onnxruntime

    _, channels, columns = CASES[name]
    session = onnxruntime.InferenceSession(exported[0] / name / "decoder.onnx")
    activity = np.random.default_rng(0).poisson(2, (3, 301, channels)).astype(np.float32)
    (found,) = session.run(None, {"activity": activity})
    with torch.no_grad():
        expected = Deployed(decoder(name, *CASES[name])).eval()(torch.from_numpy(activity)).numpy()
    assert found.shape == (3, 301, columns)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_decoder_of_patches_is_refused(tmp_path):
    with pytest.raises(ValueError, match="reads eeg; only populations on the grid"):
        Deployed(of_eeg())
    save_decoder(tmp_path / "decoders" / "z", of_eeg())
    with pytest.raises(ValueError, match="reads spikes or calcium; adapt to a dataset with a task that does"):
        export(OnnxConfig(), tmp_path, tmp_path / "out")
