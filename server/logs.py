"""What the server writes to its log: a line of text or of JSON for each event, with the id of its request.

Nothing here is given a secret: headers, queries and bodies of requests are never logged.
"""

from __future__ import annotations

import contextvars
import json
import logging
import sys
import time

#: The id of the request that this thread works on; empty outside of requests.
REQUEST_ID: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")

#: The attribute of a log record with what a program would like to read: logger.info(..., extra={FIELDS: {...}}).
FIELDS = "fields"

#: How often one kind of warning is logged at most, in s: when all is slow, a line for each request makes it slower.
_SPACING = 1.0


def configure(form: str, level: str) -> None:
    """Send the log of this process to standard error.

    Args:
        form: "text" or "json".
        level: a name of the logging module's, in small letters.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)


class Text(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, with the request's id at its end if there is one."""
        line = super().formatMessage(record)
        request_id = REQUEST_ID.get()
        return f"{line} [{request_id}]" if request_id else line


class JsonLines(logging.Formatter):
    """A line for programs: time (ISO 8601, UTC), level, logger, message, pid; request_id and exception if there are."""

    def format(self, record: logging.LogRecord) -> str:
        """The JSON object."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        content: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if request_id := REQUEST_ID.get():
            content["request_id"] = request_id
        content |= getattr(record, FIELDS, {})
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


class Spacing:
    """Lets something happen once in a while. Threads may share it: two at once do no harm."""

    def __init__(self, seconds: float = _SPACING) -> None:
        self._seconds = seconds
        self._next = 0.0
        self._held_back = 0

    def allows(self) -> int:
        """How often it was asked since it last said yes, this time included; 0 means no."""
        now = time.monotonic()
        self._held_back += 1
        if now < self._next:
            return 0
        self._next, number, self._held_back = now + self._seconds, self._held_back, 0
        return number
