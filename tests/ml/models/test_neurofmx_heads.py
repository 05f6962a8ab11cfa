"""Every head of NeuroFMx: shape, gradient, what it may not see, what it does without."""

import dataclasses

import pytest
import torch

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models import NeuroFMx
from neurofm_ml.models.neurofmx import HEADS
from neurofm_ml.types import Batch, StreamBatch

HORIZONS = presets.neurofmx("tiny").horizons_s
FROM = torch.tensor([6.0, 7.3])


@pytest.fixture
def wide(vocabulary) -> Vocabulary:
    """With behaviour, stimulus, and domains to tell apart."""
    return dataclasses.replace(
        vocabulary,
        channels={**vocabulary.channels, "pose": tuple(f"toy/a/pose/{i}" for i in range(5))},
        modalities=(*vocabulary.modalities, "pose", "language"),
        domains={"species": ("rat", "ape"), "subject": ("a", "b", "c")},
    )


def build(vocabulary: Vocabulary, **changes) -> NeuroFMx:
    torch.manual_seed(0)
    return NeuroFMx(
        patch(presets.neurofmx("tiny"), {"d_model": 16, "n_heads": 2, "d_state": 4, "d_shared": 8, **changes}), vocabulary
    ).eval()


def words(batch: int = 2) -> StreamBatch:
    """Three words in the first window, one in the second."""
    mask = torch.tensor([[True, True, True], [True, False, False]])[:batch]
    return StreamBatch(
        modality="language",
        values=0.2 * mask[..., None],
        mask=mask,
        times=torch.tensor([[1.0, 4.0, 9.0], [3.0, 3.0, 3.0]])[:batch],
        t0=torch.zeros(batch),
        dt=torch.full((batch,), torch.nan),
        ids=torch.zeros(batch, 1, dtype=torch.long),
        channel_mask=torch.ones(batch, 1, dtype=torch.bool),
        labels=(("one", "two", "three"), ("one",))[:batch],
    )


@pytest.fixture
def batch(make_batch, make_stream) -> Batch:
    made = make_batch("spikes", "eeg", "fmri")
    pose = dataclasses.replace(make_stream("calcium", seed=3), modality="pose")
    return dataclasses.replace(made, side={"running": pose, "words": words()})


def outputs(prediction) -> dict[str, list[torch.Tensor]]:
    return {
        "activity": [*prediction.activity.values()],
        "contrastive": [v for v in (prediction.embedding, *prediction.side.values()) if v is not None],
        "forecast": [*prediction.forecast.values()],
        "domains": [*prediction.domains.values()],
    }


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_a_head_speaks_when_asked_and_learns(head, bidirectional, batch, wide):
    model = build(wide, bidirectional=bidirectional)
    said = outputs(model(batch, wanted={head}, forecast_from=FROM if head == "forecast" else None))
    assert [name for name, values in said.items() if values] == [head]
    loss = torch.stack([(v * torch.randn_like(v)).sum() for v in said[head]]).sum()
    loss.backward()
    own = {"activity": "activity.", "contrastive": "embedding.", "forecast": "forecast.", "domains": "domains."}[head]
    for part in (own, "backbone.", "tokenizers.spikes"):
        gradients = [p.grad for name, p in model.named_parameters() if name.startswith(part) and p.grad is not None]
        assert any((g != 0).any() for g in gradients), part
        assert all(g.isfinite().all() for g in gradients)


def test_shapes(batch, wide):
    out = build(wide)(batch, wanted=HEADS, forecast_from=FROM)
    assert out.embedding.shape == (2, 60, 8)
    assert {name: v.shape for name, v in out.side.items()} == dict.fromkeys(("running", "words"), (2, 60, 8))
    assert {n: tuple(v.shape) for n, v in out.forecast.items()} == {"spikes": (2, 4, 5, 1), "eeg": (2, 4, 5, 16), "fmri": (2, 4, 5, 1)}
    assert {name: tuple(v.shape) for name, v in out.domains.items()} == {"species": (2, 2), "subject": (2, 3)}


@pytest.mark.parametrize(
    ("wanted", "match"),
    [({"forcast"}, "wanted names forcast; the heads are activity, contrastive"), ({"forecast"}, "wanted without forecast_from")],
)
def test_what_cannot_be_asked_for(wanted, match, batch, wide):
    with pytest.raises(ValueError, match=match):
        build(wide)(batch, wanted=wanted)


def test_a_modality_nobody_knows_is_refused(make_batch, vocabulary):
    model = build(Vocabulary({"spikes": vocabulary.channels["spikes"]}, (), {}))
    with pytest.raises(ValueError, match="this model reads spikes, not calcium; extend it"):
        model.encode(make_batch("calcium"))


# ---------------------------------------------------------------- forecast
@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_forecast_sees_nothing_that_ends_after_it_is_made(bidirectional, batch, wide):
    model = build(wide, bidirectional=bidirectional)
    torch.nn.init.normal_(model.forecast.leave.weight)

    def forecast(after: torch.Tensor) -> dict[str, torch.Tensor]:
        """Everything that ends later than `after` is replaced by noise."""
        streams = {}
        for name, s in batch.streams.items():
            size = model.tokenizer(s.modality).size(s)
            ends = s.t0[:, None] + s.dt[:, None] * size * (torch.arange(s.values.shape[1]) // size + 1)
            later = (ends > after[:, None] + 1e-4)[..., None]
            streams[name] = dataclasses.replace(s, values=torch.where(later, torch.randn(s.values.shape) * 9, s.values))
        return model(dataclasses.replace(batch, streams=streams), wanted={"forecast"}, forecast_from=FROM).forecast

    plain, noisy, earlier = forecast(torch.full((2,), 99.0)), forecast(FROM), forecast(FROM - 2.0)
    for name, value in plain.items():
        assert torch.equal(value, noisy[name])
        assert not torch.allclose(value, earlier[name])


def test_hidden_patches_stay_hidden_before_the_forecast(batch, wide):
    model = build(wide)
    hidden = {"spikes": torch.zeros(2, 60, dtype=torch.bool)}
    hidden["spikes"][:, 3] = True
    after = model.hide_after(batch, FROM, hidden)
    assert set(after) == {"spikes", "eeg", "fmri"}
    assert [after["spikes"][b].nonzero()[:, 0].tolist() for b in range(2)] == [[3, *range(30, 60)], [3, *range(36, 60)]]


def test_a_fresh_forecast_is_the_present_and_each_horizon_can_differ(batch, wide):
    model = build(wide)
    fresh = model(batch, wanted={"forecast"}, forecast_from=FROM).forecast["spikes"]
    assert torch.equal(fresh[:, :1].expand_as(fresh), fresh)
    for p in (model.forecast.leave.weight, model.forecast.film.modulate.weight):
        torch.nn.init.normal_(p)
    moved = model(batch, wanted={"forecast"}, forecast_from=FROM).forecast["spikes"]
    assert all(not torch.allclose(moved[:, i], moved[:, j]) for i in range(len(HORIZONS)) for j in range(i))


# ---------------------------------------------------------------- contrast
def test_embeddings_have_length_one_where_something_was_there(batch, wide):
    model = build(wide)
    spoken = batch.side["words"]
    silent = dataclasses.replace(spoken, mask=spoken.mask & torch.tensor([[True], [False]]), labels=(spoken.labels[0], ()))
    out = model(dataclasses.replace(batch, side={**batch.side, "words": silent}), wanted={"contrastive"})
    for value in (out.embedding, *out.side.values()):
        length = value.norm(dim=-1)
        assert (torch.isclose(length, torch.ones(())) | (length == 0)).all()
    assert (out.side["words"][1] == 0).all()
    assert (out.side["words"][0] != 0).any(-1).all()


def test_a_missing_member_changes_no_other(batch, wide):
    model = build(wide)
    whole = model(batch, wanted={"contrastive"})
    without = model(dataclasses.replace(batch, side={"words": batch.side["words"]}), wanted={"contrastive"})
    assert set(without.side) == {"words"}
    assert torch.equal(whole.embedding, without.embedding)
    assert torch.equal(whole.side["words"], without.side["words"])


def test_side_never_enters_the_latents(batch, wide):
    model = build(wide)
    other = dataclasses.replace(batch.side["running"], values=batch.side["running"].values + 5)
    a, b = (
        model(dataclasses.replace(batch, side={"running": s}), wanted=("contrastive", "activity")) for s in (batch.side["running"], other)
    )
    assert torch.equal(a.latents.values, b.latents.values)
    assert not torch.allclose(a.side["running"], b.side["running"])


# ---------------------------------------------------------------- domains
def test_reversal_turns_the_gradient_of_the_latents_and_not_of_the_discriminator(batch, wide):
    model = build(wide)

    def gradients(reversal: float) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        model(batch, wanted={"domains"}, reversal=reversal).domains["subject"].square().sum().backward()
        return model.fusion.out.weight.grad.clone(), model.domains["subject"].tell[0].weight.grad.clone()

    (plain, told), (turned, same) = gradients(-1.0), gradients(0.25)
    assert torch.allclose(turned, -0.25 * plain, atol=1e-8)
    assert torch.equal(told, same)


# ---------------------------------------------------------------- subsets
@pytest.mark.parametrize("kept", [("spikes",), ("eeg",), ("spikes", "fmri")], ids="+".join)
def test_signals_that_are_not_valid_are_as_good_as_absent(kept, batch, wide):
    model = build(wide)
    torch.nn.init.normal_(model.fusion.query)
    lost = {
        n: s if n in kept else dataclasses.replace(s, mask=torch.zeros_like(s.mask), values=torch.zeros_like(s.values))
        for n, s in batch.streams.items()
    }
    masked = model(dataclasses.replace(batch, streams=lost))
    subset = model(dataclasses.replace(batch, streams={n: batch.streams[n] for n in kept}))
    assert torch.equal(masked.latents.mask, subset.latents.mask)
    there = subset.latents.mask
    assert torch.allclose(masked.latents.values[there], subset.latents.values[there], atol=1e-5)


def test_rows_of_a_batch_do_not_mix(batch, wide):
    model = build(wide)
    alone = model(_row(batch, 1), wanted=HEADS, forecast_from=FROM[1:])
    together = model(batch, wanted=HEADS, forecast_from=FROM)
    assert torch.allclose(alone.latents.values[0], together.latents.values[1], atol=1e-5)
    for head, values in outputs(together).items():
        assert all(torch.allclose(mine[0], value[1], atol=1e-5) for mine, value in zip(outputs(alone)[head], values, strict=True)), head


def _row(batch: Batch, row: int) -> Batch:
    """One window of a batch."""

    def pick(stream: StreamBatch) -> StreamBatch:
        tensors = {f.name: v[row : row + 1] for f in dataclasses.fields(stream) if isinstance(v := getattr(stream, f.name), torch.Tensor)}
        labels = None if stream.labels is None else stream.labels[row : row + 1]
        return dataclasses.replace(stream, **tensors, labels=labels)

    own = slice(row, row + 1)
    fields = {name: getattr(batch, name)[own] for name in ("times", "dt", "mask", "session", "rows", "starts")}
    streams, side = ({n: pick(s) for n, s in group.items()} for group in (batch.streams, batch.side))
    return Batch(streams, **fields, targets={n: v[own] for n, v in batch.targets.items()}, side=side)
