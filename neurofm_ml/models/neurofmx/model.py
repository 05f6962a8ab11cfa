"""The body of NeuroFMx: tokenizers -> modality embedding -> Perceiver fusion on a time grid -> backbone.

Takes any subset of modalities in a batch. The latents live on the batch's time grid, so the
backbone sees them in order; the bidirectional form serves offline analysis.

Shapes: B batch, L latents, P patches, F horizons, C channels, S samples of a patch, D width.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models.neurofmx.heads import HEADS, ActivityHead, DomainHead, ForecastHead, Prediction, Projection
from neurofm_ml.models.neurofmx.streaming import Precision, Stream
from neurofm_ml.nn.perceiver import GridFusion, GridMean
from neurofm_ml.nn.recurrent import GRUBlock
from neurofm_ml.nn.ssm import SSMBlock
from neurofm_ml.presets import NEURAL, NeuroFMxConfig
from neurofm_ml.tokenizers import TOKENIZERS, Tokenizer
from neurofm_ml.types import Batch, Latents, StreamBatch, TokenizedSequence

FUSIONS = {"attention": GridFusion, "mean": GridMean}


class NeuroFMx(nn.Module):
    """The multimodal model. `vocabulary` names its modalities, the rows of its embedding tables, its tasks and domains."""

    Config = NeuroFMxConfig

    def __init__(self, cfg: NeuroFMxConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.cfg, self.vocabulary = cfg, vocabulary
        d, known = cfg.d_model, [m for m in TOKENIZERS if m in vocabulary.modalities]
        std = {m: torch.from_numpy(vocabulary.channel_std(m)) for m in known}
        self.tokenizers = nn.ModuleDict({m: TOKENIZERS[m](std[m], d) for m in known})
        self.modality = nn.ParameterDict({m: nn.Parameter(torch.zeros(d)) for m in known})
        self.session = nn.Embedding(len(vocabulary.sessions) + 1, d, padding_idx=0)
        nn.init.zeros_(self.session.weight)
        self.fusion = FUSIONS[cfg.fusion](d, cfg.n_heads, cfg.context, causal=not cfg.bidirectional)
        self.backbone = nn.ModuleList(_blocks(cfg))
        self.norm = nn.LayerNorm(d) if cfg.prenorm else nn.Identity()
        self.behaviour = nn.ModuleDict({task: nn.Linear(d, k) for task, k in vocabulary.tasks.items()})
        self.activity = nn.ModuleDict({m: ActivityHead(d, TOKENIZERS[m].n_samples, len(std[m])) for m in known if m in NEURAL})
        self.embedding = Projection(d, cfg.d_shared)
        self.beside = GridFusion(d, cfg.n_heads, cfg.context, causal=False)
        self.side = nn.ModuleDict({m: Projection(d, cfg.d_shared) for m in known if m not in NEURAL})
        self.forecast = ForecastHead(d)
        self.domains = nn.ModuleDict({name: DomainHead(d, len(classes)) for name, classes in vocabulary.domains.items()})

    def forward(
        self,
        batch: Batch,
        hidden: Mapping[str, Tensor] | None = None,
        wanted: Collection[str] = (),
        *,
        forecast_from: Tensor | None = None,
        reversal: float = 1.0,
    ) -> Prediction:
        """Latents, every target of the batch, and the heads `wanted`, of HEADS.

        hidden         per signal the patches (B, P) that are shown as a mask token
        forecast_from  (B,) seconds; patches that end later are hidden too, whatever their form of model: what follows is
                       a forecast, also of a bidirectional model
        reversal       strength of the reversed gradient of the domain heads
        """
        _check_wanted(wanted, forecast_from)
        if forecast_from is not None:
            hidden = self.hide_after(batch, forecast_from, hidden or {})
        latents = self.encode(batch, hidden)
        streams = batch.streams
        return Prediction(
            latents,
            {task: self.behaviour[task](latents.values) for task in batch.targets},
            {name: self.predict_activity(latents, batch, s) for name, s in streams.items()} if "activity" in wanted else {},
            self.embedding(latents.values, latents.mask) if "contrastive" in wanted else None,
            {name: self.embed_side(batch, s) for name, s in batch.side.items()} if "contrastive" in wanted else {},
            self.predict_forecast(latents, batch, forecast_from) if "forecast" in wanted and forecast_from is not None else {},
            {name: head(latents, reversal) for name, head in self.domains.items()} if "domains" in wanted else {},
        )

    def encode(self, batch: Batch, hidden: Mapping[str, Tensor] | None = None) -> Latents:
        """What the model makes of the input: one latent per bin of the batch's grid."""
        sequences = [self.tokens(stream, (hidden or {}).get(name)) for name, stream in batch.streams.items()]
        values, there = self.fusion(sequences, batch.times, batch.dt)
        mask = batch.mask & there
        values = values + self.session(batch.session)[:, None]
        for block in self.backbone:
            values = block(values, mask)
        return Latents(self.norm(values), batch.times, mask)

    def tokens(self, stream: StreamBatch, hidden: Tensor | None = None) -> TokenizedSequence:
        """Tokens of one signal that know their modality."""
        return self.tokenizer(stream.modality)(stream, hidden).shifted(self.modality[stream.modality])

    def predict_activity(self, latents: Latents, batch: Batch, stream: StreamBatch) -> Tensor:
        """Activity (B, P, C, S) of each patch of a signal, read from the latent of the bin its centre lies in."""
        values = self.read_patches(latents, batch, stream)
        return self.activity[stream.modality](values, self.tokenizer(stream.modality).who(stream), stream.ids)

    def read_patches(self, latents: Latents, batch: Batch, stream: StreamBatch) -> Tensor:
        """(B, P, D) the latent of the bin that the centre of each patch lies in."""
        starts, width = self._patches(stream)
        return _at(latents.values, _bins(starts + width / 2, batch))

    def read_before(self, latents: Latents, batch: Batch, time: Tensor, n: int = 1) -> Tensor:
        """(B, n, D) the latents of the last bins that end by `time` (B,) seconds, in order."""
        back = torch.arange(n, 0, -1, device=time.device)
        return _at(latents.values, _bins(time[:, None] - back * batch.dt[:, None], batch))

    def predict_forecast(self, latents: Latents, batch: Batch, forecast_from: Tensor) -> dict[str, Tensor]:
        """Signal -> activity (B, F, C, S) of the patch that begins at each horizon after `forecast_from` (B,).

        Read from the latent of the last bin that ends by then.
        """
        horizons = torch.tensor(self.cfg.horizons_s, device=latents.values.device)
        values = self.forecast(self.read_before(latents, batch, forecast_from)[:, 0], horizons)
        return {name: self.activity[s.modality](values, self.tokenizer(s.modality).who(s), s.ids) for name, s in batch.streams.items()}

    def embed_side(self, batch: Batch, stream: StreamBatch) -> Tensor:
        """Embedding (B, L, E) of a behaviour or stimulus on the grid of the latents."""
        values, there = self.beside([self.tokens(stream)], batch.times, batch.dt)
        embedding: Tensor = self.side[stream.modality](values, batch.mask & there)
        return embedding

    def hide_after(self, batch: Batch, time: Tensor, hidden: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`hidden` and, of each signal, the patches (B, P) that end after `time` (B,) seconds."""
        more = {}
        for name, stream in batch.streams.items():
            starts, width = self._patches(stream)
            more[name] = starts + (1 - 1e-3) * width > time[:, None]
        return {name: after | hidden[name] if name in hidden else after for name, after in more.items()}

    def stream(self, tasks: Sequence[str], session: Tensor, dt: float, t0: float = 0.0, precision: Precision = "float32") -> Stream:
        """Decoder of a closed loop, fed with what was measured since the last time; see `Stream`."""
        return Stream(self, tasks, session, dt, t0, precision)

    def tokenizer(self, modality: str) -> Tokenizer:
        if modality not in self.tokenizers:
            raise ValueError(
                f"this model reads {', '.join(self.tokenizers)}, not {modality}; extend it to a vocabulary with {modality} "
                "(Vocabulary.union), or leave the signal out."
            )
        found = self.tokenizers[modality]
        assert isinstance(found, Tokenizer)
        return found

    def n_parameters(self) -> int:
        """Parameters shared by all sessions: without the tables of channels, sessions, domains and readouts."""
        own = ("channels.table", "session.", "behaviour.", ".bias_of", "domains.")
        return sum(p.numel() for name, p in self.named_parameters() if not any(o in name for o in own))

    def _patches(self, stream: StreamBatch) -> tuple[Tensor, Tensor]:
        """When each patch of a signal starts, (B, P) seconds, and how long it is, (B, 1)."""
        size = self.tokenizer(stream.modality).size(stream)
        width = stream.dt[:, None] * size
        n = stream.values.shape[1] // size
        return stream.t0[:, None] + torch.arange(n, device=width.device) * width, width


def _bins(times: Tensor, batch: Batch) -> Tensor:
    """Index (B, n) of the grid bin that each time (B, n) lies in; an edge belongs to the bin that starts there.

    The centre of a patch that spans an even number of bins is an edge.
    """
    bins = torch.floor((times - batch.times[:, :1]) / batch.dt[:, None] + 0.5 + 1e-3)
    return bins.long().clamp(0, batch.times.shape[1] - 1)


def _at(values: Tensor, index: Tensor) -> Tensor:
    """values (B, L, D), index (B, n) -> (B, n, D)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


def _check_wanted(wanted: Collection[str], forecast_from: Tensor | None) -> None:
    if unknown := set(wanted) - set(HEADS):
        raise ValueError(f"wanted names {', '.join(sorted(unknown))}; the heads are {', '.join(HEADS)}.")
    if "forecast" in wanted and forecast_from is None:
        raise ValueError("a forecast was wanted without forecast_from; give the time (B,) in seconds after which nothing may be seen.")


def _blocks(cfg: NeuroFMxConfig) -> list[nn.Module]:
    if cfg.backbone == "gru":
        return [GRUBlock(cfg.d_model, cfg.bidirectional, cfg.dropout) for _ in range(cfg.n_layers // 2)]
    return [
        SSMBlock(cfg.d_model, cfg.n_heads, cfg.d_state, cfg.d_conv, cfg.expand, cfg.bidirectional, cfg.dropout, norm=cfg.prenorm)
        for _ in range(cfg.n_layers)
    ]
