"""Patches of parcels at any repetition time, and who a parcel is."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.data.gradients import Gradients
from neurofm_ml.nn.parcels import GradientField, ParcelIdentity, cut, fmri
from neurofm_ml.types import StreamBatch

VOCABULARY = Vocabulary({"fmri": tuple(f"d/s/bold/{i}" for i in range(5))}, ("d/s",), {})


def at(make_stream, *repetition_times: float, n: int = 24) -> StreamBatch:
    """Windows of n volumes, of one repetition time each."""
    dt = torch.tensor(repetition_times)
    stream = make_stream("fmri", batch=len(dt), seconds=2 * n, placed=True)
    return dataclasses.replace(stream, dt=dt, times=torch.arange(n) * dt[:, None], t0=torch.full((len(dt),), 0.5))


def by_hand(values: np.ndarray, size: int, n_samples: int) -> np.ndarray:
    """values (T, C) -> (P, C, S), by repeating every volume so often that each point is a mean of whole copies."""
    whole = values[: len(values) // size * size].reshape(-1, size, values.shape[1])
    return whole.repeat(n_samples, 1).reshape(len(whole), n_samples, size, -1).mean(2).transpose(0, 2, 1)


def test_every_window_is_cut_by_its_own_repetition_time(make_stream):
    stream = at(make_stream, 2.0, 0.8, 1.5, 3.2)
    patches = cut(stream, 8.0, 4)
    for i, size in enumerate((4, 10, 5, 2)):
        expected = by_hand(stream.values[i].numpy(), size, 4)
        n = len(expected)
        np.testing.assert_allclose(patches.values[i, :n].numpy(), expected, atol=1e-5)
        assert patches.mask[i, :n].all()
        assert not patches.mask[i, n:].any()
        assert (patches.values[i, n:] == 0).all()
        step = size * float(stream.dt[i])
        np.testing.assert_allclose(patches.times[i, :n], 0.5 + step * (np.arange(n) + 0.5), rtol=1e-5)


def test_a_patch_with_a_missing_volume_is_none(make_stream):
    stream = at(make_stream, 2.0)
    stream.mask[0, 9] = False
    assert cut(stream, 8.0, 4).mask[0].all(1).tolist() == [True, True, False, True, True, True]


def test_patches_of_no_length_are_volumes(make_stream):
    stream = at(make_stream, 2.0, 0.8)
    assert torch.allclose(cut(stream, 0.0, 1).values[..., 0], stream.values)


@pytest.mark.parametrize("modalities", [("eeg",), ()])
def test_a_batch_without_fmri_is_refused(modalities, make_batch):
    with pytest.raises(ValueError, match=r"the batch holds 0 fMRI signals .* name it in Collate"):
        fmri(make_batch(*modalities))


def test_a_batch_with_two_fmri_signals_is_refused(make_batch):
    batch = make_batch("fmri")
    two = dataclasses.replace(batch, streams={"bold": batch.streams["fmri"], "again": batch.streams["fmri"]})
    with pytest.raises(ValueError, match=r"the batch holds 2 fMRI signals \(bold, again of bold, again\)"):
        fmri(two)


# ---------------------------------------------------------------- identity
@pytest.fixture
def field() -> GradientField:
    rng = np.random.default_rng(0)
    gradients = Gradients(
        rng.uniform(-50, 50, size=(7, 3)).astype(np.float32),
        rng.normal(size=(7, 2)).astype(np.float32),
        {"d/s/bold/1": np.array([3.0, 4.0], np.float32)},
    )
    filled = GradientField(5, 2)
    filled.fill(gradients, VOCABULARY)
    return filled


def test_gradients_come_from_the_reference_nearby_or_by_name(field, make_stream):
    stream = make_stream("fmri", batch=1, channels=4, placed=True)
    positions = torch.cat([field.places[:2], field.places[2:3] + 30, torch.full((1, 3), torch.nan)])[None]
    stream = dataclasses.replace(stream, positions=positions, ids=torch.tensor([[0, 0, 0, 2]]))
    found = field(stream)[0]
    assert torch.allclose(found[:2], field.values[:2], atol=0.05), "at its place, a reference parcel has its own"
    distance = (positions[0, 2] - field.places).square().sum(1)
    weights = torch.exp(-(distance - distance.min()) / 50)
    assert torch.allclose(found[2], (weights[:, None] * field.values).sum(0) / weights.sum(), atol=1e-4)
    assert found[3].tolist() == [3, 4]


def test_gradients_are_loaded_with_the_weights_whatever_their_number(field, make_stream):
    fresh = GradientField(5, 2)
    fresh.load_state_dict(field.state_dict())
    stream = make_stream("fmri", placed=True)
    assert torch.equal(fresh(stream), field(stream))


def test_a_field_without_gradients_refuses_every_parcel(make_stream):
    with pytest.raises(
        ValueError, match=r"5 of 5 fMRI parcels of window 0 are unknown: they have no functional gradients; build the model"
    ):
        GradientField(5, 2)(make_stream("fmri", placed=True))


@pytest.fixture(params=["identity", "gradients"])
def who(request, field):
    torch.manual_seed(0)
    return ParcelIdentity(5, 8) if request.param == "identity" else field


def test_padding_and_order_of_parcels_change_nobody(who, make_stream):
    stream = make_stream("fmri", placed=True)
    padded = dataclasses.replace(
        stream,
        ids=F.pad(stream.ids, (0, 2)),
        positions=F.pad(stream.positions, (0, 0, 0, 2)),
        channel_mask=F.pad(stream.channel_mask, (0, 2)),
    )
    found = who(padded)
    assert torch.allclose(found[:, :5], who(stream), atol=1e-6)
    assert (found[:, 5:] == 0).all()
    turned = dataclasses.replace(stream, positions=stream.positions.flip(1))
    assert torch.allclose(who(turned).flip(1), who(stream), atol=1e-5)


def test_parcels_nobody_knows_are_refused(who, make_stream):
    stream = dataclasses.replace(make_stream("fmri"), ids=torch.tensor([[2, 2, 0, 2, 2]] * 2))
    with pytest.raises(ValueError, match=r"1 of 5 fMRI parcels of window 0 are unknown"):
        who(stream)
    somewhere = torch.where((stream.ids == 0)[..., None], torch.tensor([20.0, -30.0, 10.0]), torch.nan)
    found = who(dataclasses.replace(stream, positions=somewhere))
    assert found.isfinite().all()
    found.sum().backward() if found.requires_grad else None
    assert all(p.grad is None or p.grad.isfinite().all() for p in who.parameters())
