"""The last resort: a timer that ends the process when what it watches over hangs (promise N2)."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from typing import Callable


class DeadMan:
    """Ends the process after `limit` seconds with the shell code that `code` gives then, unless it is disarmed.

    what: is told as what did not end. Threads that hang must not keep a batch slot for days.
    """

    def __init__(self, log: logging.Logger, what: str, limit: float, code: Callable[[], int]) -> None:
        self._log = log
        self._what = what
        self._limit = limit
        self._code = code
        self._timer = threading.Timer(limit, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def disarm(self) -> None:
        """It has ended after all."""
        self._timer.cancel()

    def _expire(self) -> None:
        self._log.critical("%s did not end within %.0f s: leaving by force", self._what, self._limit)
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            story = "".join(traceback.format_stack(frame))
            self._log.critical("thread %s is here:\n%s", names.get(ident, ident), story)
        # The code of an end like this is never that of success.
        os._exit(self._code() or 1)
