"""The files that clients need to log in (chapter 7.6.3 of PanDA's documents): open to everybody, as they must be."""

from __future__ import annotations

from flask import Blueprint, Response, current_app

from server.logic.names import shown
from server.routes import state

blueprint = Blueprint("auth", __name__)


@blueprint.get("/auth/<name>")
def auth_config(name: str) -> Response:
    """Where and as which client of the OIDC provider a user of a VO logs in: <vo>_auth_config.json."""
    page = state.of(current_app).gate.providers.config.page(name)
    if page is None:
        return Response(f"There is no file {shown(name)} here.\n", 404, content_type="text/plain; charset=utf-8")
    return Response(page, content_type="application/json")
