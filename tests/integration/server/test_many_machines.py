"""Servers on several machines that share a PostgreSQL: what happens on one is heard on the others."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.integration.server.clients import Client, wait_until
from tests.postgres import Postgres
from tests.servers import RunningServer, running_server


@contextmanager
def two_machines(postgres: Postgres, folder: Path, name: str) -> Iterator[tuple[RunningServer, RunningServer]]:
    """One with a daemon that looks for itself once an hour, and one without."""
    database = {"PILOTKIT_DATABASE": postgres.create(name)}
    patient, none = folder / "patient.json", folder / "none.cfg"
    patient.write_text(json.dumps({"add_main": {"period": 3600}}))
    none.write_text("[daemon]\nenable = False\npackage = pandaserver.daemons.scripts\nconfig = {}\n")
    with (
        running_server(folder / "a", environment={**database, "PILOTKIT_DAEMON_CONFIG": str(patient)}) as first,
        running_server(folder / "b", environment={**database, "PILOTKIT_DAEMON_CONFIG": str(none)}) as second,
    ):
        yield first, second


def listeners(postgres: Postgres) -> list[int]:
    """The processes of PostgreSQL's that serve a client which listens."""
    with postgres.connect() as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE query = 'LISTEN pilotkit'")
        return [int(row[0]) for row in rows]


def test_a_report_to_a_machine_without_a_daemon_wakes_the_daemon_of_another(postgres: Postgres, tmp_path: Path) -> None:
    with two_machines(postgres, tmp_path, "heard") as (_, second), Client(second.url) as client:
        wait_until(lambda: bool(listeners(postgres)), "the daemon to listen")
        client.add_queue()
        (job,) = client.submit({"outputs": ["a"]})
        client.finish(client.get_job())
        client.wait_for(job, "finished")
        (listener,) = listeners(postgres)
        os.kill(listener, signal.SIGTERM)  # as a restart of PostgreSQL does
        wait_until(lambda: listeners(postgres) not in ([], [listener]), "the daemon to listen again")
        (job,) = client.submit({"outputs": ["a"]})
        client.finish(client.get_job())
        client.wait_for(job, "finished")


def test_nobody_listens_any_more_when_the_server_was_killed(postgres: Postgres, tmp_path: Path) -> None:
    with two_machines(postgres, tmp_path, "killed") as (first, _):
        wait_until(lambda: bool(listeners(postgres)), "the daemon to listen")
        family = psutil.Process(first.pid).children(recursive=True)
        first.kill()
        until = time.monotonic() + 30
        while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family):
            assert time.monotonic() < until
            time.sleep(0.05)
