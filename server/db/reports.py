"""Final reports of pilots that wait for the adder."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, delete, select

from server.db.dialect import insert_into
from server.db.tables import output_reports


class OutputReport(NamedTuple):
    """A row of `output_reports`: the text a pilot sent about its output files."""

    PandaID: int
    attemptNr: int
    data: str


def add_report(connection: Connection, job_id: int, attempt: int, data: str, now: float) -> None:
    """Store the final report of an attempt; what an earlier attempt may have left is replaced."""
    values = {"PandaID": job_id, "attemptNr": attempt, "data": data, "time": now}
    connection.execute(
        insert_into(connection, output_reports)
        .values(values)
        .on_conflict_do_update(index_elements=[output_reports.c.PandaID], set_=values)
    )


def find_reports(connection: Connection, limit: int) -> list[OutputReport]:
    """Reports the adder has not looked at, oldest first."""
    columns = (output_reports.c[name] for name in OutputReport._fields)
    query = select(*columns).order_by(output_reports.c.time).limit(limit)
    return [OutputReport._make(row) for row in connection.execute(query)]


def take_report(connection: Connection, report: OutputReport) -> bool:
    """Remove a report that is being dealt with in this transaction; False if somebody else already did."""
    statement = delete(output_reports).where(
        output_reports.c.PandaID == report.PandaID, output_reports.c.attemptNr == report.attemptNr
    )
    return connection.execute(statement).rowcount == 1
