"""The pilot's log: pilotlog.txt in its work directory, and standard output."""

from __future__ import annotations

import logging
import os
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from pilot.util.blot import without_secrets

_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-8s %(threadName)-10s %(message)s"
_TIME = "%Y-%m-%dT%H:%M:%S"
# How long (s) a reader of standard output may make the pilot wait for it.
_PATIENCE = 1.0
# What a pipe that is ready is sure to take (bytes, PIPE_BUF of limits.h).
_PAGE = 4096


def establish_logging(
    debug: bool, pilotlog: Path | None, stdout: str = "", blot: Callable[[str], str] = without_secrets
) -> logging.Logger:
    """Start logging and return the logger.

    pilotlog: the file, None for none. stdout: path that takes the place of standard output, empty for standard output.
    blot: takes the secrets out of each record. Raises OSError when a file cannot be opened.
    """
    logger = logging.getLogger("pilot")
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False
    formatter = BlottingFormatter(_FORMAT, _TIME, blot)
    # UTC: nodes, servers and their people are in different time zones.
    formatter.converter = time.gmtime
    handlers: list[logging.Handler] = []
    if stdout:
        handlers.append(logging.FileHandler(stdout, encoding="utf-8"))
    elif sys.stdout is not None:
        handlers.append(Console(sys.stdout))
    if pilotlog is not None:
        handlers.append(logging.FileHandler(pilotlog, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    # A log that cannot be written (full disk, closed pipe) must not fill stderr with tracebacks.
    logging.raiseExceptions = debug
    return logger


class Console(logging.StreamHandler):  # type: ignore[type-arg]  # Python 3.9 cannot index it
    """Standard output. It may be a pipe that nobody reads: then lines are dropped, and do not hold up the pilot."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or count it as dropped."""
        try:
            descriptor = self.stream.fileno()
        except (OSError, ValueError):  # it is none of the kernel's files
            super().emit(record)
            return
        try:
            told = f"({self._dropped} line(s) are missing here: nobody has read them)\n" if self._dropped else ""
            data = f"{told}{self.format(record)}\n".encode("utf-8", "replace")
            if _write(descriptor, data, 0.0 if self._dropped else _PATIENCE):
                self._dropped = 0
            else:
                self._dropped += 1
        except OSError:
            self.handleError(record)


def _write(descriptor: int, data: bytes, patience: float) -> bool:
    """Write as long as that is possible at once, waiting up to `patience` s for each piece; return whether all is out.

    A pipe that is ready takes a page without holding up the writer.
    """
    for at in range(0, len(data), _PAGE):
        ready = select.poll()
        ready.register(descriptor, select.POLLOUT)
        if not ready.poll(patience * 1000):
            return False
        os.write(descriptor, data[at : at + _PAGE])
    return True


class BlottingFormatter(logging.Formatter):
    """Blots secrets out of whole records, arguments and tracebacks included."""

    def __init__(self, form: str, time_form: str | None = None, blot: Callable[[str], str] = without_secrets) -> None:
        super().__init__(form, time_form)
        self._blot = blot

    def format(self, record: logging.LogRecord) -> str:
        """As the base does it."""
        return self._blot(super().format(record))


def stop_logging(logger: logging.Logger) -> None:
    """Close the log's files."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        # On a full disk the last lines find no place; the file is closed all the same.
        with suppress(OSError):
            handler.close()
