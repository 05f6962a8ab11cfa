"""The training step of NeuroFMx: corrupt a batch, predict, weigh the objectives.

Shapes: B batch, L latents, D width.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm_ml.models import NeuroFMx
from neurofm_ml.models.neurofmx import Prediction
from neurofm_ml.objectives import OBJECTIVES, Role, Target, Truth, reversal
from neurofm_ml.presets import AugmentConfig
from neurofm_ml.presets.objectives import Weighting
from neurofm_ml.training.corruption import Shown, corrupt, forecast_start, moments, only, true_activity, true_future
from neurofm_ml.training.weighting import WEIGHINGS
from neurofm_ml.types import Batch

Loss = Callable[[Any, Any, torch.Generator, float], tuple[Tensor, dict[str, Tensor]]]

#: Heads that objectives read in the joint pass, beside that of behaviour.
HEADS = {
    "masked": "activity",
    "reconstruction": "activity",
    "contrastive": "contrastive",
    "trimodal": "contrastive",
    "domains": "domains",
}
#: Objectives that each modality can meet by itself.
ALONE = ("behaviour", "masked", "reconstruction")
#: Bins of a batch that are told apart from each other, at most: the cost is their square.
CONTRASTED = 512
STIMULUS = ("video", "audio", "language")


def weighted_loss(
    cfg: AugmentConfig,
    weights: Mapping[str, float],
    weighting: Weighting = "fixed",
    fusion: Literal["none", "early", "mid+late"] = "early",
) -> Loss:
    """Loss function for `fit`: the objectives with a positive weight, read from one corrupted forward pass.

    A pass of their own have: the forecast, which may not see the future; the target of "jepa", the uncorrupted batch;
    and, for fusion "mid+late", each modality alone. Parts are the objectives and "weight/<objective>".
    """
    objectives = {name: OBJECTIVES[name] for name, weight in weights.items() if weight > 0}
    wanted = {HEADS[name] for name in objectives if name in HEADS}

    def loss(model: NeuroFMx, batch: Batch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        shown = corrupt(model, batch, cfg, generator, progress)
        predicted = model(shown.noisy, shown.hidden, wanted, reversal=reversal(progress))
        truth = _truth(model, shown, predicted, objectives, generator)
        readings, latents = {}, [predicted.latents.values]
        if "next_step" in objectives:
            readings["next_step"] = _one_bin_late(model, shown.noisy, predicted)
        if "forecast" in objectives:
            start = forecast_start(shown.clean, max(model.cfg.horizons_s), generator)
            readings["forecast"] = model(shown.noisy, shown.hidden, ("forecast",), forecast_from=start)
            truth = dataclasses.replace(truth, forecast=true_future(model, shown, start))
            latents.append(readings["forecast"].latents.values)
        parts = {name: objective(readings.get(name, predicted), truth) for name, objective in objectives.items()}
        if fusion == "mid+late" and len(modalities := _modalities(shown.noisy)) > 1:
            late, more = _late(model, shown, modalities, wanted, predicted)
            parts |= {name: (parts[name] + objectives[name](late, truth)) / 2 for name in ALONE if name in objectives}
            latents += more
        total, weighed = WEIGHINGS[weighting](model, parts, weights, latents)
        return total, {**parts, **{f"weight/{name}": torch.as_tensor(weight) for name, weight in weighed.items()}}

    return loss


def _truth(model: NeuroFMx, shown: Shown, predicted: Prediction, names: Collection[str], generator: torch.Generator) -> Truth:
    """What the objectives `names` compare with, except the future."""
    mask, clean = predicted.latents.mask, shown.clean
    with_activity = not {"masked", "reconstruction", "next_step"}.isdisjoint(names)
    truth = Truth(clean.targets, mask, true_activity(model, shown) if with_activity else {})
    if "jepa" in names:
        truth = dataclasses.replace(truth, latents=_target(model, shown, mask))
    if not {"contrastive", "trimodal"}.isdisjoint(names):
        truth = dataclasses.replace(truth, roles=_roles(clean), contrasted=moments(mask, CONTRASTED, generator))
    return dataclasses.replace(truth, domains=clean.domains) if "domains" in names else truth


def _roles(batch: Batch) -> dict[str, Role]:
    return {name: "stimulus" if stream.modality in STIMULUS else "behaviour" for name, stream in batch.side.items()}


def _modalities(batch: Batch) -> tuple[str, ...]:
    return tuple(dict.fromkeys(stream.modality for stream in batch.streams.values()))


@torch.no_grad()
def _target(model: NeuroFMx, shown: Shown, mask: Tensor) -> Target:
    """Latents of the whole batch as the model itself makes them, undisturbed.

    Each dimension is normalised over the batch (Baevski et al. 2022): a constant would be the easiest to predict.
    """
    training = model.training
    latents = model.eval()(shown.whole).latents
    model.train(training)
    scored = latents.mask & mask
    weights = scored[..., None] / scored.sum().clamp(min=1)
    centred = latents.values - (latents.values * weights).sum((0, 1))
    return Target(centred / (centred.square() * weights).sum((0, 1)).sqrt().clamp(min=1e-5), scored)


def _one_bin_late(model: NeuroFMx, batch: Batch, predicted: Prediction) -> Prediction:
    """The prediction with all activity read from the latent of the bin before its own, that of the first bin from nothing."""
    if model.cfg.bidirectional:
        raise ValueError('objective "next_step" needs a model that cannot see the future; set NeuroFMxConfig.bidirectional to False.')
    before = dataclasses.replace(predicted.latents, values=F.pad(predicted.latents.values[:, :-1], (0, 0, 1, 0)))
    return dataclasses.replace(predicted, activity={n: model.predict_activity(before, batch, s) for n, s in batch.streams.items()})


def _late(
    model: NeuroFMx, shown: Shown, modalities: Sequence[str], wanted: Collection[str], joint: Prediction
) -> tuple[Prediction, Sequence[Tensor]]:
    """What the modalities say one by one, averaged over those that are there, and the latents (B, L, D) of each.

    The heads are affine in the latents: what is read from averaged latents is the average of what is read from each.
    """
    alone = [model(only(shown.noisy, modality), shown.hidden, set(wanted) & {"activity"}) for modality in modalities]
    there = torch.stack([p.latents.mask for p in alone])[..., None]
    late = dataclasses.replace(
        joint,
        behaviour={task: _mean([p.behaviour[task] for p in alone], there) for task in joint.behaviour},
        activity={name: activity for p in alone for name, activity in p.activity.items()},
    )
    return late, [p.latents.values for p in alone]


def _mean(values: Sequence[Tensor], there: Tensor) -> Tensor:
    """Mean of n tensors (B, L, K) where there (n, B, L, 1), 0 where none is."""
    return (torch.stack(list(values)) * there).sum(0) / there.sum(0).clamp(min=1)
