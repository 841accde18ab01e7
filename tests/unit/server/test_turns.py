"""Requests in order: who is next, and what becomes of one that takes long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from server.turns import Turns, come_back, let_go

if TYPE_CHECKING:
    from server.turns import Turn

FOREVER = 3600.0
SOON = 20.0


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def waiting(turns: Turns, number: int) -> None:
    """Wait until so many wait for their turn."""
    arrived = threading.Event()
    for _ in range(2000):
        if len(turns._waiting) == number:
            return
        arrived.wait(0.01)
    raise AssertionError(f"{len(turns._waiting)} wait, not {number}")


def in_line(turns: Turns, threads: ThreadPoolExecutor, number: int) -> list[Future[Turn]]:
    """So many who wait, one after the other."""
    line = []
    for place in range(number):
        line.append(threads.submit(turns.take))
        waiting(turns, place + 1)
    return line


def test_they_pass_in_the_order_in_which_they_came(threads: ThreadPoolExecutor) -> None:
    turns = Turns(patience=FOREVER)
    now = turns.take()
    for coming in in_line(turns, threads, 8):
        assert not coming.done()
        turns.give_back(now)
        now = coming.result(SOON)
    turns.give_back(now)
    assert turns.take()  # nobody has it


def test_one_is_at_work_at_a_time(threads: ThreadPoolExecutor) -> None:
    turns = Turns(patience=FOREVER)
    at_work, most = 0, 0

    def work() -> None:
        nonlocal at_work, most
        for _ in range(200):
            turn = turns.take()
            at_work += 1
            most = max(most, at_work)
            at_work -= 1
            turns.give_back(turn)

    for one in [threads.submit(work) for _ in range(8)]:
        one.result(SOON)
    assert most == 1
    assert not turns._waiting


def test_who_takes_long_loses_the_turn_to_the_next_alone(threads: ThreadPoolExecutor) -> None:
    now = 0.0
    turns = Turns(patience=0.01, clock=lambda: now)
    slow = turns.take()
    first, second = in_line(turns, threads, 2)
    now = 0.01
    turn = first.result(SOON)
    with pytest.raises(TimeoutError):
        second.result(0.2)  # the first has just begun
    turns.give_back(slow)  # it has none any more
    assert not second.done()
    turns.give_back(turn)
    turns.give_back(second.result(SOON))
    assert turns._now is None


def test_as_many_as_have_to_wait_go_on_beside_those_that_hang(threads: ThreadPoolExecutor) -> None:
    turns = Turns(patience=0.01)
    for _ in range(5):
        turns.take()  # and never give it back
    last = threads.submit(turns.take).result(SOON)
    turns.give_back(last)
    assert turns._now is None


class Late:
    """A lock that a thread of a certain name has to wait for when it comes for the second time."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._times = 0
        self.there, self.go = threading.Event(), threading.Event()

    def __enter__(self) -> bool:
        if threading.current_thread().name == "late":
            self._times += 1
            if self._times == 2:
                self.there.set()
                assert self.go.wait(SOON)
        return self._lock.__enter__()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def test_whose_turn_came_and_went_before_it_looked_begins_all_the_same(threads: ThreadPoolExecutor) -> None:
    now = 0.0
    turns = Turns(patience=0.01, clock=lambda: now)
    late = turns._lock = Late(turns._lock)  # type: ignore[assignment]
    first = turns.take()
    ended: Future[None] = Future()

    def come() -> None:
        try:
            turns.give_back(turns.take())
            ended.set_result(None)
        except IndexError as error:
            ended.set_exception(error)

    thread = threading.Thread(target=come, name="late")
    thread.start()
    assert late.there.wait(SOON)
    last = threads.submit(turns.take)
    waiting(turns, 2)
    turns.give_back(first)
    now = 1.0
    turns.give_back(last.result(SOON))
    late.go.set()
    thread.join(SOON)
    ended.result(0)
    assert turns._now is None


def test_who_waits_for_the_disk_lets_the_next_one_go_on_and_comes_back_in_line(threads: ThreadPoolExecutor) -> None:
    turns = Turns(patience=FOREVER)
    with turns.turn():
        with come_back():
            other = threads.submit(turns.take)
            waiting(turns, 1)
            let_go()
            turn = other.result(SOON)
            threads.submit(turns.give_back, turn)
        assert turns._now is not None  # ours again
        with come_back():
            pass
    assert turns._now is None


def test_without_turns_there_is_nothing_to_let_go_of() -> None:
    with come_back():
        let_go()
