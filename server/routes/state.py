"""What the application keeps beside Flask's own things: one object, put there by create_app."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask

from server.logic.changes import Feed
from server.logic.context import Context
from server.routes.identities import Gate

_KEY = "pilotkit"


@dataclass(frozen=True)
class ServerState:
    """The surroundings of every request of a process."""

    context: Context
    gate: Gate
    feed: Feed


def attach(app: Flask, server: ServerState) -> None:
    """Give an application its state."""
    app.extensions[_KEY] = server


def close(app: Flask) -> None:
    """Close what the state of an application holds open."""
    context = of(app).context
    of(app).feed.leave()
    context.database.close()
    context.bell.close()
    context.counters.close()


def of(app: Flask) -> ServerState:
    """The state of an application."""
    server = app.extensions[_KEY]
    assert isinstance(server, ServerState)
    return server
