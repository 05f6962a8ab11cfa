"""Where the electrodes of named montages are, through MNE."""

import functools
from collections.abc import Mapping

from neurofm_ml.types import Array


@functools.lru_cache(maxsize=4)
def montage(name: str) -> Mapping[str, Array]:
    """Position (3,) in metres of every electrode of one of MNE's montages, by its name in lower case."""
    import mne

    known = mne.channels.get_builtin_montages()
    if name not in known:
        raise ValueError(f"positions is {name!r}, which is no montage of MNE; it has {', '.join(known)}.")
    return {k.casefold(): v for k, v in mne.channels.make_standard_montage(name).get_positions()["ch_pos"].items()}
