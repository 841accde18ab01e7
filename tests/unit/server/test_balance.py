"""Seats of web workers: who goes first, and on which CPU."""

from __future__ import annotations

import os
import selectors
import socket
from types import SimpleNamespace

import pytest

from server import webworker
from server.balance import Seats, one_cpu_each, stay_on_one_cpu
from server.settings import Settings


def test_who_has_two_connections_more_than_another_lets_it_go_first() -> None:
    seats = Seats()
    first, second = seats.take(), seats.take()
    assert (first, second) == (0, 1)
    seats.tell(first, 5)
    assert not seats.others_first(first)  # the second has yet to start
    seats.tell(first, 0)
    seats.tell(second, 0)
    assert not seats.others_first(first)
    seats.tell(first, 1)
    assert not seats.others_first(first)
    seats.tell(first, 2)
    assert seats.others_first(first) and not seats.others_first(second)
    seats.tell(second, 1)
    assert not seats.others_first(first)


def test_nobody_waits_for_a_worker_that_stops_or_has_gone() -> None:
    seats = Seats()
    first, second = seats.take(), seats.take()
    seats.tell(first, 9)
    seats.stop(second)
    assert not seats.others_first(first)
    seats.tell(second, 0)
    assert seats.others_first(first)
    seats.leave(second)
    assert not seats.others_first(first)
    assert seats.take() == second


def test_a_worker_alone_waits_for_nobody() -> None:
    seats = Seats()
    seat = seats.take()
    seats.tell(seat, 1000)
    assert not seats.others_first(seat)


def test_further_workers_than_seats_are_not_counted() -> None:
    seats = Seats()
    while (last := seats.take()) is not None:
        seats.tell(last, 5)
    seats.tell(None, 1)
    seats.stop(None)
    seats.leave(None)
    assert not seats.others_first(None)
    assert not seats.others_first(0)


def test_a_worker_that_hangs_is_waited_for_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted: list[object] = []
    pauses: list[float] = []
    now = 1000.0
    monkeypatch.setattr(webworker.ThreadWorker, "accept", lambda *listener: accepted.append(listener))
    clock = SimpleNamespace(sleep=pauses.append, monotonic=lambda: now)
    monkeypatch.setattr(webworker, "time", clock)
    seats = Seats()
    worker = webworker.WebWorker.__new__(webworker.WebWorker)
    worker.app, worker.alive, worker.nr_conns = SimpleNamespace(seats=seats), True, 5
    worker.seat, hanging, worker.cfg = seats.take(), seats.take(), SimpleNamespace(threads=8)
    seats.tell(hanging, 0)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        worker.sockets = [listener]
        for _ in range(50):
            worker.accept(listener)
        once = len(pauses)
        assert (len(accepted), 0 < once < 50) == (50, True)
        now += 1.0
        worker.accept(listener)
        assert (len(accepted), len(pauses)) == (51, 2 * once)
        listener.accept()[0].close()  # another worker has it
        now += 1.0
        worker.accept(listener)
        assert (len(accepted), len(pauses)) == (51, 2 * once + 1)


def test_nobody_waits_for_a_worker_without_a_free_thread() -> None:
    seats = Seats()
    worker = webworker.WebWorker.__new__(webworker.WebWorker)
    worker.app, worker.cfg, worker.nr_conns = SimpleNamespace(seats=seats), SimpleNamespace(threads=2), 2
    worker.seat, other = seats.take(), seats.take()
    seats.tell(other, 9)
    with socket.create_server(("127.0.0.1", 0)) as listener, selectors.DefaultSelector() as worker.poller:
        worker.sockets, worker._accepting = [listener], False
        worker.set_accept_enabled(True)
        assert len(worker.poller.get_map()) == 1 and seats.others_first(other)
        worker._at_work = 2
        worker.accept(listener)  # would fail: nobody waits
        assert not worker.poller.get_map() and not seats.others_first(other)
        worker.set_accept_enabled(True)
        assert not worker.poller.get_map() and not seats.others_first(other)
        worker._at_work = 1
        worker.set_accept_enabled(True)
        assert len(worker.poller.get_map()) == 1 and seats.others_first(other)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The CPUs a process wants to stay on, of a machine that has 4 for it."""
    found: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5, 6, 8})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _pid, cpus: found.append(set(cpus)))
    return found


@pytest.mark.parametrize(("seat", "expected"), [(0, [{3}]), (3, [{8}]), (5, [{5}]), (None, [])])
def test_each_seat_has_a_cpu(chosen: list[set[int]], seat: int | None, expected: list[set[int]]) -> None:
    stay_on_one_cpu(seat)
    assert chosen == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"workers": 4}, True),
        ({"workers": 8}, True),
        ({"workers": 2}, False),  # others may want to run here, too, and two CPUs would be left out
        ({"workers": 6}, False),  # two CPUs would have twice as much to do
        ({"workers": 4, "pin_workers": 0}, False),
        ({"workers": 4, "database": "sqlite:////data/x.db"}, True),
        ({"workers": 4, "database": "postgresql+psycopg://me@127.0.0.1:5433/panda"}, True),
        ({"workers": 4, "database": "postgresql+psycopg://me@localhost/panda"}, True),
        ({"workers": 4, "database": "postgresql+psycopg://me@/panda"}, True),
        ({"workers": 4, "database": "postgresql+psycopg://me@/panda?host=/run/postgresql"}, True),
        ({"workers": 4, "database": "postgresql+psycopg://me@/panda?host=db.example.org"}, False),
        ({"workers": 4, "database": "postgresql+psycopg://me@db.example.org/panda"}, False),
        ({"workers": 4, "database": "postgresql+psycopg://me@/panda?host=127.0.0.1,db.example.org"}, False),
        ({"workers": 4, "database": "postgresql+psycopg://me@/panda?hostaddr=10.1.2.3"}, False),
        ({"workers": 4, "database": "postgresql+psycopg:///?service=far"}, False),
    ],
)
def test_workers_have_a_cpu_each_if_all_get_alike_and_the_database_is_near(
    chosen: list[set[int]], settings: dict[str, object], expected: bool
) -> None:
    assert one_cpu_each(Settings(**settings)) is expected  # type: ignore[arg-type]
    assert not chosen


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("PGHOST", "db.example.org", False),
        ("PGHOST", "/run/postgresql", True),
        ("PGHOSTADDR", "10.1.2.3", False),
        ("PGSERVICE", "far", False),
    ],
)
def test_what_libpq_takes_from_the_environment_counts(
    chosen: list[set[int]], monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: bool
) -> None:
    monkeypatch.setenv(variable, value)
    assert one_cpu_each(Settings(workers=4, database="postgresql+psycopg:///panda")) is expected


def test_where_nobody_may_choose_a_cpu_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int, _cpus: set[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    stay_on_one_cpu(0)
