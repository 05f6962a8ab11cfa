"""The learning-rate schedule: a pure function of the step, so nothing of it has to be saved."""

import math


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Share of the full rate at update `step` (0-based) of `steps`.

    It rises linearly over the first ``warmup * steps`` updates (the last of them has the full
    rate), then falls as half a cosine that would reach 0 at update `steps` (Loshchilov & Hutter 2017).
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))
