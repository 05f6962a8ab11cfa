"""What every tokenizer shares: the registry, patches of time, the identity of channels.

A tokenizer cuts a StreamBatch into patches of time and makes one token of each, or one of each event.
Its contract, tested over the registry: padding never changes a valid token, channels may come in any
order, unknown channels are placed or refused, a token depends on its own patch alone (so hiding it
hides it). The registry names modalities; a second design for one of them has a name of its own.

Shapes: B batch, T samples, P patches, C channels, S samples of a patch, D width.
"""

import torch
from torch import Tensor, nn

from neurofm_ml.nn.embeddings import ChannelEmbedding
from neurofm_ml.registry import Registry
from neurofm_ml.types import StreamBatch, TokenizedSequence

TOKENIZERS: Registry[type["Tokenizer"]] = Registry("tokenizer")


class Tokenizer(nn.Module):
    """Base of all tokenizers; a subclass says how patches and identities make tokens in `embed`."""

    #: Points a patch is brought to, so that one set of filters serves any sampling rate.
    n_samples: int = 1
    #: Seconds of a patch, rounded to whole samples and at least one.
    patch_s: float = 0.0
    #: Length over which neighbouring channels differ, in the unit of their positions; None: no positions.
    scale: float | None = None

    def __init__(self, channel_std: Tensor, d_model: int) -> None:
        super().__init__()
        self.channels = ChannelEmbedding(channel_std, d_model, self.scale)
        self.mask_token = nn.Parameter(torch.zeros(d_model))

    def embed(self, patches: Tensor, who: Tensor, stream: StreamBatch) -> Tensor:
        """patches (B, P, C, S), who (B, C, D) -> tokens (B, P, D)."""
        raise NotImplementedError

    def forward(self, stream: StreamBatch, hidden: Tensor | None = None) -> TokenizedSequence:
        """Tokens of a stream; those at `hidden` (B, P) are replaced by the mask token."""
        patches, mask = self.patches(stream)
        tokens = self.embed(patches, self.who(stream), stream)
        if hidden is not None:
            tokens = torch.where(hidden[..., None], self.mask_token, tokens)
        dt = stream.dt * self.size(stream)
        times = stream.t0[:, None] + torch.arange(tokens.shape[1], device=tokens.device) * dt[:, None]
        return TokenizedSequence(tokens * mask[..., None], mask, times, stream.t0, dt, stream.modality)

    def size(self, stream: StreamBatch) -> int:
        """Samples a patch takes. Raises when the windows of the batch differ in sampling rate."""
        if self.patch_s == 0:
            return 1
        if not bool(torch.isclose(stream.dt, stream.dt[:1], rtol=1e-4).all()):
            raise ValueError(
                f"{stream.modality} windows of one batch have sampling steps {stream.dt.unique().tolist()} s; batch one rate at a time."
            )
        return max(1, round(self.patch_s / float(stream.dt[0])))

    def patches(self, stream: StreamBatch) -> tuple[Tensor, Tensor]:
        """Values as patches (B, P, C, S) and which patches are whole (B, P); a ragged end is no patch."""
        mask = self.cut(stream, stream.mask[..., None])[:, :, 0].all(-1)
        return _resample(self.cut(stream, stream.values), self.n_samples), mask

    def cut(self, stream: StreamBatch, values: Tensor) -> Tensor:
        """Something of the stream's samples (B, T, C), as they are, in its patches (B, P, C, samples of a patch)."""
        size = self.size(stream)
        n = values.shape[1] // size
        return values[:, : n * size].unflatten(1, (n, size)).transpose(2, 3)

    def who(self, stream: StreamBatch) -> Tensor:
        """(B, C, D) identity of each channel, 0 for padding. Raises for channels nobody knows."""
        refuse_unknown(stream, self.scale is not None)
        return self.channels(stream.ids, stream.positions, stream.channel_mask)


def refuse_unknown(stream: StreamBatch, placed: bool) -> None:
    """Raise ValueError for channels that are neither in the vocabulary nor, where `placed`, known by their place."""
    unknown = stream.channel_mask & (stream.ids == 0)
    if stream.positions is not None and placed:
        unknown = unknown & ~stream.positions.isfinite().all(-1)
    if not torch.compiler.is_compiling() and bool(unknown.any()):
        row = int(unknown.any(1).nonzero()[0])
        raise ValueError(
            f"{int(unknown[row].sum())} of {int(stream.channel_mask[row].sum())} {stream.modality} channels of window {row} "
            "are not in the model's vocabulary; extend it (Vocabulary.union) and adapt the model to the new session."
        )


def _resample(patches: Tensor, n: int) -> Tensor:
    """(B, P, C, S) -> (B, P, C, n): averages when there are more samples, interpolation when fewer."""
    if patches.shape[-1] == n:
        return patches
    mode = "area" if patches.shape[-1] > n else "linear"
    flat = nn.functional.interpolate(patches.flatten(0, 2)[:, None], size=n, mode=mode)
    return flat[:, 0].unflatten(0, patches.shape[:3])
