"""The dataset manager: follows how far datasets have come, and closes those that nothing happens to any more.

A dataset is there as soon as a job names it for an output or a log; two users who choose one name have one each. It is
open while a job may still write to it, and is closed when nothing is promised any more and nothing has happened for a
while (`dataset CLOSE_AFTER`); a job that names it later opens it again. The plugin of its VO is told when it is to be
closed, and does what the experiment wants.
"""

from __future__ import annotations

import logging

from server.db import datasets
from server.db.database import DatabaseUnavailable, Unstorable
from server.db.datasets import LOOK_AGAIN, Dataset, Tally
from server.logic import configuration
from server.logic.context import Context, Identity
from server.logic.dispatch import iso_time
from server.logic.errors import BadField, NotFound
from server.logic.names import shown
from server.logic.plugins import ClosedDataset, plugins_of

logger = logging.getLogger(__name__)

OPEN, CLOSED = "open", "closed"
#: Datasets looked at in one go.
_BATCH = 200
#: A closed dataset is looked at once more after so many s: a submission that was under way may have named it.
_SECOND_LOOK = 3600.0
#: Most datasets, and most files, of one answer.
MOST = 10_000
#: Users that a message names.
_NAMED = 5


def manage_datasets(context: Context) -> int:
    """Look at all datasets that are due; returns how many were closed."""
    closed = 0
    while True:
        now = context.clock()
        with context.database.reading() as connection:
            due = datasets.find_due(connection, now, _BATCH)
        closed += sum(_looked_at(context, dataset, now) for dataset in due)
        if len(due) < _BATCH:
            return closed


def _looked_at(context: Context, dataset: Dataset, now: float) -> bool:
    """`_look`, whose failure must not keep others from being looked at."""
    try:
        return _look(context, dataset, now)
    except (DatabaseUnavailable, Unstorable) as error:
        logger.error("dataset %s:%s could not be looked at: %s", dataset.scope, dataset.name, error)
    with context.database.durable() as connection:
        datasets.put_off(connection, dataset, now + LOOK_AGAIN)
    return False


def _look(context: Context, dataset: Dataset, now: float) -> bool:
    """Whether the dataset is closed now, and was not before."""
    with context.database.reading() as connection:
        tally = datasets.count_files(connection, dataset)
        awaited = bool(tally.promised) or datasets.is_written_to(connection, dataset)
    quiet_since = max(tally.changed or 0.0, dataset.creationTime)
    quiet_until = quiet_since + (configuration.number(context, "dataset", "CLOSE_AFTER", dataset.VO or "") or 0)
    changed = (tally.ready, tally.lost, tally.fsize) != (dataset.ready, dataset.lost, dataset.fsize)
    state, next_look = dataset.state, None
    if awaited or (dataset.state == CLOSED and changed):
        state, next_look = OPEN, now + LOOK_AGAIN
    elif dataset.state == OPEN and now < quiet_until:
        next_look = min(quiet_until, now + LOOK_AGAIN)  # the policy may change
    elif dataset.state == OPEN and not _told(context, dataset, tally):
        next_look = now + LOOK_AGAIN
    elif dataset.state == OPEN:
        state, next_look = CLOSED, now + _SECOND_LOOK
    with context.database.durable() as connection:
        stored = datasets.store_look(connection, dataset, state, tally, next_look, now)
    return stored and dataset.state == OPEN and state == CLOSED


def _told(context: Context, dataset: Dataset, tally: Tally) -> bool:
    """Whether the plugin of its VO has dealt with a dataset that is to be closed."""
    plugin = plugins_of(context.settings).dataset_keeper(dataset.VO or "")
    counts = ClosedDataset(dataset.scope, dataset.name, dataset.prodUserName, tally.ready, tally.lost, tally.fsize)
    try:
        plugin.close(counts)
    except Exception:  # a VO's own module may raise anything, and must not keep other datasets open
        logger.exception("the plugin of VO %s failed on dataset %s:%s", dataset.VO, dataset.scope, dataset.name)
        return False
    return True


def list_datasets(
    context: Context, identity: Identity, pattern: str, state: str, user: str, limit: int
) -> list[dict[str, object]]:
    """The newest datasets that fulfil all conditions given; a user sees their own.

    Args:
        pattern: a name, in which * stands for anything.
        state: open or closed.

    Raises:
        BadField: there is no such state.
    """
    if state not in ("", OPEN, CLOSED):
        raise BadField("state", f"must be {OPEN} or {CLOSED}, not {shown(state)}")
    owner = (user or None) if identity.may_act_for("") else identity.name
    with context.database.reading() as connection:
        found = datasets.list_datasets(connection, pattern, state, owner, max(0, min(limit, MOST)))
    return [_shown(dataset) for dataset in found]


def read_dataset(context: Context, identity: Identity, scope: str, name: str, user: str = "") -> dict[str, object]:
    """A dataset with the numbers of now.

    Args:
        user: whose; an operator has to say it where several users have one of this name.

    Raises:
        NotFound: nobody has named it, or somebody else.
        BadField: several users have.
    """
    dataset = _own(context, identity, scope, name, user)
    with context.database.reading() as connection:
        tally = datasets.count_files(connection, dataset)
    return _shown(dataset._replace(ready=tally.ready, promised=tally.promised, lost=tally.lost, fsize=tally.fsize))


def list_files(
    context: Context, identity: Identity, scope: str, name: str, after: str, limit: int, user: str = ""
) -> list[dict[str, object]]:
    """What is in a dataset, by LFN; `after` is the last one of the page before. See `read_dataset`."""
    dataset = _own(context, identity, scope, name, user)
    with context.database.reading() as connection:
        found = datasets.list_files(connection, dataset, after, max(0, min(limit, MOST)))
    return [dict(entry._asdict()) for entry in found]


def _own(context: Context, identity: Identity, scope: str, name: str, user: str) -> Dataset:
    owner = (user or None) if identity.may_act_for("") else identity.name
    with context.database.reading() as connection:
        found = datasets.read_datasets(connection, scope, name, owner)
    if not found:
        whose = f" of {owner}" if owner else ""
        raise NotFound(f"There is no dataset {shown(f'{scope}:{name}')}{whose}; no job has named it.")
    if len(found) > 1:
        users = ", ".join(dataset.prodUserName for dataset in found[:_NAMED])
        raise BadField("user", f"is needed: several have a dataset of this name, like {users}")
    return found[0]


def _shown(dataset: Dataset) -> dict[str, object]:
    shown_keys = ("scope", "name", "state", "VO", "prodUserName", "ready", "promised", "lost", "fsize")
    times = {key: iso_time(getattr(dataset, key)) for key in ("creationTime", "stateChangeTime")}
    return {**{key: getattr(dataset, key) for key in shown_keys}, **times}
