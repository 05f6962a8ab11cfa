"""``python -m neurofm_ml.jobs job.json``: run one job file and print its result as JSON."""

import json
import sys
from pathlib import Path

from neurofm_ml.config import from_dict, to_dict
from neurofm_ml.jobs import JobSpec, run
from neurofm_ml.types import EXIT_BAD_INPUT, EXIT_PREEMPTED, Preempted


def main(argv: list[str]) -> int:
    """Run one job file and print its result as JSON."""
    if len(argv) != 1:
        print("usage: python -m neurofm_ml.jobs job.json", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        result = run(from_dict(JobSpec, json.loads(Path(argv[0]).read_text())))
    except Preempted as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_PREEMPTED
    except (ValueError, FileNotFoundError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(json.dumps(to_dict(result), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
