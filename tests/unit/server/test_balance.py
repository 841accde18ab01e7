"""Seats of web workers: who goes first."""

from __future__ import annotations

from server.balance import Seats


def test_who_has_two_connections_more_than_another_lets_it_go_first() -> None:
    seats = Seats()
    first, second = seats.take(), seats.take()
    assert (first, second) == (0, 1)
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
