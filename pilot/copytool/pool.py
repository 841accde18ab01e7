"""What the transfers of one client use one after the other: connections, and processes of libraries."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Callable, Protocol, TypeVar, cast


class Lendable(Protocol):
    """usable: whether it can serve another transfer after this one."""

    @property
    def usable(self) -> bool: ...

    def close(self) -> None: ...


T = TypeVar("T", bound=Lendable)


class Pool:
    """Lends each thing to one transfer at a time. Safe to use from several threads."""

    def __init__(self) -> None:
        self._idle: dict[Hashable, list[Lendable]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, key: Hashable, make: Callable[[], T]) -> Iterator[T]:
        """Lend an idle thing of this key, or what `make` makes, for the time of a block.

        Things of one key are alike. What `make` raises is raised.
        """
        with self._lock:
            idle = self._idle.get(key)
            lent = cast(T, idle.pop()) if idle else None
        if lent is None:
            lent = make()
        try:
            yield lent
        finally:
            if lent.usable:
                with self._lock:
                    self._idle.setdefault(key, []).append(lent)
            else:
                lent.close()

    def close(self) -> None:
        """Close all that is idle."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for things in idle.values():
            for one in things:
                one.close()
