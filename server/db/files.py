"""Files of jobs, and the catalogue: the one place that knows every output name and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, literal_column, select, update

from server.db.database import Taken
from server.db.jobs import Value, batches
from server.db.tables import catalogue, files, jobs

#: Scope and LFN.
Name = tuple[str, str]


class JobFile(NamedTuple):
    """A row of `files`."""

    fileID: int
    PandaID: int
    attemptNr: int
    type: str
    status: str
    scope: str
    lfn: str
    local: str | None
    dataset: str | None
    endpoint: str | None
    guid: str | None
    fsize: int | None
    checksum: str | None
    surl: str | None
    wire: dict[str, str] | None

    @property
    def dataset_name(self) -> str:
        """The dataset it belongs to: one of the job's own if nobody named one."""
        return self.dataset or f"{self.scope}.{self.PandaID}"

    def promise_of(self, user: str) -> Promise:
        """That this user's job will produce it."""
        return Promise(self.scope, self.lfn, self.dataset, self.PandaID, user)


class Promise(NamedTuple):
    """A name that a job will produce, and the dataset it is for, if that has a name."""

    scope: str
    lfn: str
    dataset: str | None
    PandaID: int
    prodUserName: str


class Entry(NamedTuple):
    """A row of the catalogue."""

    scope: str
    lfn: str
    status: str
    PandaID: int
    endpoint: str | None
    guid: str | None
    fsize: int | None
    checksum: str | None
    surl: str | None


class Replica(NamedTuple):
    """What is known of a file that exists."""

    endpoint: str | None
    guid: str | None
    fsize: int | None
    checksum: str | None
    surl: str | None


_FILE = tuple(files.c[name] for name in JobFile._fields)
_ENTRY = tuple(catalogue.c[name] for name in Entry._fields)
#: Written into the statement, not bound: only then may a database use the partial index of such files.
_IS_GIVEN = (files.c.type == literal_column("'input'")) & (files.c.status == literal_column("'ready'"))
_IS_MOVING = files.c.status == literal_column("'moving'")
#: What keeps a job from being activated.
_IS_AWAITED = (files.c.type == "input") & files.c.status.in_(("waiting", "moving"))
_OF_JOB = select(*_FILE).where(files.c.PandaID == bindparam("job_id")).order_by(files.c.fileID)
_SET_FILE = (
    update(files)
    .where(files.c.fileID == bindparam("_file"))
    .values({name: bindparam(name) for name in ("status", *Replica._fields)})
)


def add_files(connection: Connection, rows: Sequence[Mapping[str, Value | Mapping[str, str]]]) -> None:
    """Store files of jobs; every row has all columns of JobFile but fileID."""
    if rows:
        connection.execute(insert(files), [dict(row) for row in rows])


def add_found(connection: Connection, like: JobFile, lfn: str, replica: Replica) -> None:
    """Store an output nobody knew the name of before it was there; the rest is as `like` has it."""
    row = {**like._asdict(), **replica._asdict(), "type": "output", "status": "ready", "lfn": lfn, "local": lfn}
    row |= {"wire": None}
    del row["fileID"]
    add_files(connection, [row])


def read_files(connection: Connection, job_id: int) -> list[JobFile]:
    """The files of a job, of all attempts, in the order they were defined."""
    return [JobFile._make(row) for row in connection.execute(_OF_JOB, {"job_id": job_id})]


def set_file(connection: Connection, file_id: int, status: str, replica: Replica) -> None:
    """Store what became of a file."""
    connection.execute(_SET_FILE, {"_file": file_id, "status": status, **replica._asdict()})


def set_file_status(connection: Connection, file_ids: Sequence[int], status: str) -> None:
    """Change only the status of files."""
    for some in batches(file_ids):
        connection.execute(update(files).where(files.c.fileID.in_(some)).values(status=status))


def find_entries(connection: Connection, names: Iterable[Name]) -> dict[Name, Entry]:
    """The catalogue's entries of the names that have one."""
    found: dict[Name, Entry] = {}
    for scope, lfns in _by_scope(names).items():
        for some in batches(lfns):
            query = select(*_ENTRY).where(catalogue.c.scope == scope, catalogue.c.lfn.in_(some))
            for row in connection.execute(query):
                found[scope, row.lfn] = Entry._make(row)
    return found


def promise(connection: Connection, promises: Iterable[Promise], now: float) -> None:
    """Enter names that jobs will produce; the transaction ends with `Taken` if one of them has an owner."""
    common = {"status": "promised", "modificationTime": now}
    rows = [
        {**made._asdict(), "prodUserName": made.prodUserName if made.dataset else None, **common} for made in promises
    ]
    if rows:
        connection.execute(insert(catalogue), rows)


def publish(connection: Connection, job_id: int, name: Name, replica: Replica, now: float) -> None:
    """Make a promised name available: the file is there, and this is what it is like."""
    connection.execute(
        update(catalogue)
        .where(catalogue.c.scope == name[0], catalogue.c.lfn == name[1], catalogue.c.PandaID == job_id)
        .values(status="ready", modificationTime=now, **replica._asdict())
    )


def break_promises(connection: Connection, job_id: int, now: float) -> list[Name]:
    """Mark what a job promised and did not deliver as lost; returns the names."""
    rows = connection.execute(
        update(catalogue)
        .where(catalogue.c.PandaID == job_id, catalogue.c.status == "promised")
        .values(status="lost", modificationTime=now)
        .returning(catalogue.c.scope, catalogue.c.lfn)
    )
    return [(row.scope, row.lfn) for row in rows]


def hand_over_promises(connection: Connection, job_id: int, heir: int, now: float) -> None:
    """What a job promised and has not delivered is promised by another one from now on."""
    connection.execute(
        update(catalogue)
        .where(catalogue.c.PandaID == job_id, catalogue.c.status == "promised")
        .values(PandaID=heir, modificationTime=now)
    )


def promise_again(connection: Connection, names: Iterable[Name], heir: int, now: float) -> None:
    """What was there, or given up, will be made once more, by another job.

    Raises:
        Taken: somebody else has promised one of them meanwhile.
    """
    nothing = dict.fromkeys(Replica._fields)
    for scope, lfns in _by_scope(names).items():
        for some in batches(lfns):
            again = connection.execute(
                update(catalogue)
                .where(catalogue.c.scope == scope, catalogue.c.lfn.in_(some), catalogue.c.status != "promised")
                .values(status="promised", PandaID=heir, modificationTime=now, **nothing)
            )
            if again.rowcount != len(some):
                raise Taken(f"a file of {scope} is being made by another job")


def forget_promise(connection: Connection, job_id: int, name: Name) -> None:
    """Take back a promised name nobody may rely on (the log of an attempt that is over)."""
    connection.execute(
        delete(catalogue).where(
            catalogue.c.scope == name[0],
            catalogue.c.lfn == name[1],
            catalogue.c.PandaID == job_id,
            catalogue.c.status == "promised",
        )
    )


def find_waiting(connection: Connection, names: Iterable[Name]) -> list[JobFile]:
    """Inputs that wait for one of these names."""
    found: list[JobFile] = []
    for scope, lfns in _by_scope(names).items():
        for some in batches(lfns):
            query = select(*_FILE).where(files.c.status == "waiting", files.c.scope == scope, files.c.lfn.in_(some))
            found += [JobFile._make(row) for row in connection.execute(query)]
    return found


def find_moving(connection: Connection, names: Iterable[Name]) -> list[JobFile]:
    """Inputs and outputs of these names that are on their way."""
    found: list[JobFile] = []
    for scope, lfns in _by_scope(names).items():
        for some in batches(lfns):
            query = select(*_FILE).where(_IS_MOVING, files.c.scope == scope, files.c.lfn.in_(some))
            found += [JobFile._make(row) for row in connection.execute(query)]
    return found


def set_moving(connection: Connection, file_id: int, replica: Replica, wire: Mapping[str, str]) -> None:
    """Note that a file is on its way to the destination in its `wire`; replica: where it is now."""
    values = {"status": "moving", "wire": dict(wire), **replica._asdict()}
    connection.execute(update(files).where(files.c.fileID == file_id).values(values))


def find_makers(connection: Connection, job_id: int, processing_type: str, prefix: str) -> list[JobFile]:
    """The inputs of a job that others have made under names with a prefix; none if it is of another processing type.

    Returns:
        The outputs' rows of the jobs that have made them.
    """
    made = files.alias("made")
    query = (
        select(*(made.c[name] for name in JobFile._fields))
        .join_from(files, catalogue, (catalogue.c.scope == files.c.scope) & (catalogue.c.lfn == files.c.lfn))
        .join(made, (made.c.PandaID == catalogue.c.PandaID) & (made.c.lfn == files.c.lfn))
        .join(jobs, jobs.c.PandaID == files.c.PandaID)
        .where(
            files.c.PandaID == job_id,
            jobs.c.processingType == processing_type,
            files.c.type == "input",
            files.c.lfn.startswith(prefix, autoescape=True),
            made.c.type == "output",
        )
    )
    return [JobFile._make(row) for row in connection.execute(query)]


def find_given(connection: Connection, names: Iterable[Name]) -> set[Name]:
    """Which of these names are inputs that exist, as far as any job's submitter or maker said."""
    found: set[Name] = set()
    for scope, lfns in _by_scope(names).items():
        for some in batches(lfns):
            query = select(files.c.lfn).where(_IS_GIVEN, files.c.scope == scope, files.c.lfn.in_(some))
            found |= {(scope, lfn) for lfn in connection.execute(query.distinct()).scalars()}
    return found


def find_given_files(connection: Connection, names: Iterable[Name]) -> list[JobFile]:
    """The inputs of jobs that exist under these names, as far as anybody knows."""
    found: list[JobFile] = []
    for scope, lfns in _by_scope(names).items():
        for some in batches(lfns):
            query = select(*_FILE).where(_IS_GIVEN, files.c.scope == scope, files.c.lfn.in_(some))
            found += [JobFile._make(row) for row in connection.execute(query)]
    return found


def find_overdue(connection: Connection, limit: int) -> list[JobFile]:
    """Inputs that still wait although the catalogue has decided about their name."""
    query = (
        select(*_FILE)
        .join(catalogue, (catalogue.c.scope == files.c.scope) & (catalogue.c.lfn == files.c.lfn))
        .where(files.c.status == "waiting", catalogue.c.status != "promised")
        .limit(limit)
    )
    return [JobFile._make(row) for row in connection.execute(query)]


def jobs_still_waiting(connection: Connection, job_ids: Sequence[int]) -> set[int]:
    """Which of these jobs have an input that is not there yet."""
    waiting: set[int] = set()
    for some in batches(job_ids):
        query = select(files.c.PandaID).where(files.c.PandaID.in_(some), _IS_AWAITED).distinct()
        waiting |= set(connection.execute(query).scalars())
    return waiting


def find_ready_but_assigned(connection: Connection, limit: int) -> list[int]:
    """Assigned jobs none of whose inputs is waiting: their activation was interrupted."""
    waiting = select(files.c.fileID).where(files.c.PandaID == jobs.c.PandaID, _IS_AWAITED).exists()
    query = select(jobs.c.PandaID).where(jobs.c.jobStatus == "assigned", ~waiting).limit(limit)
    return list(connection.execute(query).scalars())


def _by_scope(names: Iterable[Name]) -> dict[str, list[str]]:
    scopes: dict[str, list[str]] = {}
    for scope, lfn in names:
        scopes.setdefault(scope, []).append(lfn)
    return scopes
