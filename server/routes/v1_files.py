"""v1 methods by which Harvester's agents store files: logs and checkpoints (harvester.md section 2.1)."""

from __future__ import annotations

from server.logic import agentlogs
from server.routes.decoding import BadArgument
from server.routes.registry import HARVESTERS, OPERATORS, Call, Kind, Registry, Upload, required

registry = Registry()


@registry.method("file_server/upload_jedi_log", "POST", HARVESTERS, uploads=("file",))
def upload_jedi_log(call: Call) -> object:
    """Store a log of an agent in the place of the one before."""
    upload = _upload(call)
    return agentlogs.store_piece(call.context, upload.name, upload.content, call.identity, append=False)


@registry.method("file_server/update_jedi_log", "POST", HARVESTERS, uploads=("file",))
def update_jedi_log(call: Call) -> object:
    """Add a piece to the log of an agent."""
    upload = _upload(call)
    return agentlogs.store_piece(call.context, upload.name, upload.content, call.identity, append=True)


@registry.method("file_server/list_jedi_logs", "GET", OPERATORS)
def list_jedi_logs(call: Call) -> object:
    """Names and sizes of the logs of agents."""
    return agentlogs.list_logs(call.context)


@registry.method("file_server/get_jedi_log", "GET", OPERATORS, required("name"))
def get_jedi_log(call: Call) -> object:
    """The log of an agent."""
    return agentlogs.read_log(call.context, call.text("name"))


@registry.method(
    "file_server/upload_hpo_checkpoint",
    "POST",
    HARVESTERS,
    required("task_id", Kind.INTEGER),
    required("sub_id", Kind.ANY),
    uploads=("file",),
)
def upload_hpo_checkpoint(call: Call) -> object:
    """Store the checkpoint of a part of a task; payloads fetch it from /cache/."""
    upload = _upload(call)
    return agentlogs.store_checkpoint(call.context, _checkpoint(call), upload.content, call.identity)


@registry.method(
    "file_server/delete_hpo_checkpoint",
    "POST",
    HARVESTERS,
    required("task_id", Kind.INTEGER),
    required("sub_id", Kind.ANY),
)
def delete_hpo_checkpoint(call: Call) -> object:
    """Remove the checkpoint of a part of a task."""
    agentlogs.remove_checkpoint(call.context, _checkpoint(call), call.identity)
    return None


def _checkpoint(call: Call) -> str:
    return agentlogs.checkpoint_name(call.integer("task_id"), call.text("sub_id"))


def _upload(call: Call) -> Upload:
    upload = call.uploads.get("file")
    if upload is None:
        raise BadArgument("Argument error", "a multipart part named 'file' is needed")
    return upload
