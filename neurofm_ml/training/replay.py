"""Proof that a run can be resumed: its last updates, made again from a checkpoint, give the same weights."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from neurofm_ml import gang
from neurofm_ml.training.checkpoints import checkpoint_folders
from neurofm_ml.types import Check

#: Updates that are made again.
LAST = 10
#: Relative L2 distance of weights on a GPU, whose sums have no fixed order; on a CPU every bit is the same.
TOLERANCE = 1e-3
EXACT = f"relative L2 distance <= {TOLERANCE:g} on a GPU, 0 on a CPU"


def resume_is_exact(train: Callable[[Path], Mapping[str, Tensor]], weights: Mapping[str, Tensor], out: Path) -> Check:
    """Take up the checkpoint of `out` that lies before its last one, and compare where that ends with `weights`.

    `train` makes everything anew, trains from what a folder holds, and gives the final weights. All processes call this alike.
    """
    found = checkpoint_folders(out / "checkpoints")
    if len(found) < 2:
        note = f"one checkpoint alone; let `keep` be 2 or more and train for more than {LAST} steps"
        return Check("resume_is_exact", False, "warn", threshold=EXACT, note=note)
    before, last = found[-2:]
    folder = out / "replay"
    if gang.rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder / "checkpoints" / before.name)
    gang.meet("replay")
    again = train(folder)
    distance = torch.stack([(again[name] - weight).double().norm() for name, weight in weights.items()]).norm()
    size = torch.stack([weight.double().norm() for weight in weights.values()]).norm()
    gang.meet("replayed")
    if gang.rank() == 0:
        shutil.rmtree(folder)
    updates = int(last.name.removeprefix("step-")) - int(before.name.removeprefix("step-"))
    numbers = {"distance": float(distance / size), "updates_made_again": updates}
    return Check("resume_is_exact", numbers["distance"] <= (TOLERANCE if torch.cuda.is_available() else 0.0), "warn", numbers, EXACT)
