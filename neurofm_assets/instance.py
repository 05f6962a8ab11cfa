"""The Dagster instance: its settings, in NEUROFM_HOME/dagster. ``python -m neurofm_assets.instance`` writes them.

They are the checkout's ``dagster.yaml``. Runs and events are kept in SQLite beside it, or, for a team, in the Postgres
database that the environment names: DAGSTER_PG_HOST, with DAGSTER_PG_PORT, DAGSTER_PG_DB, DAGSTER_PG_USERNAME and DAGSTER_PG_PASSWORD.
The password stays in the environment.
Dagster concept: instance.
"""

import os
from pathlib import Path

from neurofm_ml.files import home

SETTINGS = Path(__file__).parents[1] / "dagster.yaml"
#: The scheme says psycopg2, since plain "postgresql" is psycopg 3 to SQLAlchemy 2.1.
POSTGRES = """
# Named by the environment, which must be the same for the web server, the daemon and the runs.
storage:
  postgres:
    postgres_db:
      scheme: postgresql+psycopg2
      hostname: {env: DAGSTER_PG_HOST}
      port: {env: DAGSTER_PG_PORT}
      db_name: {env: DAGSTER_PG_DB}
      username: {env: DAGSTER_PG_USERNAME}
      password: {env: DAGSTER_PG_PASSWORD}
"""
NAMES = ("DAGSTER_PG_HOST", "DAGSTER_PG_PORT", "DAGSTER_PG_DB", "DAGSTER_PG_USERNAME", "DAGSTER_PG_PASSWORD")


def write_settings() -> Path:
    """Write the settings and return their folder. Raises ValueError when the environment names half a database."""
    given = [name for name in NAMES if os.environ.get(name)]
    if given and (absent := [name for name in NAMES if name not in given]):
        raise ValueError(f"{', '.join(given)} are set but not {', '.join(absent)}; set all of them for Postgres, or none for SQLite.")
    folder = home() / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    settings = SETTINGS.read_text() + (POSTGRES if given else "")
    (folder / "dagster.yaml").write_text(settings)
    return folder


if __name__ == "__main__":
    print(write_settings())
