"""What watches over a server asks it: is it alive, and can it serve? Open to everybody, and cheap."""

from __future__ import annotations

import json
import logging

from flask import Blueprint, Response, current_app

from server.db import daemons
from server.db.database import DatabaseUnavailable
from server.db.migrate import HEAD, revision_of
from server.logic.context import Context
from server.routes import state

blueprint = Blueprint("health", __name__)
logger = logging.getLogger(__name__)

#: A daemon that was not seen for this long, in s, has gone or hangs: four of its script presence's periods.
_DAEMON_PATIENCE = 120


@blueprint.get("/healthz")
def healthz() -> Response:
    """This process answers. Nothing else is looked at: a server is not to be killed because its database is away."""
    return Response("ok\n", content_type="text/plain; charset=utf-8")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Whether this server can do its work: 200, or 503 with the reason.

    A daemon that is not seen is told, and is no reason: without one jobs are handed out and reports are kept, and if
    every server were taken out of service for it, nothing would be left.
    """
    try:
        checks = _checks(state.of(current_app).context)
    except DatabaseUnavailable as error:
        logger.error("not ready: the database did not answer: %s", error)
        checks = {"database": "did not answer"}
    ready = checks["database"] == "ok" and checks["migrations"] == "ok"
    return Response(json.dumps({"ready": ready, **checks}), 200 if ready else 503, content_type="application/json")


def _checks(context: Context) -> dict[str, str]:
    with context.database.reading() as connection:
        revision = revision_of(connection)
        if revision != HEAD:
            return {"database": "ok", "migrations": f"the database is at {revision}, this server at {HEAD}"}
        seen = daemons.last_seen(connection)
    age = None if seen is None else context.clock() - seen
    daemon = "never seen" if age is None else "ok" if age < _DAEMON_PATIENCE else f"not seen for {age:.0f} s"
    return {"database": "ok", "migrations": "ok", "daemon": daemon}
