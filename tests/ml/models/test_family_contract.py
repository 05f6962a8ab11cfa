"""The contract of every family of models, on a simulation that holds whatever the family reads.

Everything a case needs follows from the family's recipe: a new entry of FAMILIES needs nothing here.
"""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from parcel_shards import write
from torch import Tensor

from neurofm_ml.data.batches import Vocabulary, build_vocabulary
from neurofm_ml.data.scaler import Scaler, fit, load_scaler
from neurofm_ml.data.simulate import simulate
from neurofm_ml.knowledge.cards import RecordingSpec, SignalSpec, TaskSpec, datasets
from neurofm_ml.models import MODELS
from neurofm_ml.presets import READ, RECIPES, ScalerConfig
from neurofm_ml.training import pretrain  # noqa: F401 (fills FAMILIES)
from neurofm_ml.training.families import FAMILIES
from neurofm_ml.training.saved import load_model, save_model
from neurofm_ml.types import Batch, Latents, StreamBatch, Subject

#: Hz; 8 where nothing else is said, for few tokens.
RATES = {"spikes": None, "eeg": 64.0, "fmri": 1.0}
#: Fields of a stream whose second axis is time, and channels.
TIMED, CHANNELS = ("values", "mask", "times", "counts"), ("ids", "channel_mask", "positions")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scaler]:
    """Shards of two people, every modality that a model reads seen at once, and their scaler."""
    folder, whole = tmp_path_factory.mktemp("world"), datasets()["simulation"]
    card = dataclasses.replace(
        whole,
        recordings=tuple(RecordingSpec(id=site, subject=Subject(site, site=site)) for site in "ab"),
        signals={m: SignalSpec(modality=m, sfreq=RATES.get(m, 8.0)) for m in READ} | {"behaviour": whole.signals["behaviour"]},
        tasks=(*whole.tasks, TaskSpec(name="where", target="subject.site", inputs=("eeg",), classes=("a", "b"), metric="auroc")),
        window_s=32.0,
        stride_s=8.0,
    )
    shards = write(folder, card, simulate(card, 80.0))
    for modality in (*READ, "pose"):
        (folder / modality).mkdir()
        fit(ScalerConfig(modality=modality), [shards], folder / modality)
    return shards, load_scaler([folder / modality for modality in (*READ, "pose")])


class Case:
    """A family at size tiny, its model, in eval mode, and a batch of three windows."""

    def __init__(self, name: str, shards: Path, scaler: Scaler) -> None:
        self.name, self.family, self.shards, self.scaler = name, FAMILIES[name], [shards], scaler
        cfg = RECIPES[name].preset("tiny", 0)
        self.cfg = dataclasses.replace(cfg, train=dataclasses.replace(cfg.train, batch_size=3))
        self.vocabulary = build_vocabulary(self.shards)
        self.model = self.built(self.vocabulary)
        self.batch: Batch = next(iter(self.family.read(self.cfg, self.vocabulary, self.shards, scaler)))

    def built(self, vocabulary: Vocabulary) -> Any:
        return self.family.build(self.cfg, vocabulary, self.shards, self.scaler).eval()

    @torch.no_grad()
    def encoded(self, batch: Batch) -> Latents:
        found: Latents = self.model.encode(batch)
        return found

    def loss(self, seed: int, device: str = "cpu") -> Tensor:
        self.model.zero_grad()
        torch.manual_seed(seed)
        generator = torch.Generator(device).manual_seed(seed)
        total: Tensor = self.family.loss(self.cfg)(self.model.to(device), self.batch.to(device), generator, 0.5)[0]
        return total


@pytest.fixture(scope="module", params=list(MODELS))
def case(request: pytest.FixtureRequest, world: tuple[Path, Scaler]) -> Case:
    return Case(request.param, *world)


def changed(batch: Batch, change: Any) -> Batch:
    """The batch with ``change(stream)`` in the place of every stream."""
    return dataclasses.replace(batch, streams={name: change(stream) for name, stream in batch.streams.items()})


def rows(batch: Batch, index: Tensor) -> Batch:
    def taken(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: taken(value) for key, value in item.items()}
        if isinstance(item, StreamBatch):
            return dataclasses.replace(item, **{f.name: taken(getattr(item, f.name)) for f in dataclasses.fields(item)})
        return item[index] if isinstance(item, Tensor) else item

    return Batch(**{f.name: taken(getattr(batch, f.name)) for f in dataclasses.fields(batch)})


def assert_alike(found: Latents, expected: Latents) -> None:
    """Equal where something is, and nothing where nothing is; `found` may go on for longer."""
    n = expected.mask.shape[1]
    assert expected.mask.any()
    assert torch.equal(found.mask[:, :n], expected.mask)
    assert not found.mask[:, n:].any()
    assert torch.allclose(found.times[:, :n], expected.times, atol=1e-5)
    assert torch.allclose(found.values[:, :n][expected.mask], expected.values[expected.mask], atol=2e-4)


def test_every_model_has_a_family_and_every_family_a_recipe():
    assert set(MODELS) == set(FAMILIES) == set(RECIPES)
    assert all(RECIPES[name].modalities == FAMILIES[name].modalities for name in FAMILIES)


def test_one_latent_of_the_models_width_at_each_time(case):
    found = case.encoded(case.batch)
    assert found.values.shape == (*found.times.shape, case.model.cfg.d_model) == (*found.mask.shape, case.model.cfg.d_model)
    assert found.values.dtype == torch.float32
    assert found.values.isfinite().all()
    assert (found.times.diff(dim=1) > 0).all()
    spread = found.values[found.mask].std(0)
    assert (spread > 0).all(), "every dimension says something"


def test_windows_do_not_know_of_each_other(case):
    whole = case.encoded(case.batch)
    for index in (torch.tensor([2, 0, 1]), torch.tensor([1])):
        found = case.encoded(rows(case.batch, index))
        assert_alike(found, Latents(whole.values[index], whole.times[index], whole.mask[index]))


def test_padding_changes_nothing(case):
    def padded(s: StreamBatch) -> StreamBatch:
        size = {"B": len(s.ids), "T": s.mask.shape[1], "C": s.ids.shape[1]}
        wider: dict[str, Any] = {}
        for name in (*TIMED, *CHANNELS):
            value = getattr(s, name)
            if value is not None:
                longer = size["T"] + 70 if name in TIMED else size["C"] + 3
                more = value.new_zeros(size["B"], longer, *([size["C"] + 3] if name in ("values", "counts") else value.shape[2:]))
                more[tuple(slice(n) for n in value.shape)] = value
                wider[name] = more
        times = s.t0[:, None] + torch.arange(size["T"] + 70) * s.dt[:, None]
        return dataclasses.replace(s, **{**wider, "times": times})

    assert_alike(case.encoded(changed(case.batch, padded)), case.encoded(case.batch))


def test_channels_may_come_in_any_order(case):
    def shuffled(s: StreamBatch) -> StreamBatch:
        order = torch.randperm(s.ids.shape[1], generator=torch.Generator().manual_seed(0))
        moved = {name: getattr(s, name)[:, order] for name in CHANNELS if getattr(s, name) is not None}
        last = {name: getattr(s, name)[..., order] for name in ("values", "counts") if getattr(s, name) is not None}
        return dataclasses.replace(s, **moved, **last)

    assert_alike(case.encoded(changed(case.batch, shuffled)), case.encoded(case.batch))


def test_any_signal_that_a_family_reads_is_enough(case):
    for name, stream in case.batch.streams.items():
        found = case.encoded(dataclasses.replace(case.batch, streams={name: stream}))
        assert found.values.isfinite().all(), name
        assert found.mask.any(1).all(), name
        other = dataclasses.replace(stream, values=stream.values.flip(1))
        assert not torch.allclose(case.encoded(dataclasses.replace(case.batch, streams={name: other})).values, found.values, atol=1e-3), (
            name
        )


def test_a_window_in_which_nothing_was_measured_has_no_latents_and_is_no_trouble(case):
    here = torch.tensor([True, False, True])

    def absent(s: StreamBatch) -> StreamBatch:
        values = {name: getattr(s, name) * here[:, None, None] for name in ("values", "counts") if getattr(s, name) is not None}
        masks = {name: getattr(s, name) & here[:, None] for name in ("mask", "channel_mask")}
        return dataclasses.replace(s, ids=s.ids * here[:, None], **values, **masks)

    found, whole = case.encoded(changed(case.batch, absent)), case.encoded(case.batch)
    assert found.values.isfinite().all()
    assert not found.mask[1].any()
    assert torch.equal(found.mask[here], whole.mask[here])
    assert torch.allclose(found.values[here], whole.values[here], atol=2e-4)


def test_what_was_saved_comes_back(case, tmp_path):
    save_model(tmp_path, case.model)
    back = load_model(tmp_path)
    assert type(back) is type(case.model)
    assert (back.cfg, back.vocabulary, back.n_parameters()) == (case.model.cfg, case.model.vocabulary, case.model.n_parameters())
    with torch.no_grad():
        assert torch.equal(back.encode(case.batch).values, case.encoded(case.batch).values)


def test_parameters_are_counted_without_what_belongs_to_one_session(case):
    other = Vocabulary(
        {m: tuple(f"other/a/{m}/{i}" for i in range(9)) for m in case.family.modalities},
        ("other/a",),
        {"other/task": 2},
        {"other/who": ("a", "b")},
    )
    wider = MODELS[case.name](case.cfg.model, case.vocabulary.union(other))
    assert 0 < case.model.n_parameters() == wider.n_parameters() <= sum(p.numel() for p in case.model.parameters())


def test_the_loss_is_a_function_of_the_generator_and_its_gradients_are_finite(case):
    case.model.train()
    first, again, other = case.loss(0), case.loss(0), case.loss(1)
    case.model.eval()
    assert first.item() == again.item() != other.item()
    again.backward()
    gradients = [p.grad for p in case.model.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() for g in gradients)


def test_bfloat16_is_close(case):
    """As `TrainConfig.precision` "bf16-mixed" runs it: nothing but matrix products loses digits."""
    case.model.train()
    expected = case.loss(0)
    with torch.autocast("cpu", torch.bfloat16):
        total = case.loss(0)
    total.backward()
    case.model.eval()
    assert total.item() == pytest.approx(expected.item(), rel=0.02, abs=0.02)
    assert all(p.grad.isfinite().all() for p in case.model.parameters() if p.grad is not None)
    whole = case.encoded(case.batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = case.encoded(case.batch)
    assert (found.values.float() - whole.values)[whole.mask].norm() < 0.02 * whole.values[whole.mask].norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_device_agrees(case):
    expected = case.encoded(case.batch)
    try:
        found = case.model.to("cuda").encode(case.batch.to("cuda"))
        total = case.loss(0, "cuda")
        total.backward()
    finally:
        case.model.cpu()
    assert total.isfinite()
    assert (found.values.detach().cpu() - expected.values)[expected.mask].norm() < 0.01 * expected.values[expected.mask].norm()
