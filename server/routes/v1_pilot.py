"""v1 methods of pilots, and of Harvester where it stands for them."""

from __future__ import annotations

from collections.abc import Mapping

from server.db.database import DatabaseUnavailable
from server.logic import details, fields, nodes, workers
from server.logic.dispatch import NoJob
from server.logic.errors import BadField
from server.logic.names import shown
from server.routes import requests
from server.routes.decoding import BadArgument, Body, check_arguments
from server.routes.envelope import Reply, failure
from server.routes.panda import FAILED, NO_JOBS, NULL, SUCCESS, update_answer
from server.routes.registry import (
    ANY_ROLE,
    PILOTS,
    Argument,
    Call,
    Kind,
    Method,
    Registry,
    optional,
    required,
)

registry = Registry()

#: legacy StatusCode of a state no pilot may report.
UNKNOWN_STATE = 50


@registry.method(
    "pilot/acquire_jobs",
    "POST",
    PILOTS,
    required("site_name"),
    optional("timeout", Kind.INTEGER),
    optional("memory", Kind.INTEGER, "MB"),
    optional("disk_space", Kind.INTEGER, "MB"),
    optional("prod_source_label"),
    optional("node"),
    optional("computing_element"),
    optional("prod_user_id"),
    optional("get_proxy_key", Kind.ANY),
    optional("task_id", Kind.INTEGER),
    optional("n_jobs", Kind.INTEGER),
    optional("background", Kind.ANY),
    optional("resource_type"),
    optional("resourceType", description="what Harvester 0.7 calls resource_type"),
    optional("harvester_id"),
    optional("worker_id", Kind.ANY),
    optional("scheduler_id"),
    optional("job_type", Kind.ANY),
    optional("via_topic", Kind.ANY),
    optional("remaining_time", Kind.INTEGER, "s"),
    optional("country_group", description="comma-joined"),
    optional("working_group", description="comma-joined"),
    optional("allow_other_country", Kind.ANY),
    optional("request_id"),
)
def acquire_jobs(call: Call) -> object:
    """Hand out up to n_jobs jobs."""
    names = {
        "queue": "site_name",
        "disk": "disk_space",
        "label": "prod_source_label",
        "user": "prod_user_id",
        "number": "n_jobs",
        "resource_type": "resource_type" if "resource_type" in call.values else "resourceType",
        "memory": "memory",
        "task_id": "task_id",
        "countries": "country_group",
        "working_groups": "working_group",
        "allow_other_country": "allow_other_country",
    }
    found = requests.acquire_jobs(call, names)
    if isinstance(found, NoJob):
        text = f"No jobs in PanDA: {found.sentence}"
        return failure(text, StatusCode=NO_JOBS, errorDialog=text, reason=found.reason, retry_after=found.retry_after)
    return {"StatusCode": SUCCESS, "jobs": found}


_KINDS = {fields.Kind.INTEGER: Kind.INTEGER, fields.Kind.NUMBER: Kind.NUMBER, fields.Kind.TEXT: Kind.TEXT}
_UPDATE_ARGUMENTS = tuple(
    Argument(name, _KINDS.get(f.kind, Kind.ANY), description=f.column, free=True) for name, f in fields.V1.items()
)


@registry.method(
    "pilot/update_job",
    "POST",
    PILOTS,
    required("job_id", Kind.INTEGER),
    required("job_status"),
    *_UPDATE_ARGUMENTS,
)
def update_job(call: Call) -> object:
    """Report the state of a job."""
    return _update(call, call.values)


def _update(call: Call, values: Mapping[str, object]) -> Reply:
    job_id = values.get("job_id")
    others = {name: value for name, value in values.items() if name not in ("job_id", "job_status")}
    status = str(values.get("job_status"))
    report = fields.collect(job_id if isinstance(job_id, int) else 0, status, others, fields.V1)
    report.claim_id = report.claim_id or call.claim
    answer = requests.update_job(call, report)
    if not answer.known_state:
        return failure(f"{shown(status)} is not a state a pilot can report", {"StatusCode": UNKNOWN_STATE})
    return Reply({**update_answer(answer), "pilotSecrets": None})


@registry.method(
    "pilot/update_jobs_bulk",
    "POST",
    PILOTS,
    required("job_list", Kind.ITEMS),
    optional("harvester_id"),
)
def update_jobs_bulk(call: Call) -> object:
    """Report the states of several jobs; what is wrong with one does not concern the others."""
    method = registry.find("pilot/update_job")
    assert method is not None
    return [_envelope(_one_of_many(call, method, item)) for item in call.items("job_list")]


def _one_of_many(call: Call, method: Method, item: object) -> Reply:
    failed = {"StatusCode": FAILED, "command": NULL}
    if not isinstance(item, dict):
        return failure(f"Type error: an item of job_list must be an object, not {shown(item)}", failed)
    try:
        return _update(call, check_arguments(method, Body(item, is_json=True), strict=True))
    except BadArgument as error:
        return failure(f"{error.kind}: {error}", failed)
    except BadField as error:
        return failure(f"Type error: {error}", failed)
    except DatabaseUnavailable as error:
        return failure(f"the database did not answer: {error}", failed)


def _envelope(reply: Reply) -> dict[str, object]:
    return {"success": reply.success, "message": reply.message, "data": reply.data}


@registry.method(
    "pilot/get_job_status",
    "GET",
    ANY_ROLE,
    required("job_ids", Kind.INTEGERS),
    optional("timeout", Kind.INTEGER),
)
def get_job_status(call: Call) -> object:
    """State and attempt of jobs."""
    return [
        {"job_id": job_id, "status": status or "not found", "attempt_number": attempt}
        for job_id, status, attempt in details.job_states(call.context, call.integers("job_ids"))
    ]


@registry.method(
    "pilot/update_worker_status",
    "POST",
    PILOTS,
    required("worker_id", Kind.ANY),
    required("harvester_id"),
    required("status"),
    optional("site"),
    optional("timeout", Kind.INTEGER),
    optional("node_id"),
)
def update_worker_status(call: Call) -> object:
    """Note that the pilot of a worker has started or finished."""
    workers.note_pilot(
        call.context,
        harvester_id=call.text("harvester_id"),
        worker_id=_worker(call),
        status=call.text("status"),
        site=call.text("site"),
        node_id=call.text("node_id"),
        identity=call.identity,
    )
    return True


def _worker(call: Call) -> str:
    worker = call.values["worker_id"]
    if isinstance(worker, bool) or not isinstance(worker, int | str) or "\x00" in str(worker):
        raise BadArgument("Type error", f"worker_id must be int, not {shown(worker)}")
    return str(worker)


@registry.method(
    "pilot/update_worker_node",
    "POST",
    PILOTS,
    required("site"),
    required("host_name"),
    required("cpu_model"),
    optional("panda_queue"),
    optional("n_logical_cpus", Kind.INTEGER),
    optional("n_sockets", Kind.INTEGER),
    optional("cores_per_socket", Kind.INTEGER),
    optional("threads_per_core", Kind.INTEGER),
    optional("cpu_architecture"),
    optional("cpu_architecture_level"),
    optional("clock_speed", Kind.NUMBER, "MHz"),
    optional("total_memory", Kind.INTEGER, "MB"),
    optional("total_local_disk", Kind.INTEGER, "GB"),
    optional("timeout", Kind.INTEGER),
)
def update_worker_node(call: Call) -> object:
    """Store what a pilot says of the machine it runs on."""
    nodes.update_node(call.context, call.text("site"), call.text("host_name"), "node", _facts(call))
    return True


@registry.method(
    "pilot/update_worker_node_gpu",
    "POST",
    PILOTS,
    required("site"),
    required("host_name"),
    required("vendor"),
    required("model"),
    required("count", Kind.INTEGER),
    optional("vram", Kind.INTEGER, "MB"),
    optional("architecture"),
    optional("framework"),
    optional("framework_version"),
    optional("driver_version"),
    optional("timeout", Kind.INTEGER),
)
def update_worker_node_gpu(call: Call) -> object:
    """Store what a pilot says of the GPUs of its machine."""
    kind = f"gpu:{call.text('vendor')}:{call.text('model')}"
    nodes.update_node(call.context, call.text("site"), call.text("host_name"), kind, _facts(call))
    return True


def _facts(call: Call) -> dict[str, object]:
    return {name: value for name, value in call.values.items() if name not in ("site", "host_name", "timeout")}
