"""Failures: one readable record for each run that failed, and a call to whoever wants to know.

Dagster concept: run failure sensor.
"""

import json
import os
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from neurofm_ml.files import home

#: Lines of a run's log that its record quotes.
QUOTED = 40
#: Seconds that the receiver of a call has to answer.
PATIENCE_S = 10.0

RECORD = """# {title}

what       {what}
partition  {partition}
run        {run}
ended      {ended}

## Error
{error}

## What to do
{remedy}

## Log
{log}
"""
REMEDY = "Repair what the error names, then launch the same partition again: what was finished is found, what was begun is taken up."


@dg.run_failure_sensor(default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=15)
def failure_records(context: dg.RunFailureSensorContext) -> None:
    """Write NEUROFM_HOME/failures/<time>-<job>-<run>.md; call NEUROFM_WEBHOOK, where it is set, with the same text."""
    path, text = record(context)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if url := os.environ.get("NEUROFM_WEBHOOK"):
        try:
            call(url, {"text": text, "run_id": context.dagster_run.run_id, "job": context.dagster_run.job_name, "record": str(path)})
        except (OSError, ValueError) as error:  # the record is written; a receiver that is away must not stop the sensor
            context.log.warning(f"NEUROFM_WEBHOOK was not reached: {error}")


def record(context: dg.RunFailureSensorContext) -> tuple[Path, str]:
    """Where the record of a failed run goes, and what it says."""
    run, failed = context.dagster_run, context.get_step_failure_events()
    (stored,) = context.instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
    ended = datetime.fromtimestamp(stored.end_time or stored.update_timestamp.timestamp(), UTC)
    what = ", ".join(str(event.step_key) for event in failed) or run.job_name
    partition = run.tags.get("dagster/partition", "-")
    text = RECORD.format(
        title=f"{what} [{partition}] failed",
        what=f"{what}, of job {run.job_name}",
        partition=partition,
        run=run.run_id,
        ended=f"{ended:%Y-%m-%d %H:%M:%S} UTC",
        error="\n".join(error_of(event) for event in failed) or context.failure_event.message or "the run ended without saying why",
        remedy=REMEDY,
        log="\n".join(log_of(context.instance, run.run_id)),
    )
    return home() / "failures" / f"{ended:%Y%m%dT%H%M%S}-{run.job_name}-{run.run_id[:8]}.md", text


def error_of(event: dg.DagsterEvent) -> str:
    """What a failed step said, down to the cause: the innermost error is what a person can act on."""
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description
    if data.error is None:
        return event.message or ""
    error = data.error
    while error.cause:
        error = error.cause
    return error.message.strip()


def log_of(instance: dg.DagsterInstance, run_id: str) -> Sequence[str]:
    """The last lines of a run's log, oldest first."""
    records = instance.get_records_for_run(run_id, limit=QUOTED, ascending=False).records
    entries = [record.event_log_entry for record in reversed(records)]
    return [
        f"{datetime.fromtimestamp(e.timestamp, UTC):%H:%M:%S} {e.step_key or ''} {e.user_message or e.message}".strip() for e in entries
    ]


def call(url: str, content: dict[str, str]) -> None:
    """POST JSON. Raises OSError or ValueError when that does not succeed in time."""
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"NEUROFM_WEBHOOK is {url!r}; it must begin with https:// or http://.")
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=PATIENCE_S).close()
