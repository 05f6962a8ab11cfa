"""BrainLM: a transformer over patches of every parcel (Ortega Caro et al. 2023), masked or autoregressive.

Any number of parcels and any repetition time may stand in one batch; a parcel is known by its MNI coordinates or its row of
the vocabulary.

Shapes: B batch, P patches, C parcels, S samples of a patch, D width.
"""

from torch import Tensor, nn

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.nn.attention import SLOW, AxialBlock, Rotary, local
from neurofm_ml.nn.filling import Filler, ParcelEncoder, latents
from neurofm_ml.nn.parcels import ParcelIdentity, PatchEmbedding, Patches, cut, fmri
from neurofm_ml.presets import BrainLMConfig
from neurofm_ml.types import Batch, Latents


class BrainLM(nn.Module):
    """Encoder, and what its form trains it with; `vocabulary` names the rows of its tables of parcels."""

    Config = BrainLMConfig

    def __init__(self, cfg: BrainLMConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.cfg, self.vocabulary = cfg, vocabulary
        n_known = len(vocabulary.channels.get("fmri", ()))
        self.who = ParcelIdentity(n_known, cfg.d_model)
        self.encoder: ParcelEncoder | CausalEncoder
        if cfg.form == "masked":
            self.encoder = ParcelEncoder(cfg.d_model, cfg.n_layers, cfg.n_heads, cfg.n_samples)
            self.who_decoder = ParcelIdentity(n_known, cfg.d_decoder)
            self.decoder = Filler(cfg.d_model, cfg.d_decoder, cfg.n_decoder_layers, cfg.n_decoder_heads, cfg.n_samples)
        else:
            self.encoder = CausalEncoder(cfg.d_model, cfg.n_layers, cfg.n_heads, cfg.n_samples)
            self.head = nn.Linear(cfg.d_model, cfg.n_samples)

    def patches(self, batch: Batch) -> Patches:
        return cut(fmri(batch), self.cfg.patch_s, self.cfg.n_samples)

    def tokens(self, batch: Batch, patches: Patches, seen: Tensor) -> Tensor:
        """What the encoder makes of the patches that it sees (B, P, C), which the autoregressive form takes as all: (B, P, C, D)."""
        stream = fmri(batch)
        tokens: Tensor = self.encoder(patches, self.who(stream), stream.dt, seen)
        return tokens

    def reconstruct(self, batch: Batch, patches: Patches, hidden: Tensor) -> Tensor:
        """Masked form: patches (B, P, C, S), of meaning where hidden (B, P, C), from those that are not."""
        seen = patches.mask & ~hidden
        return self.decoder(self.tokens(batch, patches, seen), self.who_decoder(fmri(batch)), patches.token_times, seen, hidden)

    def predict_next(self, batch: Batch, patches: Patches) -> Tensor:
        """Autoregressive form: patches 1, 2, ... (B, P - 1, C, S), each from those before it."""
        values: Tensor = self.head(self.tokens(batch, patches, patches.mask)[:, :-1])
        return values

    def encode(self, batch: Batch) -> Latents:
        """One latent per patch: the mean over its parcels."""
        patches = self.patches(batch)
        return latents(self.tokens(batch, patches, patches.mask), patches)

    def n_parameters(self) -> int:
        """Parameters shared by all datasets: without the tables of parcels."""
        return sum(p.numel() for name, p in self.named_parameters() if ".table." not in name)


class CausalEncoder(nn.Module):
    """Axial transformer over parcels and patches that sees no later patch."""

    def __init__(self, d_model: int, n_layers: int, n_heads: int, n_samples: int) -> None:
        super().__init__()
        self.embed = PatchEmbedding(n_samples, d_model)
        self.rotary = Rotary(d_model // n_heads, SLOW)
        blocks = [AxialBlock(d_model, n_heads, causal=True) for _ in range(n_layers)]
        for block in blocks:
            local(block.in_time)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(d_model, elementwise_affine=False)

    def forward(self, patches: Patches, who: Tensor, dt: Tensor, mask: Tensor) -> Tensor:
        """who (B, C, D), dt (B,) seconds, mask (B, P, C) -> (B, P, C, D), 0 where there is nothing."""
        tokens, angles = self.embed(patches, who, dt), self.rotary(patches.times)
        for block in self.blocks:
            tokens = block(tokens, angles, mask)
        return self.norm(tokens) * mask[..., None]
