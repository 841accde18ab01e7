"""Hears what is rung on machines without a daemon: a process of its own, since the daemon knows no database."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from multiprocessing.context import ForkProcess

from server.db.wakeup import SocketBell, hear_others
from server.settings import Settings


class Relay:
    """The process; there is none on SQLite, which one machine has for itself."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is started yet."""
        self._settings = settings
        self._process: ForkProcess | None = None

    def start(self) -> None:
        """Start it. It ends with this process, however that ends."""
        if not self._settings.database_url().startswith("sqlite"):
            self._process = get_context("fork").Process(target=_listen, args=(self._settings,), name="relay")
            self._process.start()

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
