"""Config of the training loop."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.base import fraction, not_negative, positive


@config
class FsdpConfig:
    """What strategy "fsdp" shares out among the processes, and how.

    `shard` "full" frees the gathered weights of a block after its forward pass and gathers them again for the
    backward one (FULL_SHARD); "grad_op" keeps them in between: more memory, less traffic (SHARD_GRAD_OP). With
    `cpu_offload` the shards, the optimizer's state and its update live in the memory of the CPU.
    """

    shard: Literal["full", "grad_op"] = "full"
    cpu_offload: bool = False


@config
class DeepSpeedConfig:
    """What strategy "deepspeed" (ZeRO-3) exchanges at a time, in numbers (4 bytes each).

    Gradients go out, and weights are fetched ahead, in messages of `bucket`; weights of up to `keep_whole` each process
    keeps whole.
    """

    bucket: int = 50_000_000
    keep_whole: int = 100_000

    def __post_init__(self) -> None:
        positive(self, "bucket")
        not_negative(self, "keep_whole")


@config
class TrainConfig:
    """The one training loop: budget, optimiser, precision, strategy, checkpoints.

    `batch_size` is per process and micro-batch; `warmup` and `ema` are shares: of the steps, and of the
    old average kept at each update. Logged values are means over `log_every` steps. Of several processes each holds the
    whole model ("ddp") or a share of its weights, gradients and optimiser ("fsdp", "deepspeed"). With `activation_checkpointing` the
    backward pass computes each block of the model again instead of keeping what is inside it.
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
    strategy: Literal["single", "ddp", "fsdp", "deepspeed"] = "single"
    fsdp: FsdpConfig = FsdpConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    activation_checkpointing: bool = False
    compile: bool = False
    log_every: int = 10
    checkpoint_every: int = 100
    keep: int = 2

    def __post_init__(self) -> None:
        positive(self, "steps", "batch_size", "lr", "clip_norm", "accumulate", "log_every", "checkpoint_every", "keep")
        fraction(self, "warmup", "ema", "weight_decay")
