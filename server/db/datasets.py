"""Datasets: names under which jobs collect what they make, and how far each has come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, case, func, literal_column, select, tuple_, update

from server.db.dialect import insert_into
from server.db.files import Entry
from server.db.jobs import batches
from server.db.tables import catalogue, datasets

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


_DATASET = tuple(datasets.c[name] for name in Dataset._fields)
_ENTRY = tuple(catalogue.c[name] for name in Entry._fields)


def open_datasets(connection: Connection, wanted: Iterable[NewDataset], now: float) -> None:
    """Have datasets that jobs are going to write to; the first to name one is whose it is.

    Those that are open already are not touched: many submissions at a time may write to the same one.
    """
    by_name = {(one.scope, one.name): one for one in reversed([*wanted])}
    for some in batches(sorted(by_name)):
        query = select(datasets.c.scope, datasets.c.name, datasets.c.state).where(_is_one_of(some))
        known = {(row.scope, row.name): row.state for row in connection.execute(query)}
        fresh = [
            {**by_name[name]._asdict(), "state": "open", **dict.fromkeys(("ready", "promised", "lost", "fsize"), 0)}
            | {"creationTime": now, "stateChangeTime": now, "lookTime": now + LOOK_AGAIN}
            for name in some
            if name not in known
        ]
        if fresh:
            connection.execute(insert_into(connection, datasets).on_conflict_do_nothing(), fresh)
        _reopen(connection, _is_one_of([name for name in some if known.get(name) == "closed"]), now)


def reopen_of_job(connection: Connection, job_id: int, now: float) -> None:
    """Open the datasets again that a job has promised something for."""
    query = select(catalogue.c.scope, catalogue.c.dataset).where(
        catalogue.c.PandaID == job_id, catalogue.c.dataset.is_not(None)
    )
    names = sorted({(str(row.scope), str(row.dataset)) for row in connection.execute(query)})
    for some in batches(names):
        _reopen(connection, _is_one_of(some), now)


def _reopen(connection: Connection, which: ColumnElement[bool], now: float) -> None:
    again = update(datasets).where(which, datasets.c.state == "closed")
    connection.execute(again.values(state="open", stateChangeTime=now, lookTime=now + LOOK_AGAIN))


def _is_one_of(names: Sequence[tuple[str, str]]) -> ColumnElement[bool]:
    return tuple_(datasets.c.scope, datasets.c.name).in_(names)


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
        func.coalesce(func.sum(case((_is("ready"), catalogue.c.fsize))), 0).label("fsize"),
        func.max(catalogue.c.modificationTime).label("changed"),
    ).where(catalogue.c.scope == dataset.scope, catalogue.c.dataset == dataset.name)
    found = connection.execute(query).one()
    return Tally(int(found.ready), int(found.promised), int(found.lost), int(found.fsize), found.changed)


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
        datasets.c.scope == seen.scope,
        datasets.c.name == seen.name,
        datasets.c.state == seen.state,
        datasets.c.stateChangeTime == seen.stateChangeTime,
    )
    return connection.execute(statement.values(values)).rowcount == 1


def read_dataset(connection: Connection, scope: str, name: str) -> Dataset | None:
    """A dataset, or None."""
    row = connection.execute(select(*_DATASET).where(datasets.c.scope == scope, datasets.c.name == name)).first()
    return Dataset._make(row) if row else None


def list_datasets(connection: Connection, pattern: str, state: str, user: str | None, limit: int) -> list[Dataset]:
    """Datasets, the newest first.

    Args:
        pattern: a name, in which * stands for anything; empty for all.
        state: open or closed; empty for both.
        user: whose; None for everybody's.
    """
    query = select(*_DATASET)
    if "*" in pattern:
        parts = (part.replace("/", "//").replace("%", "/%").replace("_", "/_") for part in pattern.split("*"))
        query = query.where(datasets.c.name.like("%".join(parts), escape="/"))
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
    query = select(*_ENTRY).where(
        catalogue.c.scope == dataset.scope, catalogue.c.dataset == dataset.name, catalogue.c.lfn > after
    )
    return [Entry._make(row) for row in connection.execute(query.order_by(catalogue.c.lfn).limit(limit))]
