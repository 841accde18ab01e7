"""The bell between web workers and daemon."""

from __future__ import annotations

import os
import re
import select
import signal
import threading
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest

from server import logic
from server.daemon import relay
from server.db import wakeup
from server.db.database import Database
from server.db.wakeup import SocketBell, SocketEar, hear_others, notifier
from server.settings import Settings
from tests.pilots import wait_until
from tests.postgres import Postgres
from tests.unit.server.databases import EmptyPostgres


def test_what_is_rung_is_heard_at_once_and_once(tmp_path: Path) -> None:
    ear, bell = SocketEar(tmp_path), SocketBell(tmp_path)
    assert ear.heard() == set()
    for script in ("add_main", "activator", "add_main"):
        bell.ring(script)
    assert select.select([ear], [], [], 5)[0] == [ear]
    assert ear.heard() == {"add_main", "activator"}
    assert ear.heard() == set()
    bell.close()
    ear.close()
    assert os.listdir(tmp_path) == []


def test_ringing_without_a_daemon_does_nothing(tmp_path: Path) -> None:
    bell = SocketBell(tmp_path)
    bell.ring("add_main")
    ear = SocketEar(tmp_path)
    bell.ring("add_main")
    assert ear.heard() == {"add_main"}
    ear.close()
    bell.ring("add_main")
    bell.close()


def test_a_bell_that_nobody_listens_to_never_blocks(tmp_path: Path) -> None:
    ear, bell = SocketEar(tmp_path), SocketBell(tmp_path)
    for _ in range(10_000):
        bell.ring("add_main")
    assert ear.heard() == {"add_main"}
    bell.close()
    ear.close()


def test_a_path_too_long_for_a_socket_works_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # However long the folder for temporary files is too.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    ear, bell = SocketEar(deep), SocketBell(deep)
    bell.ring("add_main")
    assert ear.heard() == {"add_main"}
    bell.close()
    ear.close()


def test_a_later_daemon_takes_over_and_keeps_its_socket(tmp_path: Path) -> None:
    old, bell = SocketEar(tmp_path), SocketBell(tmp_path)
    new = SocketEar(tmp_path)
    old.close()
    bell.ring("add_main")
    assert new.heard() == {"add_main"}
    bell.close()
    new.close()


def test_a_daemon_whose_path_was_removed_binds_again(tmp_path: Path) -> None:
    ear, bell = SocketEar(tmp_path), SocketBell(tmp_path)
    (tmp_path / "daemon.sock").unlink()
    ear.keep_path()
    bell.ring("add_main")
    assert ear.heard() == {"add_main"}
    bell.close()
    ear.close()
    assert os.listdir(tmp_path) == []


def test_a_daemon_that_was_succeeded_leaves_the_path_to_its_successor(tmp_path: Path) -> None:
    old, bell = SocketEar(tmp_path), SocketBell(tmp_path)
    new = SocketEar(tmp_path)
    old.keep_path()
    bell.ring("add_main")
    assert new.heard() == {"add_main"}
    new.close()
    old.keep_path()
    bell.ring("watcher")
    assert old.heard() == {"watcher"}
    bell.close()
    old.close()


def test_a_data_directory_that_is_gone_stops_no_daemon(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    ear = SocketEar(data)
    (data / "daemon.sock").unlink()
    data.rmdir()
    ear.keep_path()
    assert ear.heard() == set()
    ear.close()


def test_who_hears_nobody_on_this_machine_rings_elsewhere(tmp_path: Path) -> None:
    others: list[str] = []
    bell = SocketBell(tmp_path, others.append)
    bell.ring("add_main")
    ear = SocketEar(tmp_path)
    bell.ring("activator")
    assert (others, ear.heard()) == (["add_main"], {"activator"})
    ear.close()
    bell.ring("watcher")
    assert others == ["add_main", "watcher"]
    bell.close()


def test_who_hears_other_machines_is_started_again_when_it_has_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_PAUSE", 0.0)
    ours = relay.Relay(Settings(data=str(tmp_path), database="postgresql+psycopg://nobody@127.0.0.1:1/none"))
    ours.start()
    try:
        first = ours.pid
        ours.look_after()
        assert ours.pid == first is not None, "one that lives is left alone"
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: ours.look_after() or ours.pid != first, "another process")
    finally:
        ours.stop()
    assert ours.pid is None


@pytest.mark.postgresql
def test_what_is_rung_on_one_machine_is_heard_on_another_through_postgresql(postgres: Postgres, tmp_path: Path) -> None:
    url = EmptyPostgres(postgres).put_into(tmp_path)
    heard: list[str] = []
    with closing(Database(url)) as database:
        ring = notifier(database)
        assert ring is not None
        listener = threading.Thread(target=hear_others, args=(url, heard.append, lambda: "enough" not in heard))
        listener.start()
        try:
            wait_until(lambda: ring("add_main") or "add_main" in heard, "the bell")
        finally:
            heard.append("enough")
            ring("add_main")  # so that it looks whether to go on
            listener.join(30)
    assert not listener.is_alive()


_LISTENERS = "SELECT pid FROM pg_stat_activity WHERE query = 'LISTEN pilotkit'"


@pytest.mark.postgresql
def test_what_may_have_been_rung_while_the_connection_was_lost_is_heard_when_there_is_another(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeup, "_PATIENCE", 0.1)
    url = EmptyPostgres(postgres).put_into(tmp_path)
    heard: list[str] = []
    over = threading.Event()
    listener = threading.Thread(target=hear_others, args=(url, heard.append, lambda: not over.is_set()))
    listener.start()
    try:
        with postgres.connect() as connection:
            wait_until(lambda: connection.execute(_LISTENERS).fetchall(), "it listens")
            assert heard == []
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM ({_LISTENERS}) AS listeners")
        wait_until(lambda: len(heard) == 3, "what may have been missed")
    finally:
        over.set()
        listener.join(30)
    assert set(heard) == {"add_main", "setupper", "global_shares"}
    assert not listener.is_alive()


def test_all_that_is_rung_for_is_rung_for_after_a_loss() -> None:
    rung = set()
    for path in Path(logic.__file__).parent.rglob("*.py"):
        for call in re.findall(r"bell\.ring\((.+)\)", path.read_text()):
            module = import_module(f"server.logic.{path.stem}")
            rung.add(call.strip('"') if '"' in call else getattr(module, call))
    assert rung == set(wakeup._RUNG)


def test_a_database_of_one_machine_needs_no_bell_for_others(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path}/x.db")) as database:
        assert notifier(database) is None
