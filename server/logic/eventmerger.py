"""The merger: makes the jobs that merge event ranges, once all ranges of a jobset are settled and its jobs are over.

It does so where a submission has said how (`events`: `merge`). A jobset is looked at in one transaction that begins
with a lock on its plan, and the merge jobs, the ranges they have and the relations to the jobs before are stored in it:
whatever ends a daemon, and however many there are, an archive is merged by one job.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from server.db import archive, eventmerges, files, jobs, records
from server.db.database import Connection, Taken
from server.db.eventmerges import DoneRange, Merge
from server.db.files import Replica
from server.logic.context import Context
from server.logic.errors import BadJob
from server.logic.jobform import JobForm, read_job
from server.logic.states import OVER
from server.logic.submission import place_jobs

logger = logging.getLogger(__name__)

_ACTOR = "merger"
#: Jobsets looked at in one go.
_BATCH = 200
#: s between two looks at a jobset: the older it is, the longer, as a part of its age.
_SOON, _LATE, _PART = 5, 600, 0.05
#: Bytes of a MB, in which submissions count.
_MB = 10**6


@dataclass(frozen=True)
class _Archive:
    """An archive of ranges that are done.

    Attributes:
        maker: the job that has made it.
        facts: what the pilot said of it: lfn, fsize, adler32, guid, surl, endpoint.
    """

    name: str
    maker: int
    facts: Mapping[str, object]

    @property
    def size(self) -> int:
        """Bytes; 0 if nobody knows."""
        size = self.facts.get("fsize")
        return size if isinstance(size, int) else 0


@dataclass(frozen=True)
class _Verdict:
    """How far a jobset is.

    Attributes:
        ends: there is nothing to do until something happens.
    """

    state: str
    reason: str
    ends: bool = False


def merge_ranges(context: Context) -> int:
    """Look at the jobsets whose time has come; returns how many merge jobs were made."""
    with context.database.reading() as connection:
        due = eventmerges.find_due(connection, context.clock(), _BATCH)
    made = 0
    for pool in due:
        try:
            made += _look(context, pool)
        except BadJob as error:
            text = f"the merge job is refused, {error.field}: {error.why}"
            with context.database.durable() as connection:
                eventmerges.set_merge_state(connection, pool, "failed", text, context.clock() + _LATE)
        except Taken:  # somebody has promised a file of the same name this very moment: the next look names it anew
            logger.info("the merge jobs of %s are made later: the name of an output was taken", pool)
    return made


def _look(context: Context, pool: str) -> int:
    now = context.clock()
    with context.database.durable() as connection:
        merge = eventmerges.lock_merge(connection, pool)
        if merge is None or merge.lookTime is None or merge.lookTime > now:
            return 0  # another daemon has just looked
        made: list[int] = []
        verdict = _waits(connection, pool)
        if verdict is None:
            made = _make_jobs(context, connection, merge)
            verdict = _verdict(connection, pool)
        again = None if verdict.ends else now + min(_LATE, max(_SOON, _PART * (now - merge.creationTime)))
        eventmerges.set_merge_state(connection, pool, verdict.state, verdict.reason, again)
    return len(made)


def _waits(connection: Connection, pool: str) -> _Verdict | None:
    if eventmerges.has_living_jobs(connection, pool):
        return _Verdict("waiting", "jobs that may have its ranges are not over")
    if eventmerges.has_open_ranges(connection, pool):
        return _Verdict("waiting", "ranges are left that no job has: submit another job of the jobset for them")
    return None


def _verdict(connection: Connection, pool: str) -> _Verdict:
    """How far the ranges are that are done, once all that could be given to merge jobs has been."""
    found = eventmerges.find_mergers(connection, pool)
    numbers = sorted(job_id for job_id in found if job_id is not None)
    mergers = records.look_up_many(connection, numbers)
    living = [job_id for job_id in numbers if job_id in mergers and mergers[job_id].jobStatus not in OVER]
    if living:
        return _Verdict("merging", f"by {_named(living)}")
    if numbers:
        text = f"{_named(numbers)} did not merge its ranges: submit another merge job for its archives"
        return _Verdict("failed", text, ends=True)
    if found:
        return _Verdict("failed", f"{sum(found.values())} ranges are done and in no archive", ends=True)
    return _Verdict("merged", "all that is done is merged", ends=True)


def _named(job_ids: Sequence[int]) -> str:
    return ("job " if len(job_ids) == 1 else "jobs ") + ", ".join(map(str, job_ids))


def _make_jobs(context: Context, connection: Connection, merge: Merge) -> list[int]:
    """Merge jobs for all archives that no job has; returns their numbers."""
    archives = _free_archives(connection, merge.pool)
    if not archives:
        return []
    forms = [_form(connection, merge, some) for some in _shares(archives, merge.plan)]
    placed, _ = place_jobs(context, connection, forms, _ACTOR)
    return [job.job_id for job in placed]


def _free_archives(connection: Connection, pool: str) -> list[_Archive]:
    mergers = eventmerges.find_mergers(connection, pool)
    free = {job_id for job_id in mergers if job_id is None or _has_given_up(connection, job_id)}
    if not free:
        return []
    first: dict[str, DoneRange] = {}
    for one in eventmerges.lock_done(connection, pool):
        if one.archive and one.mergeID in free:
            first.setdefault(one.archive, one)
    facts = eventmerges.read_facts(connection, [one.rangeID for one in first.values()])
    return [_Archive(name, one.PandaID, _zip_file(facts[one.rangeID])) for name, one in first.items()]


def _has_given_up(connection: Connection, job_id: int) -> bool:
    """Whether a merge job has failed because of archives that are no good: what is good may be merged without it."""
    row = jobs.read_job(connection, job_id)
    if row is None:
        record = archive.read_archived(connection, job_id)
        row = record.job if record else {}
    return row.get("jobStatus") in OVER and bool(row.get("corruptedFiles"))


def _zip_file(facts: Mapping[str, object]) -> Mapping[str, object]:
    found = facts.get("zipFile")
    return found if isinstance(found, dict) else {}


def _shares(archives: Sequence[_Archive], plan: Mapping[str, object]) -> Iterator[list[_Archive]]:
    """The archives of each merge job."""
    most, size = cast(int, plan["max_inputs"]), cast(int, plan["max_size"]) * _MB
    share: list[_Archive] = []
    for one in archives:
        if share and (len(share) == most or sum(other.size for other in share) + one.size > size):
            yield share
            share = []
        share.append(one)
    yield share


def _form(connection: Connection, merge: Merge, archives: Sequence[_Archive]) -> JobForm:
    """A merge job as if its submitter had written it."""
    job = dict(cast(Mapping[str, object], merge.plan["job"]))
    if isinstance(text := job.get("jobPars"), str):
        job["jobPars"] = _with_inputs(text, [one.name for one in archives])
    scopes = {maker: _scope_of(connection, maker) for maker in {one.maker for one in archives}}
    job["inputs"] = [{**_input(one), "scope": scopes[one.maker]} for one in archives]
    form = read_job(0, job, merge.prodUserName)
    for spec in form.inputs:  # it is there, even if nobody knows how large it is
        spec.replica = spec.replica or Replica(None, None, None, None, None)
    return form


def _input(one: _Archive) -> dict[str, object]:
    checksum = f"ad:{one.facts['adler32']}" if one.facts.get("adler32") else one.facts.get("md5")
    known = {name: one.facts.get(name) for name in ("guid", "fsize", "surl", "endpoint")}
    return {"lfn": one.name, **known, "checksum": checksum}


def _scope_of(connection: Connection, job_id: int) -> str:
    """The scope of a job's archives: that of its first output, or of its log, as pilots have it."""
    made = [file for file in files.read_files(connection, job_id) if file.type != "input"]
    return min(made, key=lambda file: (file.type == "log", file.fileID)).scope


def _with_inputs(parameters: str, names: Sequence[str]) -> str:
    """Job parameters with the names of the inputs, written as in templates of JEDI's (client.md 1.3)."""
    for form, text in (("/L", ",".join(names)), ("/S", " ".join(names)), ("/T", repr(list(names)))):
        parameters = parameters.replace(f"${{IN{form}}}", text)
    return parameters
