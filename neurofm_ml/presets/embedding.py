"""Config of contrastive embeddings."""

from neurofm_ml.config import config
from neurofm_ml.presets.base import fraction, positive


@config
class EmbeddingConfig:
    """Shape and training of a contrastive embedding.

    Each of `n_layers` convolutions doubles the reach of the one before: a bin sees 2^(n_layers + 1) - 1 bins. `bandwidth` says
    how alike two behaviours are, in deviations; a batch is `n_segments` stretches of `segment` bins; `dropout` is the
    largest share of channels that is hidden.
    """

    n_outputs: int = 8
    d_model: int = 64
    n_layers: int = 3
    bandwidth: float = 0.2
    temperature: float = 0.1
    steps: int = 1000
    n_segments: int = 32
    segment: int = 16
    lr: float = 3e-3
    weight_decay: float = 0.01
    dropout: float = 0.3

    def __post_init__(self) -> None:
        positive(self, "n_outputs", "d_model", "n_layers", "bandwidth", "temperature", "steps", "n_segments", "segment", "lr")
        fraction(self, "weight_decay", "dropout")
