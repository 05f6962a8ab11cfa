"""Wall time and memory of `make demo`, cold and warm: the second run must compute nothing.

Each run is a process of its own on an empty, then a filled, NEUROFM_HOME; installation aside.
With NEUROFM_DATA the three real sets take part. `ratio` = cold / warm.
"""

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time


def run(home: str) -> tuple[float, int]:
    """One demo: seconds, and how many artifacts it made."""
    start = time.perf_counter()
    demo = subprocess.run(
        [sys.executable, "-m", "neurofm_assets.demo"],
        env={**os.environ, "NEUROFM_HOME": home},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - start
    (made,) = re.findall(r"^(\d+) made", demo.stdout, re.MULTILINE)
    return seconds, int(made)


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        cold, made = run(home)
        warm, again = run(home)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"cold {cold:.0f} s, {made} artifacts made; warm {warm:.0f} s, {again} made; largest process {peak:.2f} GB")
    print(
        json.dumps(
            {"name": "demo", "ours": round(warm, 1), "peer": round(cold, 1), "ratio": round(cold / warm, 2), "unit": "s, warm against cold"}
        )
    )


if __name__ == "__main__":
    main()
