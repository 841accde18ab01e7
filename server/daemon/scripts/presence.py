"""presence: notes in the database that this machine has a daemon, for those who watch over the service."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from pilot import __version__
from server.db import daemons
from server.logic.context import Context

#: A machine that was not seen for this long, in s, is no longer one of ours.
_FORGOTTEN = 86400


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Note it once."""
    now = context.clock()
    with context.database.durable() as connection:
        daemons.note_daemon(connection, socket.gethostname()[:128], __version__, now)
        daemons.forget_daemons(connection, now - _FORGOTTEN)
    return False
