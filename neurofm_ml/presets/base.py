"""What all presets share: sizes, splits, what a run asks of its machine, and the checks of numbers."""

from dataclasses import replace

from neurofm_ml.config import config

SIZES = ("tiny", "small", "medium", "large")
SPLITS = ("train", "validation", "test")
NEURAL = ("spikes", "intracellular", "lfp", "calcium", "eeg", "meg", "ecog", "ieeg", "fmri", "emg")
#: Behaviour and stimulus: they stand beside the input, never in it, so that a target is never fed to the model that predicts it.
SIDE = ("eye", "pose", "physio", "task", "video", "audio", "language")
#: What a model takes as input.
READ = NEURAL


def positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not value > 0:
            raise ValueError(f"{type(owner).__name__}.{name} is {value!r}; it must be positive.")


def fraction(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value < 1:
            raise ValueError(f"{type(owner).__name__}.{name} is {value!r}; it must lie in [0, 1).")


def not_negative(owner: object, *names: str) -> None:
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

    @property
    def of_one_process(self) -> "Resources":
        """What is left where one process does the work: one GPU of those asked for, and its share of one machine."""
        gpus = max(self.gpus, 1)
        return replace(self, nodes=1, gpus=min(self.gpus, 1), cpus=self.cpus // gpus, memory_gb=self.memory_gb // gpus)


def resources(size: str) -> Resources:
    """Resources of a training run of the given size."""
    return {
        "tiny": Resources(),
        "small": Resources(gpus=1, cpus=8, memory_gb=64, hours=12),
        "medium": Resources(gpus=4, cpus=32, memory_gb=256, hours=48),
        "large": Resources(nodes=2, gpus=8, cpus=96, memory_gb=768, hours=120),
    }[checked_size(size)]


def preparation() -> Resources:
    """Resources of work without a GPU over all that a dataset, or a run, consists of."""
    return Resources(cpus=8, memory_gb=64, hours=48)


def checked_size(size: str) -> str:
    if size not in SIZES:
        raise ValueError(f"size is {size!r}; allowed: {', '.join(SIZES)}.")
    return size
