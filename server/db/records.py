"""Jobs wherever they lie: among the live ones or in the archive."""

from __future__ import annotations

from collections.abc import Iterable

from server.db import archive, jobs
from server.db.database import Connection
from server.db.jobs import LiveJob


def look_up(connection: Connection, job_id: int) -> LiveJob | None:
    """A job as decisions see it, or None if there never was one. Archived ones are over."""
    job = jobs.read_live(connection, job_id)
    return job or archive.find_archived(connection, [job_id]).get(job_id)


def lock(connection: Connection, job_id: int) -> LiveJob | None:
    """The same for a durable transaction that decides on what it sees: until its end nobody else changes the job."""
    return jobs.lock_live(connection, job_id) or archive.find_archived(connection, [job_id]).get(job_id)


def look_up_many(connection: Connection, job_ids: Iterable[int]) -> dict[int, LiveJob]:
    """The jobs that exist of those asked for, by PandaID."""
    wanted = list(job_ids)
    found = jobs.read_live_many(connection, wanted)
    missing = [job_id for job_id in wanted if job_id not in found]
    return {**found, **archive.find_archived(connection, missing)} if missing else found
