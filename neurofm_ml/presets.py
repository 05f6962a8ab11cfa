"""What each job can be told, and what tiny, small, medium and large mean for it.

The partition of an artifact says what it *is* (dataset, size, seed); these configs say how a run
is *tuned*. Importing this module needs neither torch nor dagster.
"""

from dataclasses import field
from typing import Literal

from neurofm_ml.config import config

SIZES = ("tiny", "small", "medium", "large")
SPLITS = ("train", "validation", "test")
#: Modalities that models read; the others are stored, judged and cut all the same.
READ = ("spikes", "calcium", "eeg", "fmri")


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not value > 0:
            raise ValueError(f"{type(owner).__name__}.{name} is {value!r}; it must be positive.")


def _fraction(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value < 1:
            raise ValueError(f"{type(owner).__name__}.{name} is {value!r}; it must lie in [0, 1).")


def _not_negative(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not value >= 0:
            raise ValueError(f"{type(owner).__name__}.{name} is {value!r}; it must not be negative.")


@config
class Resources:
    """What one run asks of the machine it lands on."""

    nodes: int = 1
    gpus: int = 0
    cpus: int = 2
    memory_gb: int = 4
    hours: float = 1.0


def resources(size: str) -> Resources:
    """Resources of a training run of the given size."""
    return {
        "tiny": Resources(),
        "small": Resources(gpus=1, cpus=8, memory_gb=64, hours=12),
        "medium": Resources(gpus=4, cpus=32, memory_gb=256, hours=48),
        "large": Resources(nodes=2, gpus=8, cpus=96, memory_gb=1024, hours=120),
    }[_size(size)]


def _size(size: str) -> str:
    if size not in SIZES:
        raise ValueError(f"size is {size!r}; allowed: {', '.join(SIZES)}.")
    return size


# ---------------------------------------------------------------- data
@config
class IngestConfig:
    """Read one dataset's raw files into recordings."""

    dataset: str


@config
class QualityConfig:
    """Thresholds of the quality checks of one dataset's recordings."""

    dataset: str
    max_flat_fraction: float = 0.5
    max_jump_s: float = 1.0

    def __post_init__(self) -> None:
        _fraction(self, "max_flat_fraction")
        _positive(self, "max_jump_s")


@config
class ShardsConfig:
    """Cut one dataset's recordings into windows, split them, write WebDataset shards.

    `layout` "multimodal" keeps all signals of a window side by side, "modality" gives each modality tars of its own:
    for those who read few of many signals from behind a URL.
    """

    dataset: str
    shard_mb: float = 50.0
    layout: Literal["multimodal", "modality"] = "multimodal"

    def __post_init__(self) -> None:
        _positive(self, "shard_mb")


@config
class ScalerConfig:
    """Mean and deviation per channel of one modality, over the training windows of `datasets` (None: of all that are here)."""

    modality: str
    datasets: tuple[str, ...] | None = None


@config
class FociConfig:
    """Read a corpus of activation coordinates."""

    corpus: str = "nback_flanker"


@config
class TableConfig:
    """Join the files of a table and judge it by its card."""

    table: str


# ---------------------------------------------------------------- models
@config
class NeuroFMxConfig:
    """Shape of the multimodal model: widths, depths, and whether the backbone sees the future.

    `context` tokens of each modality feed one latent; the "gru" backbone is the ablation and the
    baseline of equal budget: one of its layers stands for two state-space blocks.
    """

    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 4
    d_state: int = 16
    d_conv: int = 9
    expand: int = 1
    context: int = 4
    bidirectional: bool = True
    prenorm: bool = False
    dropout: float = 0.5
    backbone: Literal["ssm", "gru"] = "ssm"

    def __post_init__(self) -> None:
        _positive(self, "d_model", "n_layers", "n_heads", "d_state", "d_conv", "expand", "context")
        _fraction(self, "dropout")
        if self.d_model % self.n_heads:
            raise ValueError(f"NeuroFMxConfig.n_heads is {self.n_heads}; it must divide d_model = {self.d_model}.")
        if self.backbone == "ssm" and self.bidirectional and self.n_heads % 2:
            raise ValueError(
                f"NeuroFMxConfig.n_heads is {self.n_heads}; a bidirectional backbone needs an even number, half per direction."
            )
        if self.backbone == "gru" and self.n_layers % 2:
            raise ValueError(f"NeuroFMxConfig.n_layers is {self.n_layers}; the gru backbone needs an even number: a layer stands for two.")


def neurofmx(size: str) -> NeuroFMxConfig:
    """tiny < 1M, small ~ 20M, medium ~ 150M, large ~ 500M parameters in the backbone and heads."""
    return {
        "tiny": NeuroFMxConfig(),
        "small": NeuroFMxConfig(d_model=512, n_layers=10, n_heads=8, d_state=64, d_conv=4, expand=2, prenorm=True, dropout=0.1),
        "medium": NeuroFMxConfig(d_model=1024, n_layers=20, n_heads=16, d_state=128, d_conv=4, expand=2, prenorm=True, dropout=0.1),
        "large": NeuroFMxConfig(d_model=1536, n_layers=30, n_heads=24, d_state=128, d_conv=4, expand=2, prenorm=True, dropout=0.1),
    }[_size(size)]


# ---------------------------------------------------------------- training
@config
class TrainConfig:
    """The one training loop: budget, optimiser, precision, strategy, checkpoints.

    `batch_size` is per process and micro-batch; `warmup` and `ema` are shares: of the steps, and of the
    old average kept at each update. Logged values are means over `log_every` steps.
    """

    steps: int = 600
    batch_size: int = 16
    lr: float = 3e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip_norm: float = 1.0
    ema: float = 0.98
    accumulate: int = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    strategy: Literal["single", "ddp"] = "single"
    compile: bool = False
    log_every: int = 10
    checkpoint_every: int = 100
    keep: int = 2

    def __post_init__(self) -> None:
        _positive(self, "steps", "batch_size", "lr", "clip_norm", "accumulate", "log_every", "checkpoint_every", "keep")
        _fraction(self, "warmup", "ema", "weight_decay")


@config
class AugmentConfig:
    """What training windows go through: share of signals dropped where there are several, largest unit dropout,
    masked share of time, noise and largest drift in deviations.

    Drift is an offset per channel that lasts the whole window: what electrodes and animals do within the hour.
    """

    modality_dropout: float = 0.5
    unit_dropout: float = 0.6
    time_mask: float = 0.1
    noise: float = 0.3
    drift: float = 0.4

    def __post_init__(self) -> None:
        _fraction(self, "modality_dropout", "unit_dropout", "time_mask")
        _not_negative(self, "noise", "drift")


@config
class PretrainConfig:
    """Pretrain on every dataset in `datasets` that is here (None: every card). `objectives` maps names to weights.

    `labelled_share` of the updates go to the datasets with tasks, where there are both kinds.
    """

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    model: NeuroFMxConfig
    train: TrainConfig
    augment: AugmentConfig = AugmentConfig()
    objectives: dict[str, float] = field(default_factory=lambda: {"behaviour": 1.0, "masked": 0.1})
    labelled_share: float = 0.75
    datasets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _fraction(self, "labelled_share")
        if not (all(weight >= 0 for weight in self.objectives.values()) and any(self.objectives.values())):
            raise ValueError(f"PretrainConfig.objectives is {self.objectives!r}; weights must not be negative, and one must be positive.")


@config
class AdaptConfig:
    """Fine-tune a pretrained checkpoint on the decoding tasks of `datasets` (None: of all that are here)."""

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    train: TrainConfig
    augment: AugmentConfig = AugmentConfig()
    datasets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.train.strategy != "single":
            raise ValueError(f'AdaptConfig.train.strategy is {self.train.strategy!r}; it must be "single": processes share the decoders.')


@config
class BaselinesConfig:
    """Tuned baselines of one dataset's tasks: ridge with lags, kNN, a GRU of equal budget.

    The GRU's 300 updates are about a recording's share of pretraining at size tiny and its fine-tuning.
    """

    dataset: str
    seed: int = 0
    model: NeuroFMxConfig = NeuroFMxConfig(backbone="gru")
    train: TrainConfig = TrainConfig(steps=300, checkpoint_every=300)
    augment: AugmentConfig = AugmentConfig()


@config
class ScoreConfig:
    """Probe and fine-tuned scores of one run beside the baselines, with bootstrap intervals and controls."""

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    n_boot: int = 1000

    def __post_init__(self) -> None:
        _positive(self, "n_boot")


@config
class OnnxConfig:
    """Export the adapted decoder; refuse it when it differs from torch by more than `tolerance` (relative L2)."""

    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        _positive(self, "tolerance")


@config
class CardConfig:
    """The model card of one run."""

    size: Literal["tiny", "small", "medium", "large"]
    seed: int


@config
class BundleConfig:
    """The release folder of one run."""

    size: Literal["tiny", "small", "medium", "large"]
    seed: int


def pretrain(size: str, seed: int = 0) -> PretrainConfig:
    """Pretraining at one size; the larger ones assume the GPUs that `resources` asks for."""
    train = {
        "tiny": TrainConfig(steps=800, ema=0.995, checkpoint_every=200),
        "small": TrainConfig(steps=100_000, batch_size=64, lr=1e-3, ema=0.999, precision="bf16-mixed", checkpoint_every=1000),
        "medium": TrainConfig(
            steps=200_000, batch_size=64, lr=6e-4, ema=0.999, precision="bf16-mixed", strategy="ddp", checkpoint_every=1000
        ),
        "large": TrainConfig(
            steps=500_000, batch_size=64, lr=3e-4, ema=0.9999, precision="bf16-mixed", strategy="ddp", checkpoint_every=1000
        ),
    }[_size(size)]
    return PretrainConfig(seed=seed, size=size, model=neurofmx(size), train=train)  # type: ignore[arg-type]


def adapt(size: str, seed: int = 0) -> AdaptConfig:
    """Fine-tuning at one size."""
    train = TrainConfig(steps=200, lr=2e-3) if _size(size) == "tiny" else TrainConfig(steps=2000, lr=3e-4, ema=0.99, precision="bf16-mixed")
    return AdaptConfig(seed=seed, size=size, train=train)  # type: ignore[arg-type]
