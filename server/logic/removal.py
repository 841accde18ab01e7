"""Taking queues and storages out again that nobody needs any more."""

from __future__ import annotations

from server.db import information, jobs, sources
from server.logic.context import Context, Identity
from server.logic.cric import QUEUES, STORAGES
from server.logic.errors import Conflict, NotFound
from server.logic.exclusions import exclude_closed
from server.logic.kills import FORCE, kill_jobs
from server.logic.names import shown
from server.logic.queues import no_queue
from server.logic.states import OVER, Status

#: What a queue's history says of one that is gone.
REMOVED = "removed"
#: More jobs than this are not killed in one call, which would take minutes.
_MOST_JOBS = 10_000
_LIVE = tuple(status for status in Status if status not in OVER)


def remove_queue(context: Context, name: str, identity: Identity, *, force: bool = False) -> int:
    """Remove a queue's description; its history stays.

    Args:
        force: kill the jobs that are there and not over, as an operator kills by force.

    Returns:
        How many jobs were killed.

    Raises:
        NotFound: there is no such queue.
        Conflict: it has jobs that are not over, or the information service describes it; nothing was removed.
    """
    with context.database.reading() as connection:
        queue = information.read_queue(connection, name)
        if queue is None:
            raise NotFound(no_queue(name))
        _check_source(sources.read_entry(connection, QUEUES, name), f"the queue {shown(name)}", "status=offline")
        there = jobs.find_of_queue(connection, name, _LIVE, _MOST_JOBS + 1)
    if len(there) > _MOST_JOBS:
        raise Conflict(f"The queue {shown(name)} has more than {_MOST_JOBS} jobs that are not over: end them first.")
    if there and not force:
        raise Conflict(
            f"The queue {shown(name)} has jobs that are not over ({len(there)}, the newest is {there[0]}). "
            "Wait for them, or remove it by force, which kills them."
        )
    kill_jobs(context, there, identity, FORCE)
    with context.database.durable() as connection:
        queue = information.read_queue_to_change(connection, name)
        if queue is None:
            raise NotFound(no_queue(name))
        left = jobs.find_of_queue(connection, name, _LIVE, 1)
        if left:
            raise Conflict(f"The queue {shown(name)} still has jobs that are not over (job {left[0]}): try again.")
        information.remove_queue(connection, name)
        sources.remove_entries(connection, QUEUES, [name])
        last = queue._replace(status=REMOVED)
        information.add_queue_history(connection, last, context.clock(), identity.name or "operator", "by hand")
    return len(there)


def remove_storage(context: Context, name: str, *, force: bool = False) -> None:
    """Remove a storage's description. What lies there stays, and is no input for anybody any more.

    Args:
        force: although queues name it.

    Raises:
        NotFound: there is no such storage.
        Conflict: a queue names it, or the information service describes it; nothing was removed.
    """
    with context.database.durable() as connection:
        if name not in information.read_storages(connection):
            raise NotFound(f"This server has no storage {shown(name)}. `pilotkit storage list` shows those it has.")
        _check_source(sources.read_entry(connection, STORAGES, name), f"the storage {shown(name)}", "state=NOTACTIVE")
        users = [queue.name for queue in information.read_queues(connection) if _names(queue.description, name)]
        if users and not force:
            more = f" and {len(users) - 3} more" if len(users) > 3 else ""
            raise Conflict(
                f"The storage {shown(name)} is named by the queues {', '.join(users[:3])}{more} (astorages): "
                "take it out there first, or remove it by force."
            )
        information.remove_storage(connection, name)
        sources.remove_entries(connection, STORAGES, [name])
        exclude_closed(connection)


def _check_source(said: sources.SourceEntry | None, what: str, instead: str) -> None:
    if said is not None and said.vanishedTime is None:
        raise Conflict(
            f"The information service describes {what}: it would have to be taken out there. Until then set {instead}."
        )


def _names(description: information.Description, storage: str) -> bool:
    """Whether a queue's description names a storage for any activity."""
    activities = description.get("astorages")
    found = activities.values() if isinstance(activities, dict) else ()
    return any(isinstance(endpoints, list) and storage in endpoints for endpoints in found)
