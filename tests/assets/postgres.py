"""A real Postgres on a free port of this machine: its binaries come in a wheel."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "secret/of:the team@db"


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """A database with a password while it is needed; gives the environment that names it."""
    import pgserver

    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    data, word = folder / "data", folder / "password"
    word.write_text(PASSWORD)
    owner = owned_by_nobody_special(folder)
    port = free_port()
    pgserver.initdb(["--auth=scram-sha-256", "--encoding=utf8", "-U", "dagster", f"--pwfile={word}"], pgdata=data, user=owner)
    start = ["-w", "-o", f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off", "-l", str(folder / "log"), "start"]
    pgserver.pg_ctl(start, pgdata=data, user=owner)
    try:
        yield {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(port),
            "DAGSTER_PG_DB": "postgres",
            "DAGSTER_PG_USERNAME": "dagster",
            "DAGSTER_PG_PASSWORD": PASSWORD,
        }
    finally:
        pgserver.pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=data, user=owner)
        shutil.rmtree(folder)


def owned_by_nobody_special(folder: Path) -> str | None:
    """Postgres refuses to run as root: there the folder is given to another user, who is named."""
    if os.geteuid():
        return None
    from pgserver.utils import ensure_user_exists

    ensure_user_exists("pgserver")
    folder.chmod(0o755)
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "pgserver")
    return "pgserver"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
