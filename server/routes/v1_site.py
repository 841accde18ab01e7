"""v1 methods about queues, storages, sandbox files and the server itself."""

from __future__ import annotations

from urllib.parse import urlsplit

from server.logic import queues, recovery, removal, sandboxes, statistics
from server.logic.errors import BadField, NotFound
from server.routes.decoding import BadArgument
from server.routes.envelope import Reply, failure
from server.routes.registry import (
    ANY_ROLE,
    EVERYBODY,
    OPERATORS,
    USERS,
    Call,
    Kind,
    Registry,
    optional,
    required,
)

registry = Registry()


@registry.method("queue/add", "POST", OPERATORS, required("queues", Kind.OBJECT, "{name: description}"))
def add_queues(call: Call) -> object:
    """Add queues or replace their descriptions."""
    wanted = call.mapping("queues")
    return Reply([*wanted], message="; ".join(queues.add_queues(call.context, wanted, _actor(call))))


def _actor(call: Call) -> str:
    return call.identity.name or "operator"


@registry.method("queue/list", "GET", ANY_ROLE)
def list_queues(call: Call) -> object:
    """A line for each queue, with its jobs by state (over: in the last hour), and when they were counted."""
    return statistics.list_queues(call.context)


@registry.method("queue/get", "GET", ANY_ROLE, required("name"))
def get_queue(call: Call) -> object:
    """The whole description of a queue."""
    return queues.read_queue(call.context, call.text("name"))


@registry.method("queue/set", "POST", OPERATORS, required("name"), required("changes", Kind.OBJECT, "{key: value}"))
def set_queue(call: Call) -> object:
    """Change keys of a queue's description."""
    changes = call.mapping("changes")
    description, remarks = queues.change_queue(call.context, call.text("name"), changes, _actor(call))
    return Reply(description, message="; ".join(remarks))


@registry.method(
    "queue/remove", "POST", OPERATORS, required("name"), optional("force", Kind.FLAG, "kill the jobs that are there")
)
def remove_queue(call: Call) -> object:
    """Remove a queue that has no jobs; how many were killed for it."""
    return removal.remove_queue(call.context, call.text("name"), call.identity, force=call.flag("force"))


@registry.method(
    "storage/remove", "POST", OPERATORS, required("name"), optional("force", Kind.FLAG, "although queues name it")
)
def remove_storage(call: Call) -> object:
    """Remove a storage's description."""
    removal.remove_storage(call.context, call.text("name"), force=call.flag("force"))
    return None


@registry.method("storage/add", "POST", OPERATORS, required("storages", Kind.OBJECT, "{RSE: description}"))
def add_storages(call: Call) -> object:
    """Add storages or replace their descriptions."""
    return queues.add_storages(call.context, call.mapping("storages"))


@registry.method("storage/list", "GET", ANY_ROLE)
def list_storages(call: Call) -> object:
    """All storage descriptions by RSE."""
    return queues.read_storages(call.context)


@registry.method("file_server/upload_cache_file", "POST", USERS, uploads=("file",))
def upload_cache_file(call: Call) -> object:
    """Store a sandbox file."""
    upload = call.uploads.get("file")
    if upload is None:
        raise BadArgument("Argument error", "file_server/upload_cache_file needs a multipart part named 'file'")
    sandboxes.store_sandbox(call.context, upload.name, upload.content, call.identity)
    return None


@registry.method(
    "file_server/validate_cache_file",
    "POST",
    USERS,
    required("file_size", Kind.INTEGER, "bytes"),
    required("checksum", Kind.INTEGER, "CRC32 of the gzip footer"),
)
def validate_cache_file(call: Call) -> object:
    """Whether the caller has uploaded a file before."""
    try:
        found = sandboxes.find_sandbox(call.context, call.integer("file_size"), call.integer("checksum"), call.identity)
    except NotFound as error:
        return failure(str(error))
    return Reply(message=f"FOUND:{urlsplit(call.server).netloc}:{found.name}")


@registry.method(
    "file_server/upload_file_recovery_request",
    "POST",
    USERS,
    optional("task_id", Kind.INTEGER, "a task of which files are lost; this server wants their names"),
    optional("dry_run", Kind.FLAG, "only say what would be done"),
    optional("files", Kind.TEXTS, "scope:lfn of each lost file"),
)
def upload_file_recovery_request(call: Call) -> object:
    """Have lost outputs made again by new jobs."""
    if not call.items("files"):
        raise BadField("files", "is missing: this server cannot ask storages what a task has lost; name it, scope:lfn")
    names = recovery.read_names(call.items("files"))
    done = recovery.recover_files(call.context, names, call.identity, dry_run=call.flag("dry_run"))
    jobs = [{"PandaID": job, "new_PandaID": heir or None} for job, heir in done.heirs.items()]
    return Reply({"jobs": jobs, "waiting": done.waiting, "left": done.left}, message="; ".join(done.left))


@registry.method("system/is_alive", "GET", EVERYBODY)
def is_alive(call: Call) -> object:
    """Whether the server answers."""
    return "alive=True"


@registry.method("system/get_attributes", "GET", ANY_ROLE, optional("timeout", Kind.INTEGER))
def get_attributes(call: Call) -> object:
    """Who the caller is to this server."""
    roles = sorted(call.identity.roles)
    return {"environment": {}, "parameters": {}, "name": call.identity.name, "roles": roles}
