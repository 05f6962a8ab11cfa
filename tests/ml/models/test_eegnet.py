"""EEGNet: equal to the published network, with its count of parameters; any cap, any rate; padding; what it learns."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm_ml import presets
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models import EEGNet
from neurofm_ml.models.eegnet import MaskedBatchNorm, in_stretches, limited
from neurofm_ml.training.eegnet import build, cross_entropy
from neurofm_ml.types import Batch, StreamBatch

CAP = Vocabulary({"eeg": tuple(f"cap/a/eeg/{i}" for i in range(64))}, ("cap/a",), {}, {"cap/side": ("left", "right")})


def stream(values: Tensor, sfreq: float = 128.0, first: int = 1) -> StreamBatch:
    b, n, c = values.shape
    return StreamBatch(
        modality="eeg",
        values=values,
        mask=torch.ones(b, n, dtype=torch.bool),
        times=(torch.arange(n) / sfreq).expand(b, -1),
        t0=torch.zeros(b),
        dt=torch.full((b,), 1 / sfreq),
        ids=torch.arange(first, first + c).expand(b, -1),
        channel_mask=torch.ones(b, c, dtype=torch.bool),
    )


def batch_of(values: Tensor, labels: Tensor | None = None, **options: float) -> Batch:
    b = len(values)
    labels = torch.zeros(b, dtype=torch.long) if labels is None else labels
    ones = torch.ones(b, 1)
    return Batch({"eeg": stream(values, **options)}, ones, ones[:, 0], ones > 0, torch.ones(b, dtype=torch.long), torch.arange(b),
                 torch.zeros(b), labels={"cap/side": labels})  # fmt: skip


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model() -> EEGNet:
    torch.manual_seed(0)
    return EEGNet(presets.eegnet("tiny"), CAP).eval()


class Published(nn.Module):
    """EEGNet-8,2 for 64 channels and 128 samples, layer by layer as in Table 2 of Lawhern et al. 2018."""

    def __init__(self, n_classes: int = 2) -> None:
        super().__init__()
        self.temporal = nn.Conv2d(1, 8, (1, 64), bias=False)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(8), nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.spatial = nn.Conv2d(8, 16, (64, 1), groups=8, bias=False)
        self.depthwise = nn.Conv2d(16, 16, (1, 16), groups=16, bias=False)
        self.pointwise = nn.Conv2d(16, 16, 1, bias=False)
        self.dense = nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.temporal(F.pad(x.mT[:, None], (31, 32))))
        x = F.avg_pool2d(F.elu(self.norm2(self.spatial(x))), (1, 4))
        x = F.elu(self.norm3(self.pointwise(self.depthwise(F.pad(x, (7, 8))))))
        return self.dense(F.avg_pool2d(x, (1, 8)).flatten(1))


def published(ours: EEGNet) -> Published:
    """The published network with our weights, where none is longer than its largest norm."""
    twin = Published()
    readout = ours.readouts["cap/side"]
    with torch.no_grad():
        twin.temporal.weight.copy_(ours.temporal.weight[:, :, None])
        twin.spatial.weight.copy_(limited(ours.spatial.table.weight[1:], 1.0, 0).T[:, None, :, None])
        twin.depthwise.weight.copy_(ours.separable[0].weight[:, :, None])
        twin.pointwise.weight.copy_(ours.separable[1].weight[..., None])
        twin.dense.weight.copy_(limited(readout.weight, 0.25, 1))
        twin.dense.bias.copy_(readout.bias)
        for own, norm in zip(
            (ours.temporal_norm, ours.spatial_norm, ours.separable_norm), (twin.norm1, twin.norm2, twin.norm3), strict=True
        ):
            norm.load_state_dict(own.state_dict())
    return twin.train(ours.training)


@pytest.mark.parametrize("training", [False, True])
def test_it_is_the_published_network(training):
    torch.manual_seed(0)
    ours = EEGNet(dataclasses.replace(presets.eegnet("tiny"), dropout=0.0), CAP).train(training)
    twin = published(ours)
    for seed in range(2):  # running statistics of the first batch count in the second
        x = noise(6, 128, 64, seed=seed)
        assert torch.allclose(ours(batch_of(x))["cap/side"], twin(x), atol=1e-5)
    assert torch.allclose(ours.separable_norm.running_var, twin.norm3.running_var, atol=1e-5)


def test_published_count_of_parameters(model):
    """2,258 for C = 64, T = 128, two classes (their Table 3, P300); we keep a row for unknown electrodes and a network for placed ones."""
    assert sum(p.numel() for p in Published().parameters()) == 2258
    place, nobody = sum(p.numel() for p in model.spatial.place.parameters()), 16
    assert sum(p.numel() for p in model.parameters()) - place - nobody == 2258


def test_latents_lie_a_quarter_of_a_second_apart(model):
    found = model.encode(batch_of(noise(2, 512, 64), sfreq=256.0))
    assert found.values.shape == (2, 8, 16)
    assert torch.allclose(found.times[0], torch.arange(8) / 4 + 0.125)
    assert found.mask.all()


@pytest.mark.parametrize("sfreq", [128.0, 200.0, 256.0])
def test_padding_changes_nothing(model, sfreq):
    n = round(sfreq)
    whole = batch_of(noise(2, n, 20), sfreq=sfreq)
    padded = batch_of(F.pad(noise(2, n, 20), (0, 4, 0, 77), value=5.0), sfreq=sfreq)
    s = padded.streams["eeg"]
    s = dataclasses.replace(s, mask=s.mask & (torch.arange(n + 77) < n), channel_mask=s.channel_mask & (torch.arange(24) < 20))
    padded = dataclasses.replace(padded, streams={"eeg": s})
    for training in (False, True):
        model.train(training).dropout.p = 0.0
        assert torch.allclose(model(whole)["cap/side"], model(padded)["cap/side"], atol=1e-4)


def test_statistics_are_those_of_valid_entries():
    x, valid = noise(3, 4, 10), torch.arange(10) < torch.tensor([10, 4, 1])[:, None]
    x[~valid[:, None].expand_as(x)] = 1e6
    norm = MaskedBatchNorm(4)
    out = norm(x, valid[:, None])
    kept = torch.cat([x[k][:, valid[k]] for k in range(3)], 1)
    assert torch.allclose(norm.running_mean, 0.1 * kept.mean(1), atol=1e-5)
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * kept.var(1), atol=1e-5)
    assert torch.allclose(torch.cat([out[k][:, valid[k]] for k in range(3)], 1).mean(1), torch.zeros(4), atol=1e-5)
    assert not out[~valid[:, None].expand_as(out)].any()


@pytest.mark.parametrize("n", [1, 3, 4, 7, 8, 12])
def test_stretches_against_a_loop(n):
    values, mask = noise(1, 12, 2), torch.arange(12)[None] < n
    expected = torch.stack([values[0, k * n // 4 : math.ceil((k + 1) * n / 4)].mean(0) for k in range(4)])
    assert torch.allclose(in_stretches(values, mask, 4)[0], expected, atol=1e-6)


def test_electrodes_may_come_in_any_order_and_are_not_alike(model):
    batch = batch_of(noise(2, 128, 64))
    s, order = batch.streams["eeg"], torch.randperm(64, generator=torch.Generator().manual_seed(0))
    moved = dataclasses.replace(s, values=s.values[..., order], ids=s.ids[:, order])
    swapped = dataclasses.replace(s, values=s.values[..., order])
    expected = model(batch)["cap/side"]
    assert torch.allclose(model(dataclasses.replace(batch, streams={"eeg": moved}))["cap/side"], expected, atol=1e-5)
    assert not torch.allclose(model(dataclasses.replace(batch, streams={"eeg": swapped}))["cap/side"], expected, atol=1e-3)


def test_a_cap_with_places_needs_no_rows(make_batch, vocabulary):
    model = EEGNet(presets.eegnet("tiny"), vocabulary).eval()
    batch = make_batch("eeg")
    assert (batch.streams["eeg"].ids == 0).all()
    assert model(batch)["toy/choice"].shape == (2, 2)
    lost = dataclasses.replace(batch.streams["eeg"], positions=None)
    with pytest.raises(ValueError, match="5 of 5 eeg channels of window 0 are not in the model's vocabulary"):
        model(dataclasses.replace(batch, streams={"eeg": lost}))


def test_eval_mode_is_deterministic(model):
    batch = batch_of(noise(2, 128, 64))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = model(batch)["cap/side"], model(batch)["cap/side"]
    assert torch.equal(first, second)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_unknown_labels_teach_nothing(model):
    x = noise(4, 128, 64)
    some, none = batch_of(x, torch.tensor([1, -1, 0, -1])), batch_of(x, torch.full((4,), -1))
    total, parts = cross_entropy(model, some, torch.Generator(), 0.0)
    logits = model(some)["cap/side"]
    assert torch.allclose(total, (F.cross_entropy(logits[:1], torch.tensor([1])) + F.cross_entropy(logits[2:3], torch.tensor([0]))) / 2)
    assert parts.keys() == {"cap/side"}
    total, _ = cross_entropy(model, none, torch.Generator(), 0.0)
    total.backward()
    assert total.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_datasets_without_classes_are_refused():
    vocabulary = Vocabulary({}, ("bare/a", "plain/b"), {}, {"bare/age": ()})
    with pytest.raises(ValueError, match="learns from labels of windows, and bare, plain has none: give a card a task with classes"):
        build(presets.eegnet_pretrain("tiny"), vocabulary, [], None)  # type: ignore[arg-type]


def test_it_tells_rhythms_apart():
    """10 Hz on the left of the cap, or on the right, in noise three times as strong."""
    torch.manual_seed(0)
    model = EEGNet(presets.eegnet("tiny"), CAP)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)

    def draw(n: int, seed: int) -> Batch:
        side = torch.randint(0, 2, (n,), generator=torch.Generator().manual_seed(seed))
        phase = 6.28 * torch.rand(n, generator=torch.Generator().manual_seed(seed))
        wave = torch.sin(2 * math.pi * 10 * torch.arange(128) / 128 + phase[:, None])
        where = torch.stack([torch.arange(16) < 8, torch.arange(16) >= 8])[side].float()
        return batch_of(noise(n, 128, 16, seed=seed) * 1.5 + wave[:, :, None] * where[:, None], side)

    for step in range(60):
        total, _ = cross_entropy(model, draw(16, step), torch.Generator(), 0.0)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    held_out = draw(100, 1000)
    guess = model.eval()(held_out)["cap/side"].argmax(1)
    assert (guess == held_out.labels["cap/side"]).float().mean() > 0.9
