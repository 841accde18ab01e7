"""The pilot's log: pilotlog.txt in its work directory, and standard output."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pilot.util.blot import without_secrets

_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-8s %(threadName)-10s %(message)s"
_TIME = "%Y-%m-%dT%H:%M:%S"


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
        handlers.append(logging.StreamHandler(sys.stdout))
    if pilotlog is not None:
        handlers.append(logging.FileHandler(pilotlog, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    # A log that cannot be written (full disk, closed pipe) must not fill stderr with tracebacks.
    logging.raiseExceptions = debug
    return logger


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
        handler.close()
