"""/events: changes of jobs' states as server-sent events (the HTML standard, section 9.2; wire.md section 8)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from flask import Blueprint, Response, current_app, request

from server.db.changes import StateChange
from server.logic.changes import Follower, TooMany
from server.logic.dispatch import iso_time
from server.routes import state
from server.routes.identities import Denied
from server.routes.registry import USERS

blueprint = Blueprint("stream", __name__)

#: s after which a client has to come back, which it does by itself: a token that was revoked is no longer good then.
_LIFE = 300.0
#: ms a client waits before it comes back.
_RETRY = 2000
#: s after which a client should come back when there is no room for it.
_RETRY_AFTER = 30


@blueprint.get("/events")
def follow() -> Response:
    """The changes of the caller's jobs (an operator's: of all), from now on or from Last-Event-ID on."""
    server = state.of(current_app)
    try:
        identity = server.gate.identify(request, server.context)
    except Denied as error:
        return _text(f"ERROR : {error}", 403)
    if not USERS & identity.roles:
        return _text(f"ERROR : /events is for {' and '.join(sorted(USERS))}; you are {identity.name}", 403)
    asked = request.headers.get("Last-Event-ID") or request.args.get("last_event_id", "")
    if asked and not (asked.isascii() and asked.isdigit() and len(asked) < 19):
        return _text("ERROR : Last-Event-ID must be the number of an event", 400)
    try:
        queues = frozenset(request.args.getlist("queue"))
        follower = server.feed.follow(identity, queues, int(asked) if asked else None)
    except TooMany as error:
        response = _text(f"ERROR : {error}; try again", 503)
        response.headers["Retry-After"] = str(_RETRY_AFTER)
        return response
    response = Response(_events(follower), content_type="text/event-stream")
    response.call_on_close(follower.close)
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would keep events back until its buffer is full
    return response


def _events(follower: Follower) -> Iterator[str]:
    until = time.monotonic() + _LIFE
    yield f"retry: {_RETRY}\n\n"
    for change in follower.news():
        yield ": nothing new\n\n" if change is None else _event(change)
        if time.monotonic() > until:
            return


def _event(change: StateChange) -> str:
    content = {
        "job_id": change.PandaID,
        "attempt_nr": change.attemptNr,
        "status": change.status,
        "time": iso_time(change.time),
        "queue": change.queue,
        "actor": change.actor,
        "reason": change.reason,
    }
    return f"id: {change.historyID}\nevent: state\ndata: {json.dumps(content)}\n\n"


def _text(text: str, status: int) -> Response:
    return Response(f"{text}\n", status, content_type="text/plain; charset=utf-8")
