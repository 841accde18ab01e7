"""Following jobs' changes of state as they happen: one thread reads for all who follow, while somebody does.

What is here is a convenience, not a queue: a follower that is too slow, or was away, asks again from the last number
it has seen. Changes appear in the order in which they become visible, which is nearly that of their numbers.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator

from server.counters import FOLLOWERS
from server.db import changes
from server.db.changes import StateChange
from server.db.database import DatabaseUnavailable
from server.logic.context import Context, Identity

logger = logging.getLogger(__name__)

#: s between two looks at the database.
PERIOD = 0.5
#: s that a transaction may take between its number and its end: so long a number that was passed over may still appear.
_LATEST = 10.0
#: Changes read at once.
_PIECE = 1000
#: Whoever was away for longer than so many changes goes on from there: reading all there ever was helps nobody.
_MOST_MISSED = 100_000
#: Changes kept for a follower that is slower than they come; with more it has to ask again.
_BACKLOG = 10_000
#: s after which a follower without news is given a sign of life.
QUIET = 15.0


class TooMany(Exception):
    """No more followers are taken."""


class Follower:
    """Somebody who follows; to be closed in the end, whatever happens."""

    def __init__(self, feed: Feed, wanted: Callable[[StateChange], bool], after: int | None) -> None:
        """Made by Feed.follow."""
        self._feed = feed
        self.wants = wanted
        self._after = after
        self._news: queue.Queue[StateChange] = queue.Queue(_BACKLOG)
        self._too_slow = False

    def offer(self, change: StateChange) -> None:
        """Give a change to this follower, if it is for it."""
        if self.wants(change):
            try:
                self._news.put_nowait(change)
            except queue.Full:
                self._too_slow = True

    def news(self) -> Iterator[StateChange | None]:
        """Changes as they come; None every QUIET seconds without one. Ends when there is a reason to ask again."""
        caught_up: set[int] = set()
        if self._after is not None:
            for change in self._feed.missed(self._after):
                caught_up.add(change.historyID)
                if self.wants(change):
                    yield change
        quiet = time.monotonic() + QUIET
        while not self._feed.leaving and not self._too_slow:
            try:
                change = self._news.get(timeout=PERIOD)
            except queue.Empty:
                if time.monotonic() >= quiet:
                    quiet = time.monotonic() + QUIET
                    yield None
                continue
            if change.historyID not in caught_up:
                yield change
                quiet = time.monotonic() + QUIET

    def close(self) -> None:
        """Follow no longer; may be called twice."""
        self._feed.remove(self)


class Feed:
    """The changes of state, for the followers of one process.

    Attributes:
        leaving: set when the process is to stop.
    """

    def __init__(self, context: Context) -> None:
        """Nothing is read yet."""
        self.leaving = False
        self._context = context
        self._lock = threading.Lock()
        self._followers: list[Follower] = []
        self._reader: threading.Thread | None = None

    def follow(self, identity: Identity, queues: frozenset[str], after: int | None) -> Follower:
        """Begin to follow.

        Args:
            identity: who follows: an operator sees all, a user what is their own.
            queues: only of jobs there; empty for all.
            after: the number of the last change that was seen; None begins now.

        Raises:
            TooMany: the process has as many followers as it may have.
        """

        def wanted(change: StateChange) -> bool:
            return identity.may_act_for(change.owner or "") and (not queues or change.queue in queues)

        follower = Follower(self, wanted, after)
        with self._lock:
            if len(self._followers) >= self._context.settings.event_clients:
                raise TooMany(f"this process has {len(self._followers)} followers already")
            if self._reader is None:
                settled, seen = self._begin()
                self._reader = threading.Thread(target=self._read, args=(settled, seen), name="changes", daemon=True)
                self._reader.start()
            self._followers.append(follower)
        self._context.counters.add(FOLLOWERS)
        return follower

    def leave(self) -> None:
        """End all: the process stops. A signal handler may call this: it takes no lock."""
        self.leaving = True

    def remove(self, follower: Follower) -> None:
        """Take a follower off the list, if it is there."""
        with self._lock:
            if follower not in self._followers:
                return
            self._followers.remove(follower)
        self._context.counters.add(FOLLOWERS, by=-1.0)

    def missed(self, after: int) -> Iterator[StateChange]:
        """What was written since a number, or the last of it."""
        with self._context.database.reading() as connection:
            after = max(after, changes.last_change(connection) - _MOST_MISSED)
        while True:
            with self._context.database.reading() as connection:
                numbers = changes.change_numbers(connection, after, _PIECE)
                found = changes.read_changes(connection, numbers)
            yield from found
            if len(numbers) < _PIECE:
                return
            after = numbers[-1]

    def _begin(self) -> tuple[int, dict[int, float]]:
        """Where the thread begins: what is there already counts as handed out, so that a late number is found."""
        with self._context.database.reading() as connection:
            settled = max(0, changes.last_change(connection) - _PIECE)
            numbers = changes.change_numbers(connection, settled, _PIECE)
        return settled, dict.fromkeys(numbers, time.monotonic())

    def _read(self, settled: int, seen: dict[int, float]) -> None:
        """The thread's life: look, hand out, wait; until nobody follows any more."""
        while True:
            time.sleep(PERIOD)  # nothing tells of a row that another process writes
            with self._lock:
                if not self._followers or self.leaving:
                    self._reader = None
                    return
            try:
                settled = self._look(settled, seen)
            except DatabaseUnavailable as error:
                logger.warning("changes of state cannot be read for /events: %s", error)

    def _look(self, settled: int, seen: dict[int, float]) -> int:
        """Hand out what is new.

        Args:
            settled: no number up to this one can still appear.
            seen: number -> when it was handed out, of those that are greater; changed.

        Returns:
            The new `settled`.
        """
        with self._context.database.reading() as connection:
            numbers = changes.change_numbers(connection, settled, _PIECE + len(seen))
            new = [number for number in numbers if number not in seen][:_PIECE]
            found = changes.read_changes(connection, new)
        now = time.monotonic()
        with self._lock:
            followers = list(self._followers)
        for change in found:
            seen[change.historyID] = now
            for follower in followers:
                follower.offer(change)
        for number in sorted(seen):
            if seen[number] > now - _LATEST:
                break
            settled = number
            del seen[number]
        return settled
