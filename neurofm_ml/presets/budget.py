"""What training may cost where: patches of a pretraining config, for the machine at hand."""

from typing import Any

#: laptop: minutes on a CPU. workstation: a day on one GPU. cluster: eight H100 and more.
BUDGETS: dict[str, dict[str, Any]] = {
    "laptop": {"steps": 800, "batch_size": 16, "precision": "32-true", "strategy": "single", "checkpoint_every": 200},
    "workstation": {"steps": 100_000, "batch_size": 64, "precision": "bf16-mixed", "strategy": "single", "checkpoint_every": 1000},
    "cluster": {
        "steps": 200_000,
        "batch_size": 64,
        "precision": "bf16-mixed",
        "strategy": "fsdp",
        "checkpoint_every": 1000,
    },
}


def budget(name: str) -> dict[str, Any]:
    """Patch that brings a pretraining config of any size to a budget: ``patch(pretrain("small"), budget("laptop"))``.

    Sizes come with the budget that suits them (tiny: laptop, small: workstation, medium and large: cluster); this is for the
    other pairs. Learning rate and model stay as the size has them.
    """
    if name not in BUDGETS:
        raise ValueError(f"budget is {name!r}; allowed: {', '.join(BUDGETS)}.")
    return {"train": BUDGETS[name]}
