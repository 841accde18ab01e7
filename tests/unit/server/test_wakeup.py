"""The bell between web workers and daemon."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from server.db.wakeup import SocketBell, SocketEar


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
