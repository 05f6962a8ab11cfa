"""The process that does the work: ``python -m neurofm_assets.worker job.json``.

Runs one job of the library and tells the orchestrator through Pipes where the artifact is; of a gang of processes
the first does. Needs neither dagster nor anything of this package, so an image for GPU work holds neurofm_ml and
dagster_pipes alone. Exit codes: 0 done, 2 wrong config or input, 75 stopped and can be resumed.
"""

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from dagster_pipes import open_dagster_pipes

from neurofm_ml import gang
from neurofm_ml.config import from_dict
from neurofm_ml.jobs import JobSpec, run
from neurofm_ml.types import EXIT_BAD_INPUT, EXIT_PREEMPTED, Preempted


def main(path: str) -> int:
    """Run the job file at `path` and report what came of it."""
    if gang.rank():
        return work(path, lambda message: None)
    with open_dagster_pipes() as pipes:
        return work(path, pipes.report_custom_message)


def work(path: str, report: Callable[[dict[str, str]], None]) -> int:
    """Run the job file; gives the exit code."""
    try:
        result = run(from_dict(JobSpec, json.loads(Path(path).read_text())))
    except Preempted as stopped:
        report({"stopped": str(stopped)})
        return EXIT_PREEMPTED
    except (ValueError, FileNotFoundError) as error:
        traceback.print_exc()
        report({"error": f"{type(error).__name__}: {error}"})
        return EXIT_BAD_INPUT
    report({"artifact": result.path})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
