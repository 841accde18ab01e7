"""Datasets: names under which jobs collect what they make, and how far each has come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    and_,
    case,
    cast,
    func,
    literal_column,
    select,
    text,
    tuple_,
    update,
)

from server.db.dialect import insert_into, is_like
from server.db.files import Entry
from server.db.jobs import batches
from server.db.tables import JOB_OVER, catalogue, datasets, files, jobs

#: What 64 bits hold.
_MOST_BYTES = 2**63 - 1
#: Written as the partial index has it.
_IS_NAMED = and_(files.c.type != literal_column("'input'"), files.c.dataset.is_not(None))
_IS_ALIVE = text(f"NOT ({JOB_OVER})")
#: s until the dataset manager looks at a dataset that something may have happened to.
LOOK_AGAIN = 600.0


class NewDataset(NamedTuple):
    """A dataset as a job names it."""

    scope: str
    name: str
    VO: str | None
    prodUserName: str


class Dataset(NamedTuple):
    """A row of `datasets`."""

    scope: str
    name: str
    state: str
    VO: str | None
    prodUserName: str
    creationTime: float
    stateChangeTime: float
    ready: int
    promised: int
    lost: int
    fsize: int
    lookTime: float | None


class Tally(NamedTuple):
    """What is in a dataset.

    Attributes:
        ready, promised, lost: numbers of files.
        fsize: of those that are ready, in bytes.
        changed: when something happened to one of them last, in s since 1970; None if there is none.
    """

    ready: int = 0
    promised: int = 0
    lost: int = 0
    fsize: int = 0
    changed: float | None = None


#: Scope, name and user.
_Key = tuple[str, str, str]
_KEY = (datasets.c.scope, datasets.c.name, datasets.c.prodUserName)
_DATASET = tuple(datasets.c[name] for name in Dataset._fields)
_ENTRY = tuple(catalogue.c[name] for name in Entry._fields)


def open_datasets(connection: Connection, wanted: Iterable[NewDataset], now: float) -> None:
    """Have datasets that jobs are going to write to.

    Those that are open already are not touched: many submissions at a time may write to the same one.
    """
    by_key = {(one.scope, one.name, one.prodUserName): one for one in reversed([*wanted])}
    for some in batches(sorted(by_key)):
        query = select(*_KEY, datasets.c.state).where(_is_one_of(some))
        known = {(row.scope, row.name, row.prodUserName): row.state for row in connection.execute(query)}
        fresh = [
            {**by_key[key]._asdict(), "state": "open", **dict.fromkeys(("ready", "promised", "lost", "fsize"), 0)}
            | {"creationTime": now, "stateChangeTime": now, "lookTime": now + LOOK_AGAIN}
            for key in some
            if key not in known
        ]
        if fresh:
            connection.execute(insert_into(connection, datasets).on_conflict_do_nothing(), fresh)
        if closed := [key for key in some if known.get(key) == "closed"]:
            _reopen(connection, closed, now)


def reopen_of_job(connection: Connection, job_id: int, now: float) -> None:
    """Open the datasets again that a job has promised something for."""
    query = select(catalogue.c.scope, catalogue.c.dataset, catalogue.c.prodUserName).where(
        catalogue.c.PandaID == job_id, catalogue.c.dataset.is_not(None)
    )
    keys = {(str(row.scope), str(row.dataset), str(row.prodUserName)) for row in connection.execute(query)}
    for some in batches(sorted(keys)):
        _reopen(connection, some, now)


def _reopen(connection: Connection, keys: Sequence[_Key], now: float) -> None:
    again = update(datasets).where(_is_one_of(keys), datasets.c.state == "closed")
    connection.execute(again.values(state="open", stateChangeTime=now, lookTime=now + LOOK_AGAIN))


def _is_one_of(keys: Sequence[_Key]) -> ColumnElement[bool]:
    return tuple_(*_KEY).in_(keys)


def _is_in(dataset: Dataset) -> ColumnElement[bool]:
    """Whether a file of the catalogue is in a dataset."""
    return and_(
        catalogue.c.scope == dataset.scope,
        catalogue.c.dataset == dataset.name,
        catalogue.c.prodUserName == dataset.prodUserName,
    )


def find_due(connection: Connection, now: float, limit: int) -> list[Dataset]:
    """Datasets to be looked at, those that have waited for longest first."""
    query = select(*_DATASET).where(datasets.c.lookTime <= now).order_by(datasets.c.lookTime).limit(limit)
    return [Dataset._make(row) for row in connection.execute(query)]


def count_files(connection: Connection, dataset: Dataset) -> Tally:
    """What is in a dataset now."""
    query = select(
        _number_of("ready").label("ready"),
        _number_of("promised").label("promised"),
        _number_of("lost").label("lost"),
        # as a floating point number: what pilots say of sizes need not be true, and may be too much for 64 bits
        func.sum(case((_is("ready"), cast(catalogue.c.fsize, Double)), else_=0.0)).label("fsize"),
        func.max(catalogue.c.modificationTime).label("changed"),
    ).where(_is_in(dataset))
    found = connection.execute(query).one()
    size = min(int(found.fsize or 0), _MOST_BYTES)
    return Tally(int(found.ready), int(found.promised), int(found.lost), size, found.changed)


def is_written_to(connection: Connection, dataset: Dataset) -> bool:
    """Whether a job that is not over names the dataset: it may write what nobody knows the name of yet."""
    writes = (
        select(files.c.fileID)
        .join(jobs, jobs.c.PandaID == files.c.PandaID)
        .where(
            _IS_NAMED,
            files.c.scope == dataset.scope,
            files.c.dataset == dataset.name,
            jobs.c.prodUserName == dataset.prodUserName,
            _IS_ALIVE,
        )
    )
    return connection.execute(writes.limit(1)).first() is not None


def _is(status: str) -> ColumnElement[bool]:
    return catalogue.c.status == literal_column(f"'{status}'")


def _number_of(status: str) -> ColumnElement[int]:
    return func.count(case((_is(status), 1)))


def store_look(
    connection: Connection, seen: Dataset, state: str, tally: Tally, next_look: float | None, now: float
) -> bool:
    """Store what a look has found.

    Returns:
        False if the dataset is not as it was seen any more; then nothing is stored.
    """
    values: dict[str, object] = {"state": state, "lookTime": next_look, **tally._asdict()}
    del values["changed"]
    if state != seen.state:
        values["stateChangeTime"] = now
    statement = update(datasets).where(
        _is_one_of([(seen.scope, seen.name, seen.prodUserName)]),
        datasets.c.state == seen.state,
        datasets.c.stateChangeTime == seen.stateChangeTime,
    )
    return connection.execute(statement.values(values)).rowcount == 1


def put_off(connection: Connection, seen: Dataset, next_look: float) -> None:
    """Look at a dataset later, since it could not be looked at now."""
    key = (seen.scope, seen.name, seen.prodUserName)
    connection.execute(update(datasets).where(_is_one_of([key])).values(lookTime=next_look))


def read_datasets(connection: Connection, scope: str, name: str, user: str | None) -> list[Dataset]:
    """The datasets of a name; several users may have one. user: whose; None for everybody's."""
    query = select(*_DATASET).where(datasets.c.scope == scope, datasets.c.name == name)
    if user is not None:
        query = query.where(datasets.c.prodUserName == user)
    return [Dataset._make(row) for row in connection.execute(query.order_by(datasets.c.prodUserName))]


def list_datasets(connection: Connection, pattern: str, state: str, user: str | None, limit: int) -> list[Dataset]:
    """Datasets, the newest first.

    Args:
        pattern: a name, in which * stands for anything; empty for all.
        state: open or closed; empty for both.
        user: whose; None for everybody's.
    """
    query = select(*_DATASET)
    if "*" in pattern:
        query = query.where(is_like(connection, datasets.c.name, pattern))
    elif pattern:
        query = query.where(datasets.c.name == pattern)
    if state:
        query = query.where(datasets.c.state == state)
    if user is not None:
        query = query.where(datasets.c.prodUserName == user)
    query = query.order_by(datasets.c.creationTime.desc(), datasets.c.scope, datasets.c.name).limit(limit)
    return [Dataset._make(row) for row in connection.execute(query)]


def list_files(connection: Connection, dataset: Dataset, after: str, limit: int) -> list[Entry]:
    """What is in a dataset, by LFN, from the first that comes after a name."""
    query = select(*_ENTRY).where(_is_in(dataset), catalogue.c.lfn > after)
    return [Entry._make(row) for row in connection.execute(query.order_by(catalogue.c.lfn).limit(limit))]
