"""Backup under load, and a server that goes on from it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from server.recovery import SKIPPED_IDS
from tests.integration.server.clients import Client, wait_until
from tests.postgres import Postgres
from tests.servers import running_server

_CLIENTS = 4


def pilotkit(*arguments: str | Path, **environment: str) -> tuple[int, str]:
    """Run `pilotkit db ...`; its exit code and what it said."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PILOTKIT_")}
    done = subprocess.run(
        [sys.executable, "-m", "server.cli.main", "db", *map(str, arguments)],
        env={**own, **environment}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


class Load:
    """Clients that submit, take and finish jobs until they are stopped, and remember what they were told."""

    def __init__(self, url: str) -> None:
        self.finished: list[int] = []
        self.highest = 0
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(_CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        with Client(self._url) as client:
            while not self._stop.is_set():
                (made,) = client.submit({"outputs": ["x"]})
                self.highest = max(self.highest, made)
                definition = client.get_job()
                client.update(definition["PandaID"], "running")
                client.finish(definition)
                self.finished.append(definition["PandaID"])


def test_a_backup_under_load_is_one_state_and_a_restored_server_goes_on_from_it(
    make_database: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    url = make_database("before")
    copy = tmp_path / "copy"
    with running_server(tmp_path / "before", environment=url) as server, Client(server.url) as client:
        client.add_queue()
        held, silent = client.submit({"max_attempts": 2}, {})
        definition = client.get_job()
        assert definition["PandaID"] == held
        client.update(held, "running")
        assert client.get_job()["PandaID"] == silent
        with Load(server.url) as load:
            wait_until(lambda: len(load.finished) > 20, "some load")
            acknowledged = list(load.finished)
            code, said = pilotkit("backup", copy, "--data", server.data, **url)
            assert code == 0, said
            told = len(load.finished)
            wait_until(lambda: len(load.finished) > told + 10, "some load after the backup")
        highest = load.highest
    assert copy.stat().st_mode & 0o777 == 0o600
    anew = make_database("after")
    code, said = pilotkit("restore", copy, "--data", tmp_path / "after", PILOTKIT_LOST_HEARTBEAT="60", **anew)
    assert code == 0, said
    assert SKIPPED_IDS < int(said.split()[-1]) < SKIPPED_IDS + highest
    with running_server(tmp_path / "after", environment=anew) as server, Client(server.url) as client:
        for job in acknowledged:
            client.wait_for(job, "finished")
        assert client.update(held, "running", claim_id=definition["claim_id"])["command"] == "NULL"
        assert client.status(silent) == "sent"
        (fresh,) = client.submit({})
        assert fresh > highest
        client.finish(definition)
        client.wait_for(held, "finished")


def test_what_is_there_is_never_overwritten(make_database: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    url = make_database("there")
    data, copy, junk = tmp_path / "data", tmp_path / "copy", tmp_path / "junk"
    junk.write_bytes(b"no backup")
    assert pilotkit("migrate", "--data", data, **url) == (0, "pilotkit: the database is up to date\n")
    assert pilotkit("backup", copy, "--data", data, **url)[0] == 0
    code, said = pilotkit("backup", copy, "--data", data, **url)
    assert (code, said) == (1, f"pilotkit: {copy} exists already; give the backup another name.\n")
    code, said = pilotkit("restore", copy, "--data", data, **url)
    assert code == 1 and "already" in said and said.count("\n") == 1
    anew = make_database("anew")
    code, said = pilotkit("restore", junk, "--data", tmp_path / "anew", **anew)
    assert code == 1 and said.count("\n") == 1, said
    code, said = pilotkit("restore", tmp_path / "none", "--data", tmp_path / "anew", **anew)
    assert (code, said) == (1, f"pilotkit: There is no backup {tmp_path / 'none'}.\n")
    assert pilotkit("restore", copy, "--data", tmp_path / "anew", **anew)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["anew", "copy", "junk", *(["data"] if data.exists() else [])]
    )


def test_a_server_is_not_restored_under_its_feet(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        code, said = pilotkit("restore", tmp_path / "copy", "--data", server.data)
    assert code == 1
    assert said == f"pilotkit: A server uses {tmp_path / 'data'}, pid {server.pid}; stop it first.\n"


def test_programs_of_postgresql_that_are_not_here_are_named(postgres: Postgres, tmp_path: Path) -> None:
    url = {"PILOTKIT_DATABASE": postgres.create("programs"), "PATH": str(tmp_path)}
    assert pilotkit("migrate", "--data", tmp_path, **url)[0] == 0
    code, said = pilotkit("backup", tmp_path / "copy", "--data", tmp_path, **url)
    assert (code, said) == (1, "pilotkit: pg_dump is not here; install the client programs of PostgreSQL.\n")
    assert list(tmp_path.glob("*copy*")) == []


def test_the_password_of_a_database_is_in_no_command_line_and_no_message(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'secret'")
    program = tmp_path / "pg_dump"
    program.write_text('#!/bin/sh\necho "pg_dump: error: $* $PGPASSWORD" | sed s/$PGPASSWORD/known/ >&2\nexit 1\n')
    program.chmod(0o755)
    of_guest = postgres.create("guests").replace("postgres@", "guest:secret@", 1)
    path = f"{tmp_path}:{os.environ['PATH']}"
    code, said = pilotkit("backup", tmp_path / "copy", PILOTKIT_DATABASE=of_guest, PATH=path)
    assert code == 1 and "secret" not in said
    assert said.startswith("pilotkit: pg_dump failed: --dbname=postgresql://guest@127.0.0.1:") and "known" in said
