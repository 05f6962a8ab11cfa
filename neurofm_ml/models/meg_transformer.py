"""A transformer of magnetoencephalography: tokens are patches of single sensors, and attention is factorised.

Each block attends over time within a sensor, rotary in seconds, then over the sensors of a patch of time. Who a sensor is
comes from its place, or from a row of the vocabulary where two share one, as the gradiometers of a pair do.

Shapes: B batch, T samples, P patches of time, C sensors, S samples of a patch, D width, H heads.
"""

import torch
from torch import Tensor, nn

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models.merged import merged
from neurofm_ml.nn.attention import AxialBlock, Rotary
from neurofm_ml.presets import MEGTransformerConfig
from neurofm_ml.tokenizers.base import Tokenizer
from neurofm_ml.types import Batch, Latents, StreamBatch

#: Seconds between which the periods of rotary embedding spread.
PERIODS = (0.05, 20.0)


class Sensors(Tokenizer):
    """Patches of sensors and who they are; the model makes the tokens."""

    scale = 0.1

    def __init__(self, cfg: MEGTransformerConfig, vocabulary: Vocabulary) -> None:
        super().__init__(torch.from_numpy(vocabulary.channel_std("meg")), cfg.d_model)
        self.patch_s, self.n_samples = cfg.patch_s, cfg.n_samples

    def valid(self, stream: StreamBatch) -> Tensor:
        """(B, P, C) True where a real sensor has a whole patch."""
        return self.cut(stream, stream.valid).all(3)

    def times(self, stream: StreamBatch, n: int) -> Tensor:
        """(B, P) seconds, the middle of each patch."""
        return stream.t0[:, None] + (torch.arange(n, device=stream.dt.device) + 0.5) * self.size(stream) * stream.dt[:, None]


class MEGTransformer(nn.Module):
    """Encoder, and a head that says what hidden tokens held."""

    Config = MEGTransformerConfig

    def __init__(self, cfg: MEGTransformerConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.cfg, self.vocabulary = cfg, vocabulary
        self.sensors = Sensors(cfg, vocabulary)
        self.embed = nn.Linear(cfg.n_samples, cfg.d_model)
        self.rotary = Rotary(cfg.d_model // cfg.n_heads, PERIODS)
        self.blocks = nn.ModuleList(AxialBlock(cfg.d_model, cfg.n_heads, causal=False) for _ in range(cfg.n_layers))
        self.norm = nn.LayerNorm(cfg.d_model)
        self.fill = nn.Linear(cfg.d_model, cfg.n_samples)

    def encode(self, batch: Batch) -> Latents:
        """One latent (D,) for each patch of time: the mean of its sensors' tokens."""
        stream = merged(batch, "meg")
        valid = self.sensors.valid(stream)
        tokens = self.tokens(stream, torch.zeros_like(valid))
        shares = valid / valid.sum(2, keepdim=True).clamp(min=1)
        return Latents(torch.einsum("bpcd,bpc->bpd", tokens, shares), self.sensors.times(stream, valid.shape[1]), valid.any(2))

    def tokens(self, stream: StreamBatch, hidden: Tensor) -> Tensor:
        """Tokens (B, P, C, D); those `hidden` (B, P, C) are shown as a mask token."""
        patches, _ = self.sensors.patches(stream)
        x = torch.where(hidden[..., None], self.sensors.mask_token, self.embed(patches))
        # Identities are scaled for a sum over sensors; here each stands alone.
        alone = stream.channel_mask.sum(1).sqrt()[:, None, None]
        x = x + (alone * self.sensors.who(stream))[:, None]
        angles, valid = self.rotary(self.sensors.times(stream, x.shape[1])), self.sensors.valid(stream)
        for block in self.blocks:
            x = block(x, angles, valid)
        return self.norm(x)

    def n_parameters(self) -> int:
        """Parameters shared by all sessions: without the rows of sensors known by name."""
        return sum(p.numel() for name, p in self.named_parameters() if "channels.table" not in name)
