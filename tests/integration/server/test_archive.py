"""The archive, moved by a daemon that is killed again and again beside a server at work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from sqlalchemy import func, insert, select, update

from server.db import tables
from server.db.database import Database
from tests.integration.server.clients import Client, wait_until
from tests.servers import running_server

_JOBS = 1000
_KILLS = 3


def _daemon(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PILOTKIT_")}
    return subprocess.Popen(
        [sys.executable, "-m", "server.daemon"],
        env={**own, "PYTHONPATH": os.getcwd(), **environment},
        stdin=subprocess.DEVNULL,
    )


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill it and its workers with -9, as when the machine fails."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in family:
        one.kill()
    process.wait()
    psutil.wait_procs(family, timeout=20)


def test_no_job_is_lost_or_there_twice_when_the_archiving_daemon_is_killed_with_9(
    make_database: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps({"copyArchive": {"period": 0.1, "sync": False}}))
    url = make_database("archive")
    settings = {"PILOTKIT_DATA": str(tmp_path / "data"), "PILOTKIT_DAEMON_CONFIG": str(config), **url}
    with running_server(tmp_path / "data", environment=url) as server, Client(server.url) as client:
        client.add_queue()
        (running,) = client.submit({})
        assert client.get_job()["PandaID"] == running
        ids = client.submit(*[{}] * _JOBS)
        database = Database(url.get("PILOTKIT_DATABASE", f"sqlite:///{server.data}/pilotkit.db"))
        try:
            _end(database, ids)
            before = client.panda("checkJobStatus", {"ids": ",".join(map(str, ids))})

            def moved() -> int:
                with database.reading() as connection:
                    return int(connection.execute(select(func.count()).select_from(tables.archived_jobs)).scalar_one())

            for number in range(1, _KILLS + 1):
                process = _daemon(settings)
                # When it has moved some more, and is in the middle of the next.
                wait_until(lambda number=number: moved() >= number * 200, "jobs to be moved")  # type: ignore[misc]
                _kill_all(process)
                assert client.update(running, "running")["StatusCode"] == 0
            process = _daemon(settings)
            wait_until(lambda: moved() == _JOBS, "all jobs to be moved")
            process.terminate()
            assert process.wait(20) == 0
            with database.reading() as connection:
                left = connection.execute(select(tables.jobs.c.PandaID)).scalars().all()
                there = connection.execute(select(tables.archived_jobs.c.PandaID)).scalars().all()
                counted = connection.execute(select(func.sum(tables.archived_days.c.jobs))).scalar()
        finally:
            database.close()
        assert left == [running]
        assert sorted(there) == ids and counted == len(there)
        assert client.panda("checkJobStatus", {"ids": ",".join(map(str, ids))}) == before
        assert client.job(ids[0])["history"][0]["status"] == "defined"


def _end(database: Database, ids: list[int]) -> None:
    """End all jobs but one at once, and have them archived at once: what could be told in a request each."""
    ended = {"jobStatus": "cancelled", "classID": None, "watchTime": None, "stateChangeTime": time.time()}
    policy = {"application": "pandaserver", "component": "archive", "key": "AFTER_DAYS", "vo": ""}
    with database.durable() as connection:
        connection.execute(update(tables.jobs).where(tables.jobs.c.PandaID >= ids[0]).values(ended))
        connection.execute(insert(tables.config).values(value="0", type="int", **policy))
