"""Files pilots fetch: queue and storage descriptions, sandboxes, and the scripts that run jobs. Open to everybody."""

from __future__ import annotations

import json
from pathlib import Path

from flask import Blueprint, Response, current_app, send_file

from server.logic import queues, sandboxes
from server.logic.errors import NotFound
from server.logic.names import complaint_about_file, shown
from server.routes import state

blueprint = Blueprint("cache", __name__)

_SCRIPTS = Path(__file__).resolve().parent.parent / "trf" / "user"
#: Both endings give the whole description: ours has nothing a pilot must not know.
_QUEUE_ENDINGS = (".all.json", ".pilot.json")


@blueprint.get("/cache/schedconfig/schedconfig.all.json")
def all_queues() -> Response:
    """The descriptions of all queues by name."""
    return _json(queues.queues_for_pilots(state.of(current_app).context))


@blueprint.get("/cache/schedconfig/<name>")
def one_queue(name: str) -> Response:
    """The description of a queue."""
    ending = next((ending for ending in _QUEUE_ENDINGS if name.endswith(ending)), None)
    if ending is None:
        return _missing(f"There is no file {shown(name)} here.")
    try:
        return _json(queues.queue_for_pilots(state.of(current_app).context, name.removesuffix(ending)))
    except NotFound as error:
        return _missing(str(error))


@blueprint.get("/cache/ddmendpoints.json")
def all_storages() -> Response:
    """The descriptions of all storages by RSE."""
    return _json(queues.read_storages(state.of(current_app).context))


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


def _json(content: object) -> Response:
    return Response(json.dumps(content), content_type="application/json")


def _missing(text: str) -> Response:
    return Response(f"{text}\n", 404, content_type="text/plain; charset=utf-8")
