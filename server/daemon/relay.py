"""Hears what is rung on machines without a daemon: a process of its own, since the daemon knows no database."""

from __future__ import annotations

import logging
import os
import signal
import time
from multiprocessing import get_context
from multiprocessing.context import ForkProcess

from server.db.wakeup import SocketBell, hear_others
from server.settings import Settings

logger = logging.getLogger(__name__)

#: s between two starts of one that dies.
_PAUSE = 10.0


class Relay:
    """The process; there is none on SQLite, which one machine has for itself."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is started yet."""
        self._settings = settings
        self._process: ForkProcess | None = None
        self._started = 0.0

    def start(self) -> None:
        """Start it. It ends with this process, however that ends."""
        if not self._settings.database_url().startswith("sqlite"):
            self._process = get_context("fork").Process(target=_listen, args=(self._settings,), name="relay")
            self._process.start()
            self._started = time.monotonic()

    @property
    def pid(self) -> int | None:
        """Its number; None if there is none."""
        return None if self._process is None else self._process.pid

    def look_after(self) -> None:
        """Start it again if it has died: nobody would miss it, and each ring from elsewhere would wait for a period."""
        if self._process is None or time.monotonic() - self._started < _PAUSE or self._process.is_alive():
            return
        logger.error("the process that hears other machines died and is started again")
        self.stop()
        self.start()

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.join()
            self._process.close()
            self._process = None


def _listen(settings: Settings) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    bell = SocketBell(settings.data_path())
    hear_others(settings.database_url(), bell.ring, lambda: os.getppid() == parent)
    bell.close()
