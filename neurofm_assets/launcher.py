"""The run launcher of one machine: Dagster's own, which also notices that the process of a run is gone.

Without it a run whose process died together with its code server (a kill, a power cut) stays "Started" for good and keeps
its place in the pool of the GPU. Run monitoring asks here; a run that is lost is failed and started again, and finds
what it had begun. On a cluster Kubernetes knows this by itself.
Dagster concept: run launcher.
"""

import os
from pathlib import Path

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus  # not exported; every launcher's module imports them so

#: A process is that of a run when it started no later than this after it was announced: a clock that was set right meanwhile
#: moves the one time and not the other, and no number is given again so soon.
SLACK_S = 60.0


class LocalRunLauncher(dg.DefaultRunLauncher):
    """Starts runs through the code server; knows which of them still have a process."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        pid, announced = process_of(self._instance, run.run_id)
        if pid is None or is_alive(pid, announced):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"process {pid} is gone; what it finished and what it saved is kept")


def process_of(instance: dg.DagsterInstance, run_id: str) -> tuple[int | None, float]:
    """Process id of a run and when it was announced, from the run's log; None when it says nothing of it."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        pid = entry.dagster_event and entry.dagster_event.engine_event_data.metadata.get("pid")
        if pid:
            return int(str(pid.value)), entry.timestamp
    return None, 0.0


def is_alive(pid: int, announced: float) -> bool:
    """Whether the process that was announced then still runs; another that was given its number later is not it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # someone else's
        return False
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return True
    fields = stat.read_text().rpartition(")")[2].split()
    since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    booted = next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    return fields[0] != "Z" and booted + since_boot <= announced + SLACK_S
