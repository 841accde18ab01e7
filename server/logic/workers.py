"""Workers: what Harvester and their pilots say of them, and how many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.db import harvesters, information, workers
from server.db.jobs import Value
from server.logic import workerform
from server.logic.context import Context, Identity, Role
from server.logic.errors import BadField, NotAllowed, NotFound
from server.logic.fields import read_integer
from server.logic.harvesters import MOST_ITEMS, check_owner, speak_for, with_times
from server.logic.names import has_control_characters, shown
from server.logic.queues import no_queue
from server.logic.workerform import OPEN, OVER, WorkerForm

#: Harvester repeats itself about a worker that lives several times a day; one that it does not name for this long, in
#: s, it has forgotten.
SILENCE = 86400
#: A pilot that has said its last word leaves its slot within minutes. If Harvester goes on counting on the worker for
#: this long, in s, it is told to look.
OUT_OF_STEP = 3600
_PILOT_STATUSES = ("started", "finished")
#: Longest names: the columns' own length.
_LENGTHS = {"harvester_id": 64, "worker_id": 64, "site": 128, "node_id": 128}


def update_workers(
    context: Context, harvester_id: str, items: Sequence[object], identity: Identity
) -> tuple[list[bool], list[str]]:
    """Store what an instance says of its workers.

    Returns:
        For each of them whether it was stored, as Harvester wants it, and what was wrong with the others in words.

    Raises:
        BadField: there are too many.
        NotAllowed: the instance belongs to somebody else.
    """
    if len(items) > MOST_ITEMS:
        raise BadField("workers", f"has {len(items)} workers; {MOST_ITEMS} is the most of one call")
    forms: list[WorkerForm | BadField] = []
    for item in items:
        try:
            forms.append(workerform.read_worker(item))
        except BadField as error:
            forms.append(error)
    good = [form for form in forms if isinstance(form, WorkerForm)]
    now = context.clock()
    with context.database.durable() as connection:
        speak_for(connection, harvester_id, identity, now)
        # In one order everywhere: two writers that lock rows in different ones wait for each other for ever.
        good.sort(key=lambda form: str(form.row["workerID"]))
        rows = [{**form.row, "watchTime": _watch_time(form, now)} for form in good]
        workers.store_workers(connection, harvester_id, rows, OVER, now)
        links = [(harvester_id, str(form.row["workerID"]), job_id) for form in good for job_id in form.job_ids]
        workers.link_jobs(connection, sorted(set(links)))
        harvesters.change_instance(connection, harvester_id, {"lastUpdate": now, **_host(good)})
        highest = max((int(str(form.row["workerID"])) for form in good), default=0)
        harvesters.raise_worker_id(connection, harvester_id, highest)
    complaints = [f"worker {n}: {form}" for n, form in enumerate(forms) if isinstance(form, BadField)]
    return [isinstance(form, WorkerForm) for form in forms], complaints


def _watch_time(form: WorkerForm, now: float) -> float:
    """When the worker synchronization looks at it: an ended worker may have left jobs behind."""
    return now if form.is_over else now + SILENCE


def _host(forms: Sequence[WorkerForm]) -> dict[str, object]:
    """Where the instance runs, which only its workers tell."""
    hosts = [form.row["harvesterHost"] for form in forms if form.row["harvesterHost"]]
    return {"hostname": hosts[-1]} if hosts else {}


def note_pilot(
    context: Context, *, harvester_id: str, worker_id: str, status: str, site: str, node_id: str, identity: Identity
) -> None:
    """Note that the pilot of a worker has started or finished; a worker we did not know is added.

    Raises:
        BadField: the status is another word, or a name is too long.
        NotAllowed: the worker is of another queue than the caller's credential, or of another's Harvester.
    """
    if status not in _PILOT_STATUSES:
        raise BadField("status", f"must be {' or '.join(_PILOT_STATUSES)}, not {shown(status)}")
    names = {"harvester_id": harvester_id, "worker_id": worker_id, "site": site, "node_id": node_id}
    for name, text in names.items():
        if len(text) > _LENGTHS[name]:
            raise BadField(name, f"has {len(text)} characters; {_LENGTHS[name]} is the most")
    now = context.clock()
    started = status == "started"
    values: dict[str, Value] = {
        "pilotStatus": status,
        "pilotStartTime" if started else "pilotEndTime": now,
        "watchTime": now + (SILENCE if started else OUT_OF_STEP),
        "computingSite": identity.queue or site or None,
        "nodeID": node_id or None,
    }
    with context.database.durable() as connection:
        instance = harvesters.find_instance(connection, harvester_id)
        if instance is not None and Role.PILOT not in identity.roles:
            check_owner(instance, identity)
        # Harvester ends workers whose pilots have gone: nobody may say so of those of others.
        if not workers.note_pilot(connection, (harvester_id, worker_id), values, identity.queue, now):
            worker = f"worker {shown(worker_id)} of {shown(harvester_id)}"
            raise NotAllowed(f"Your credential is for queue {identity.queue}; {worker} is of another queue.")


def report_statistics(context: Context, harvester_id: str, queue: str, statistics: object, identity: Identity) -> None:
    """Store how many workers an instance has in a queue: {job type: {resource type: {state: number}}}.

    Raises:
        BadField: it is something else.
        NotAllowed: the instance belongs to somebody else.
    """
    if not queue or len(queue) > 128 or has_control_characters(queue):
        raise BadField("panda_queue", f"must be the name of a queue, not {shown(queue)}")
    counts: dict[tuple[str, str, str], int] = {}
    for job_type, of_type in _mapping(statistics).items():
        for resource_type, states in _mapping(of_type).items():
            for status, number in _mapping(states).items():
                names = (job_type, resource_type, status)
                if any(len(name) > length for name, length in zip(names, (32, 16, 20), strict=True)):
                    raise BadField("statistics", f"has a name that is too long: {shown(names)}")
                counts[names] = read_integer("statistics", number, wide=False)
    if len(counts) > MOST_ITEMS:
        raise BadField("statistics", f"has {len(counts)} numbers; {MOST_ITEMS} is the most")
    if not counts:
        counts["ANY", "ANY", "running"] = 0  # it has none and says so, which is not the same as saying nothing
    now = context.clock()
    rows: list[dict[str, Value]] = [
        {"jobType": job_type, "resourceType": resource_type, "status": status, "n": n}
        for (job_type, resource_type, status), n in counts.items()
    ]
    with context.database.durable() as connection:
        speak_for(connection, harvester_id, identity, now)
        harvesters.change_instance(connection, harvester_id, {"lastUpdate": now})
        workers.replace_statistics(connection, harvester_id, queue, rows, now)


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise BadField("statistics", f"must be {{job type: {{resource type: {{state: number}}}}}}, not {shown(value)}")
    return value


def read_statistics(context: Context) -> dict[str, dict[str, dict[str, dict[str, dict[str, int]]]]]:
    """How many workers there are: {queue: {instance: {job type: {resource type: {state: number}}}}}."""
    found: dict[str, dict[str, dict[str, dict[str, dict[str, int]]]]] = {}
    with context.database.reading() as connection:
        rows = workers.read_statistics(connection)
    for row in rows:
        queue, instance, job_type, resource_type, status = (
            str(row[name]) for name in ("computingSite", "harvesterID", "jobType", "resourceType", "status")
        )
        of_queue = found.setdefault(queue, {}).setdefault(instance, {})
        of_queue.setdefault(job_type, {}).setdefault(resource_type, {})[status] = int(str(row["n"]))
    return found


def list_workers(
    context: Context, *, harvester_id: str | None, queue: str | None, statuses: Sequence[str], limit: int
) -> list[dict[str, object]]:
    """The workers heard of last that fulfil the conditions, with the PandaIDs of their jobs.

    Raises:
        BadField: there is no such state.
        NotFound: there is no such queue.
    """
    strange = next((status for status in statuses if status not in OPEN + OVER), None)
    if strange is not None:
        raise BadField("status", f"{shown(strange)} is no state of a worker; there are {', '.join(OPEN + OVER)}")
    with context.database.reading() as connection:
        if queue is not None and information.read_queue(connection, queue) is None:
            raise NotFound(no_queue(queue))
        found = workers.find_workers(
            connection,
            harvester_id=harvester_id,
            queue=queue,
            statuses=statuses,
            limit=max(0, min(limit, MOST_ITEMS)),
        )
        links = workers.find_links(connection, [_key(row) for row in found])
    return [
        {**with_times({k: v for k, v in row.items() if k != "watchTime"}), "pandaid_list": links.get(_key(row), [])}
        for row in found
    ]


def _key(row: Mapping[str, object]) -> tuple[str, str]:
    return str(row["harvesterID"]), str(row["workerID"])
