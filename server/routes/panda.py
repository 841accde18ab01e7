"""The legacy API: /server/panda/<method>, in the shapes of wire.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from urllib.parse import quote_plus

from flask import Blueprint, Request, Response, current_app, request

from server.db.database import DatabaseUnavailable
from server.logic import credentials, details, fields, workers
from server.logic.credentials import NoCredential
from server.logic.dispatch import NoJob
from server.logic.errors import BadField, DispatcherError, NotAllowed
from server.logic.fields import JobReport
from server.logic.names import shown
from server.logic.updates import UpdateAnswer
from server.routes import panda_events, panda_harvester, panda_jobs, requests, state
from server.routes.calling import WrongRole, prepare_call
from server.routes.decoding import BadArgument, Malformed, parse_json, read_body
from server.routes.envelope import Encoded
from server.routes.identities import Denied
from server.routes.registry import (
    ANY_ROLE,
    EVERYBODY,
    PILOTS,
    Argument,
    Call,
    Kind,
    Registry,
    optional,
    required,
)

SUCCESS, NO_JOBS, FAILED, WRONG_ROLE = 0, 20, 30, 60
#: The word for "no value" on this wire.
NULL = "NULL"

blueprint = Blueprint("panda", __name__)
registry = Registry()
for _module in (panda_events, panda_harvester, panda_jobs):
    registry.include(_module.registry)


@blueprint.route("/server/panda/<method_name>", methods=["GET", "POST"])
def call_method(method_name: str) -> Response:
    """Any legacy method."""
    method = registry.find(method_name)
    if method is None:
        return _text(f"ERROR : method {shown(method_name).strip(chr(39))} is forbidden", 403)
    if request.method not in method.verbs:  # HEAD, which Flask takes for GET: it must not claim a job
        return _text(f"ERROR : {method_name} takes {' or '.join(sorted(method.verbs))}", 405)
    server = state.of(current_app)
    try:
        body = read_body(request, server.context.settings.body_limit)
        wants_json = body.is_json or "application/json" in request.headers.get("Accept", "")
        call = prepare_call(server.context, server.gate, method, request, body, strict=False, wants_json=wants_json)
        answer = method.handler(call)
    except Denied as error:
        return _text(f"ERROR : {error}", 403)
    except (WrongRole, NotAllowed) as error:
        answer = {"StatusCode": WRONG_ROLE, "errorDialog": str(error)}
        wants_json = _accepts_json(request)
    except (Malformed, BadArgument, DispatcherError) as error:
        return _text(f"ERROR : {error}", 400)
    return encode(answer, wants_json=wants_json)


def _accepts_json(asked: Request) -> bool:
    return "json" in f"{asked.headers.get('Accept', '')} {asked.mimetype}"


def encode(answer: object, *, wants_json: bool) -> Response:
    """An answer as the caller wants it: JSON, or url-encoded text."""
    if isinstance(answer, Response):
        return answer
    if isinstance(answer, Encoded):
        return encode(answer.content, wants_json=answer.as_json)
    if isinstance(answer, str):
        return _text(answer, 200)
    if wants_json:
        return Response(json.dumps(answer), content_type="application/json")
    return _text(url_encoded(answer) if isinstance(answer, dict) else str(answer), 200)


def url_encoded(values: Mapping[str, object]) -> str:
    """Values as old clients read them: lists and objects as JSON text, no value as the word None."""
    return "&".join(f"{quote_plus(key)}={quote_plus(_flat(value))}" for key, value in values.items())


def _flat(value: object) -> str:
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _text(text: str, status: int) -> Response:
    return Response(text, status=status, content_type="text/plain; charset=utf-8")


# What old pilots send with getJob and nobody uses (wire.md section 4).
_IGNORED = tuple(
    optional(name, Kind.ANY)
    for name in (
        "token",
        "timeout",
        "cpu",
        "AtlasRelease",
        "getProxyKey",
        "background",
        "jobType",
        "viaTopic",
    )
)


@registry.method(
    "getJob",
    "GET POST",
    PILOTS,
    required("siteName"),
    optional("mem", Kind.INTEGER, "MB"),
    optional("diskSpace", Kind.INTEGER, "MB"),
    optional("prodSourceLabel"),
    optional("node"),
    optional("computingElement"),
    optional("prodUserID"),
    optional("taskID", Kind.INTEGER),
    optional("nJobs", Kind.INTEGER),
    optional("resourceType"),
    optional("harvester_id"),
    optional("worker_id"),
    optional("schedulerID"),
    optional("remaining_time", Kind.INTEGER, "s"),
    optional("countryGroup"),
    optional("workingGroup"),
    optional("allowOtherCountry", Kind.ANY),
    optional("request_id"),
    *_IGNORED,
)
def get_job(call: Call) -> object:
    """Hand out a job, or with nJobs a list of jobs."""
    names = {
        "queue": "siteName",
        "memory": "mem",
        "disk": "diskSpace",
        "label": "prodSourceLabel",
        "user": "prodUserID",
        "task_id": "taskID",
        "number": "nJobs",
        "resource_type": "resourceType",
        "computing_element": "computingElement",
        "scheduler_id": "schedulerID",
        "countries": "countryGroup",
        "working_groups": "workingGroup",
        "allow_other_country": "allowOtherCountry",
    }
    found = requests.acquire_jobs(call, names)
    if isinstance(found, NoJob):
        return {
            "StatusCode": NO_JOBS,
            "errorDialog": f"No jobs in PanDA: {found.sentence}",
            "reason": found.reason,
            "retry_after": found.retry_after,
        }
    return {"StatusCode": SUCCESS, "jobs": found} if "nJobs" in call.values else found[0]


_UPDATE_ARGUMENTS = tuple(Argument(name, Kind.ANY, description=f.column) for name, f in fields.LEGACY.items())


@registry.method("updateJob", "GET POST", PILOTS, required("jobId"), required("state"), *_UPDATE_ARGUMENTS)
def update_job(call: Call) -> object:
    """Report the state of a job."""
    return _update(call, call.values)


def _update(call: Call, values: Mapping[str, object]) -> dict[str, object]:
    report = _report(call, values)
    if report is None:
        return {"StatusCode": SUCCESS, "command": NULL}
    return update_answer(requests.update_job(call, report))


def _report(call: Call, values: Mapping[str, object]) -> JobReport | None:
    """The report in the arguments of updateJob; None if it is about no job at all."""
    job_id = str(values.get("jobId", ""))
    if job_id == NULL:
        return None
    if not (job_id.isascii() and job_id.isdigit() and len(job_id) < 19):
        raise BadField("jobId", f"must be a PandaID, not {shown(job_id)}")
    others = {name: value for name, value in values.items() if name not in ("jobId", "state")}
    unknown = next((name for name in others if name not in fields.LEGACY), None)
    if unknown is not None:
        raise BadField(shown(unknown), "is no argument of updateJob")
    report = fields.collect(int(job_id), str(values.get("state", "")), others, fields.LEGACY)
    report.claim_id = report.claim_id or call.claim
    return report


def update_answer(answer: UpdateAnswer) -> dict[str, object]:
    """The values of an update's answer."""
    values: dict[str, object] = {"StatusCode": SUCCESS, "command": answer.command or NULL}
    if answer.lease_end is not None:
        values |= {"lease_end": answer.lease_end, "next_heartbeat": answer.next_heartbeat}
    return values


@registry.method("updateJobsInBulk", "GET POST", PILOTS, required("jobList", Kind.ANY), optional("harvester_id"))
def update_jobs_in_bulk(call: Call) -> object:
    """Report the states of several jobs; what is wrong with one does not concern the others."""
    job_list = call.values["jobList"]
    items = parse_json(job_list) if isinstance(job_list, str) else job_list
    if not isinstance(items, list):
        raise BadArgument("Type error", "jobList must be a JSON list of objects")
    answers: list[object] = []
    for item in items:
        try:
            if not isinstance(item, dict) or "jobId" not in item or "state" not in item:
                raise BadField("jobList", f"has an item without jobId and state: {shown(item)}")
            answer = _update(call, item)
        except (BadField, DatabaseUnavailable) as error:
            answer = {"StatusCode": FAILED, "command": NULL, "errorDialog": str(error)}
        accepted = "application/json" in call.headers.get("Accept", "")
        answers.append({"type": "json", "content": json.dumps(answer)} if accepted else url_encoded(answer))
    return Encoded([True, answers], as_json=True)


@registry.method("getStatus", "GET POST", ANY_ROLE, required("ids"), optional("timeout", Kind.ANY))
def get_status(call: Call) -> object:
    """State and attempt of jobs, joined by plus signs."""
    states = details.job_states(call.context, _job_ids(call.text("ids"), " "))
    return Encoded(
        {
            "StatusCode": SUCCESS,
            "status": "+".join(status or "notfound" for _, status, _ in states),
            "attemptNr": "+".join(str(attempt) for *_, attempt in states),
        },
        as_json=False,
    )


@registry.method("checkJobStatus", "GET POST", ANY_ROLE, required("ids"), optional("timeout", Kind.ANY))
def check_job_status(call: Call) -> object:
    """State and order of jobs."""
    orders = details.job_orders(call.context, _job_ids(call.text("ids"), ","))
    told = [{"status": order["status"], "command": order["command"]} for order in orders]
    return Encoded({"StatusCode": SUCCESS, "data": told}, as_json=True)


#: More jobs than this in one question is a mistake.
_MOST_IDS = 10_000


def _job_ids(text: str, separator: str) -> list[int]:
    words = [word for word in text.replace(separator, " ").split() if word]
    bad = next((word for word in words if not (word.isascii() and word.isdigit() and len(word) < 19)), None)
    if bad is not None or not words or len(words) > _MOST_IDS:
        raise BadArgument("Type error", f"ids must be up to {_MOST_IDS} PandaIDs, not {shown(bad if bad else text)}")
    return [int(word) for word in words]


@registry.method(
    "updateWorkerPilotStatus",
    "GET POST",
    PILOTS,
    required("site"),
    required("workerID"),
    required("harvesterID"),
    required("status"),
    optional("timeout", Kind.ANY),
    optional("node_id"),
)
def update_worker_pilot_status(call: Call) -> object:
    """Note that the pilot of a worker has started or finished."""
    workers.note_pilot(
        call.context,
        harvester_id=call.text("harvesterID"),
        worker_id=call.text("workerID"),
        status=call.text("status"),
        site=call.text("site"),
        node_id=call.text("node_id"),
        identity=call.identity,
    )
    return {"StatusCode": SUCCESS}


@registry.method("getProxy", "GET POST", PILOTS, required("role"), required("dn"))
def get_proxy(call: Call) -> object:
    """The proxy of a name with a role."""
    role, dn = call.text("role"), call.text("dn")
    return _credential(lambda: {"userProxy": credentials.proxy(call.context, call.identity, role, dn)})


@registry.method("get_access_token", "GET POST", PILOTS, required("client_name"), optional("token_key"))
def get_access_token(call: Call) -> object:
    """The token of a client."""
    name, key = call.text("client_name"), call.text("token_key")
    return _credential(lambda: {"userProxy": credentials.access_token(call.context, call.identity, name, key)})


@registry.method("get_token_key", "GET POST", PILOTS, required("client_name"))
def get_token_key(call: Call) -> object:
    """The key for the token of a client."""
    name = call.text("client_name")
    return _credential(lambda: {"tokenKey": credentials.token_key(call.context, call.identity, name)})


@registry.method("getKeyPair", "GET POST", PILOTS, required("publicKeyName"), required("privateKeyName"))
def get_key_pair(call: Call) -> object:
    """The two keys of an object store."""
    names = call.text("publicKeyName"), call.text("privateKeyName")

    def read() -> dict[str, str]:
        public, private = credentials.key_pair(call.context, call.identity, *names)
        return {"publicKey": public, "privateKey": private}

    return _credential(read)


def _credential(read: Callable[[], dict[str, str]]) -> Encoded:
    try:
        return Encoded({"StatusCode": SUCCESS, **read()}, as_json=True)
    except NoCredential as error:
        return Encoded({"StatusCode": int(error.code), "errorDialog": str(error)}, as_json=True)


@registry.method("isAlive", "GET POST", EVERYBODY)
def is_alive(call: Call) -> object:
    """Whether the server answers."""
    return "alive=yes"
