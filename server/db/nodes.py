"""Nodes on which jobs fail: what is remembered of them, and the pauses they have."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import BindParameter, ColumnElement, Connection, and_, bindparam, delete, or_, select

from server.db.dialect import insert_into
from server.db.jobs import Value
from server.db.tables import jobs, node_failures


def _of(queue: str | BindParameter[str], host: str | BindParameter[str]) -> ColumnElement[bool]:
    return and_(node_failures.c.computingSite == queue, node_failures.c.host == host)


class Pause(NamedTuple):
    """A node that gets no jobs for a while; until is in seconds since 1970."""

    until: float
    reason: str


class NodeRecord(NamedTuple):
    """What is remembered of a node since a job last finished there."""

    computingSite: str
    host: str
    failures: int
    pauses: int
    failedTime: float
    throttledUntil: float | None
    reason: str


_RECORD = tuple(node_failures.c[name] for name in NodeRecord._fields)
_PAUSES = select(*_RECORD).where(node_failures.c.throttledUntil > bindparam("now"))
_FORGET = delete(node_failures).where(_of(bindparam("queue"), bindparam("name")))
_KEY = (node_failures.c.computingSite, node_failures.c.host)


def read_pauses(connection: Connection, now: float) -> dict[tuple[str, str], Pause]:
    """The nodes that get no jobs now, by queue and host."""
    records = (NodeRecord._make(row) for row in connection.execute(_PAUSES, {"now": now}))
    return {
        (record.computingSite, record.host): Pause(record.throttledUntil or now, record.reason) for record in records
    }


def read_node_of(connection: Connection, job_id: int) -> str:
    """The node a job is or was on, as its pilot said; empty if it did not."""
    return str(connection.execute(select(jobs.c.node).where(jobs.c.PandaID == job_id)).scalar() or "")


def read_record(connection: Connection, queue: str, host: str, now: float) -> NodeRecord:
    """What is remembered of a node, locked for the caller's transaction; an empty record if it is nothing."""
    fresh: dict[str, Value] = {"failures": 0, "pauses": 0, "failedTime": now, "reason": ""}
    statement = insert_into(connection, node_failures).values(computingSite=queue, host=host, **fresh)
    connection.execute(statement.on_conflict_do_nothing())
    row = connection.execute(select(*_RECORD).where(_of(queue, host)).with_for_update()).one()
    return NodeRecord._make(row)


def store_record(connection: Connection, record: NodeRecord) -> None:
    """Remember this of a node."""
    values = record._asdict()
    statement = insert_into(connection, node_failures).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=values))


def list_records(connection: Connection) -> list[NodeRecord]:
    """Nodes on which jobs have failed."""
    return [NodeRecord._make(row) for row in connection.execute(select(*_RECORD).order_by(*_KEY))]


def forget_node(connection: Connection, queue: str, host: str) -> bool:
    """Forget what is remembered of a node; False if it was nothing."""
    return connection.execute(_FORGET, {"queue": queue, "name": host}).rowcount > 0


def forget_quiet_nodes(connection: Connection, before: float) -> int:
    """Forget nodes whose last failure and last pause were before a time; returns how many."""
    no_pause = or_(node_failures.c.throttledUntil.is_(None), node_failures.c.throttledUntil < before)
    return connection.execute(delete(node_failures).where(and_(node_failures.c.failedTime < before, no_pause))).rowcount
