"""Changes of jobs' states, in the order in which they were written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from server.db.tables import job_history, jobs


class StateChange(NamedTuple):
    """A row of the history, with what is needed to know whom it concerns (None of a job that is no longer here).

    Attributes:
        time: seconds since 1970.
    """

    historyID: int
    PandaID: int
    attemptNr: int
    status: str
    time: float
    actor: str
    reason: str
    queue: str | None
    owner: str | None


_COLUMNS = (
    *(job_history.c[name] for name in ("historyID", "PandaID", "attemptNr", "status", "time", "actor", "reason")),
    jobs.c.computingSite,
    jobs.c.prodUserName,
)
_CHANGES = select(*_COLUMNS).join_from(job_history, jobs, jobs.c.PandaID == job_history.c.PandaID, isouter=True)


def last_change(connection: Connection) -> int:
    """The number of the newest change; 0 if there is none."""
    return int(connection.execute(select(func.max(job_history.c.historyID))).scalar() or 0)


def change_numbers(connection: Connection, after: int, limit: int) -> list[int]:
    """The numbers of the changes after one, the oldest first."""
    query = select(job_history.c.historyID).where(job_history.c.historyID > after)
    return list(connection.execute(query.order_by(job_history.c.historyID).limit(limit)).scalars())


def read_changes(connection: Connection, numbers: Sequence[int]) -> list[StateChange]:
    """Changes by their numbers, the oldest first."""
    query = _CHANGES.where(job_history.c.historyID.in_(numbers)).order_by(job_history.c.historyID)
    return [StateChange._make(row) for row in connection.execute(query)]
