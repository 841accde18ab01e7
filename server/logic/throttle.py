"""Nodes on which jobs only fail, fast and for the site's own reasons, get a pause: they must not empty the queue.

A node whose jobs failed so often in a row gets no jobs for a while; then it may try again, and the next failure gives
it a pause twice as long. A job that finishes there ends it all. Nothing of this is done for jobs that run.
"""

from __future__ import annotations

from collections.abc import Mapping

from pilot.common.errorcodes import Blame, describe
from server.db import jobs, nodes
from server.db.database import Connection
from server.db.jobs import LiveJob, Value
from server.db.nodes import NodeRecord
from server.logic import configuration
from server.logic.context import Context
from server.logic.explain import SENT_TIMEOUT
from server.logic.parameters import NODES

#: Longest reason, in characters: the column's length.
_REASON_LENGTH = 500


def pauses_hold(context: Context) -> bool:
    """Whether nodes get pauses at all; it may read the table of parameters (see `configuration.number`).

    An operator who switches them off means those that are given already, too.
    """
    return (configuration.number(context, "dispatch", "NODE_FAILURES") or 0.0) > 0


def host_of(node: str) -> str:
    """The machine in a pilot's name for its node, which may begin with a slot: slot1_2@host."""
    return node.rpartition("@")[2][:128]


def note_ending(
    context: Context, connection: Connection, job: LiveJob, columns: Mapping[str, Value], *, good: bool
) -> None:
    """Take note of how an attempt ended, in the durable transaction that ends it.

    Args:
        columns: the error columns that are stored with its end.
        good: it finished.
    """
    if not good and not _is_sites(job, columns):
        return
    host = host_of(nodes.read_node_of(connection, job.PandaID))
    if not host:
        return
    if good:
        nodes.forget_node(connection, job.computingSite, host)
        return
    now = context.clock()
    settings = {one.key: configuration.number(context, one.component, one.key) or 0.0 for one in NODES}
    if settings["NODE_FAILURES"] > 0 and (_is_lost(columns) or _was_fast(connection, job, settings, now)):
        record = nodes.read_record(connection, job.computingSite, host, now)
        nodes.store_record(connection, _after_failure(record, settings, _cause(job, columns), now))


def _is_lost(columns: Mapping[str, Value]) -> bool:
    """Whether the job was handed out and never heard of again, which takes its time."""
    return columns.get("jobDispatcherErrorCode") == SENT_TIMEOUT


def _is_sites(job: LiveJob, columns: Mapping[str, Value]) -> bool:
    """Whether a failure is the site's."""
    code = _pilot_code(job, columns)
    return _is_lost(columns) or (code != 0 and describe(code).blame == Blame.SITE)


def _pilot_code(job: LiveJob, columns: Mapping[str, Value]) -> int:
    code = columns.get("pilotErrorCode", job.pilotErrorCode)
    return abs(code) if isinstance(code, int) else 0


def _cause(job: LiveJob, columns: Mapping[str, Value]) -> str:
    if _is_lost(columns):
        return "taken and never heard of again"
    info = describe(_pilot_code(job, columns))
    return f"{info.name}, {info.message}"


def _was_fast(connection: Connection, job: LiveJob, settings: Mapping[str, float], now: float) -> bool:
    claimed = jobs.time_of_claim(connection, job.PandaID, job.attemptNr)
    return claimed is not None and (job.endTime or now) - claimed <= settings["NODE_FAST_FAILURE"]


def _after_failure(record: NodeRecord, settings: Mapping[str, float], cause: str, now: float) -> NodeRecord:
    """What is remembered of a node after one failure more."""
    last = max(record.failedTime, record.throttledUntil or 0.0)
    if now - last > settings["NODE_FAILURE_WINDOW"]:
        record = record._replace(failures=0, pauses=0, throttledUntil=None)
    failures, pauses, until = record.failures + 1, record.pauses, record.throttledUntil
    is_paused = until is not None and until > now  # a job that the node had before its pause
    if not is_paused and (pauses > 0 or failures >= settings["NODE_FAILURES"]):
        until = now + min(settings["NODE_PAUSE"] * 2**pauses, settings["NODE_LONGEST_PAUSE"])
        pauses += 1
    reason = f"on {record.host} {failures} jobs in a row have failed for the site's reasons, the last with {cause}"
    return record._replace(
        failures=failures, pauses=pauses, throttledUntil=until, failedTime=now, reason=reason[:_REASON_LENGTH]
    )
