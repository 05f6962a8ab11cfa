"""Tokenizers of behaviour and stimulus: small encoders of series that may miss values, and of events at their own times.

Shapes: B batch, T times or events, P patches, C channels, S samples of a patch, F features of a patch, D width, W width of a text.
"""

import torch
from torch import Tensor, nn

from neurofm_ml.tokenizers.base import TOKENIZERS
from neurofm_ml.tokenizers.patches import PatchTokenizer
from neurofm_ml.tokenizers.text import HashingEncoder, TextEncoder
from neurofm_ml.types import StreamBatch, TokenizedSequence


class SideTokenizer(PatchTokenizer):
    """A series of which some values may be missing: what share of a channel's patch was seen is a feature of it."""

    n_beside = 1

    def features(self, patches: Tensor, stream: StreamBatch) -> Tensor:
        return torch.cat([patches, self.cut(stream, stream.valid.to(patches)).mean(-1, keepdim=True)], -1)


class SampledTokenizer(SideTokenizer):
    """Patches of 1/16 s, brought to 128 Hz."""

    patch_s, n_samples = 1 / 16, 8


@TOKENIZERS.register("eye")
class EyeTokenizer(SampledTokenizer):
    """Gaze and pupil."""


@TOKENIZERS.register("pose")
class PoseTokenizer(SampledTokenizer):
    """Positions, speeds, angles and forces of a body."""


@TOKENIZERS.register("physio")
class PhysioTokenizer(SampledTokenizer):
    """Heart, skin, breath, and how the head moved."""


@TOKENIZERS.register("audio")
class AudioTokenizer(SampledTokenizer):
    """Features of sound, such as the power of its bands."""


@TOKENIZERS.register("video")
class VideoTokenizer(SideTokenizer):
    """Features of pictures, a token each."""


class EventTokenizer(SideTokenizer):
    """A series, a token per sample; or events, each a token at its own time made of its label and how long it lasts.

    A label is read as text, so none is unknown.
    """

    def __init__(self, channel_std: Tensor, d_model: int, encoder: TextEncoder | None = None) -> None:
        super().__init__(channel_std, d_model)
        self.encoder = encoder or HashingEncoder()
        self.text = nn.Sequential(nn.Linear(self.encoder.width, d_model), nn.GELU(), nn.Linear(d_model, d_model))
        self.lasts = nn.Linear(1, d_model)

    def forward(self, stream: StreamBatch, hidden: Tensor | None = None) -> TokenizedSequence:
        if stream.labels is None:
            return super().forward(stream, hidden)
        tokens = self.text(self.read(stream)) + self.lasts(stream.values.clamp(min=0).log1p())
        if hidden is not None:
            tokens = torch.where(hidden[..., None], self.mask_token, tokens)
        return TokenizedSequence(tokens * stream.mask[..., None], stream.mask, stream.times, stream.t0, stream.dt, stream.modality)

    def read(self, stream: StreamBatch) -> Tensor:
        """The encoder's vectors (B, T, W) of a stream's labels, 0 for padding; a label that comes again is read once."""
        words = {word: k for k, word in enumerate(dict.fromkeys(word for own in stream.labels or () for word in own))}
        vectors = torch.cat([self.encoder(tuple(words)).to(stream.values), stream.values.new_zeros(1, self.encoder.width)])
        places = torch.full(stream.mask.shape, len(words))
        places[stream.mask.cpu()] = torch.tensor([words[word] for own in stream.labels or () for word in own], dtype=torch.long)
        return vectors[places.to(stream.values.device)]


@TOKENIZERS.register("task")
class TaskTokenizer(EventTokenizer):
    """Cues, trials, states of a task."""


@TOKENIZERS.register("language")
class LanguageTokenizer(EventTokenizer):
    """Words as they are heard or read, and features of them; `encoder` reads the words (default: hashing)."""
