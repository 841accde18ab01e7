"""Files pilots fetch: queue and storage descriptions, sandboxes, and the scripts that run jobs. Open to everybody."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, current_app, send_file

from server.logic import cachefiles, sandboxes
from server.logic.errors import NotFound
from server.logic.names import complaint_about_file, shown
from server.routes import state

blueprint = Blueprint("cache", __name__)

_SCRIPTS = Path(__file__).resolve().parent.parent / "trf" / "user"


@blueprint.get("/cache/schedconfig/<name>")
def queue_file(name: str) -> Response:
    """The description of a queue or of all of them, or the operators' values for pilots."""
    return _cache_file(f"schedconfig/{name}")


@blueprint.get("/cache/ddmendpoints.json")
def all_storages() -> Response:
    """The descriptions of all storages by RSE."""
    return _cache_file(cachefiles.ALL_STORAGES)


@blueprint.get("/cache/<name>")
def sandbox(name: str) -> Response:
    """A sandbox file."""
    try:
        path = sandboxes.fetch_sandbox(state.of(current_app).context, name)
    except NotFound as error:
        return _missing(str(error))
    return send_file(path, mimetype="application/octet-stream")


@blueprint.get("/trf/user/<name>")
def script(name: str) -> Response:
    """A script that pilots run as a job's transformation."""
    path = _SCRIPTS / name
    if complaint_about_file(name) or not path.is_file():
        return _missing(f"There is no script {shown(name)} here.")
    return send_file(path, mimetype="text/plain")


def _cache_file(path: str) -> Response:
    try:
        text = cachefiles.cache_file(state.of(current_app).context, path)
    except NotFound as error:
        return _missing(str(error))
    return Response(text, content_type="application/json" if path.endswith(".json") else "text/plain; charset=utf-8")


def _missing(text: str) -> Response:
    return Response(f"{text}\n", 404, content_type="text/plain; charset=utf-8")
