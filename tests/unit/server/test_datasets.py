"""Datasets: what jobs write under a name, how far it has come, and when nobody writes to it any more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, select

from server.daemon.scripts import datasetManager
from server.db import datasets as table
from server.db import tables
from server.db.archive import DAY
from server.logic import archiving, datasets, recovery
from server.logic.context import ANYBODY, Identity, Role
from server.logic.errors import BadField, NotAllowed, NotFound
from server.logic.plugins import ClosedDataset
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import Dispatcher, dispatcher_in, good_file

SCOPE, NAME = "user.jane", "user.jane.fit_out/"
HOUR = 3600.0
JANE = Identity("jane", frozenset({Role.USER}))
JOE = Identity("joe", frozenset({Role.USER}))


def writes(*lfns: str, **more: object) -> dict[str, object]:
    """A job of Jane's that writes files to the dataset."""
    outputs = [{"lfn": lfn, "scope": SCOPE, "dataset": NAME} for lfn in lfns]
    return {"user": "jane", "outputs": outputs, **more}


def run(dispatcher: Dispatcher, good: bool = True) -> None:
    job = int(str(dispatcher.get_job()["PandaID"]))
    if good:
        dispatcher.finish(job)
    else:
        dispatcher.fail(job)


def dataset(dispatcher: Dispatcher, name: str = NAME) -> dict[str, object]:
    return datasets.read_dataset(dispatcher.context, ANYBODY, SCOPE, name)


def numbers(dispatcher: Dispatcher, name: str = NAME) -> tuple[object, ...]:
    """State, and the numbers as they were counted last."""
    (found,) = datasets.list_datasets(dispatcher.context, ANYBODY, name, "", "", 10)
    return tuple(found[key] for key in ("state", "ready", "promised", "lost", "fsize"))


def manage(dispatcher: Dispatcher, after: float = 0.0) -> int:
    dispatcher.clock.now += after
    return datasets.manage_datasets(dispatcher.context)


def test_a_dataset_is_there_with_the_first_job_that_names_it_and_counts_what_comes(dispatcher: Dispatcher) -> None:
    dispatcher.submit(writes("a", "b"), writes("c"), {"user": "jane", "outputs": ["d"]})
    assert dataset(dispatcher)["prodUserName"] == "jane"
    assert numbers(dispatcher) == ("open", 0, 0, 0, 0)  # nobody has looked yet
    assert [dataset(dispatcher)[key] for key in ("ready", "promised", "lost")] == [0, 3, 0]
    run(dispatcher)
    assert manage(dispatcher, table.LOOK_AGAIN - 1) == 0
    assert numbers(dispatcher) == ("open", 0, 0, 0, 0)  # not yet
    assert manage(dispatcher, 1) == 0
    assert numbers(dispatcher) == ("open", 2, 1, 0, 12)
    found = datasets.list_files(dispatcher.context, ANYBODY, SCOPE, NAME, "", 10)
    assert [(one["lfn"], one["status"], one["fsize"]) for one in found] == [
        ("a", "ready", 6),
        ("b", "ready", 6),
        ("c", "promised", None),
    ]
    assert [one["lfn"] for one in datasets.list_files(dispatcher.context, ANYBODY, SCOPE, NAME, "a", 1)] == ["b"]


def test_it_is_closed_when_nothing_is_to_come_and_nothing_has_happened_for_a_while(dispatcher: Dispatcher) -> None:
    dispatcher.submit(writes("a"), writes("b", maxAttempt=1))
    run(dispatcher)
    run(dispatcher, good=False)
    assert manage(dispatcher, table.LOOK_AGAIN) == 0
    assert numbers(dispatcher) == ("open", 1, 0, 1, 6)
    assert manage(dispatcher, HOUR - table.LOOK_AGAIN - 1) == 0
    assert manage(dispatcher, 1) == 1
    assert numbers(dispatcher) == ("closed", 1, 0, 1, 6)
    assert manage(dispatcher, DAY) == 0  # the second look
    assert numbers(dispatcher) == ("closed", 1, 0, 1, 6)
    with dispatcher.context.database.reading() as connection:
        assert table.find_due(connection, dispatcher.clock.now + 1000 * DAY, 10) == []


def test_the_daemons_script_does_it(dispatcher: Dispatcher) -> None:
    dispatcher.submit(writes("a"))
    run(dispatcher)
    dispatcher.clock.now += 2 * HOUR
    assert datasetManager.run(dispatcher.context, []) is False
    assert numbers(dispatcher)[0] == "closed"


def test_policy_says_for_how_long_nothing_must_happen(dispatcher: Dispatcher) -> None:
    dispatcher.configure("CLOSE_AFTER", 2 * HOUR, component="dataset")
    dispatcher.submit(writes("a"))
    run(dispatcher)
    assert manage(dispatcher, 2 * HOUR - 1) == 0
    assert manage(dispatcher, 1) == 1


def test_a_job_that_is_tried_again_keeps_it_open(dispatcher: Dispatcher) -> None:
    dispatcher.submit(writes("a", maxAttempt=2))
    run(dispatcher, good=False)
    assert manage(dispatcher, 10 * HOUR) == 0
    run(dispatcher)
    assert manage(dispatcher, 10 * HOUR) == 1
    assert numbers(dispatcher)[:4] == ("closed", 1, 0, 0)


def test_the_next_job_that_names_it_opens_it_again(dispatcher: Dispatcher) -> None:
    dispatcher.submit(writes("a"))
    run(dispatcher)
    assert manage(dispatcher, 2 * HOUR) == 1
    dispatcher.submit(writes("b"))
    assert dataset(dispatcher)["state"] == "open"
    run(dispatcher)
    assert manage(dispatcher, 2 * HOUR) == 1
    assert numbers(dispatcher) == ("closed", 2, 0, 0, 12)


def test_a_file_that_is_made_again_opens_it_again(dispatcher: Dispatcher) -> None:
    dispatcher.submit(writes("a"))
    run(dispatcher)
    assert manage(dispatcher, 2 * HOUR) == 1
    recovery.recover_files(dispatcher.context, [(SCOPE, "a")], ANYBODY)
    assert [dataset(dispatcher)[key] for key in ("state", "ready", "promised")] == ["open", 0, 1]
    run(dispatcher)
    assert manage(dispatcher, 2 * HOUR) == 1


def test_a_submission_that_was_under_way_when_it_was_closed_opens_it_again(dispatcher: Dispatcher) -> None:
    dispatcher.submit(writes("a"))
    run(dispatcher)
    assert manage(dispatcher, 2 * HOUR) == 1
    dispatcher.submit(writes("b"))
    with dispatcher.context.database.durable() as connection:  # as the manager did without having seen it
        seen = table.read_dataset(connection, SCOPE, NAME)
        assert seen is not None
        tally = table.Tally(ready=1, fsize=6)
        assert table.store_look(connection, seen, "closed", tally, dispatcher.clock.now + HOUR, dispatcher.clock.now)
    assert manage(dispatcher, HOUR) == 0
    assert numbers(dispatcher)[:3] == ("open", 1, 1)


def test_what_has_changed_since_it_was_seen_is_not_overwritten(dispatcher: Dispatcher) -> None:
    dispatcher.submit(writes("a"))
    with dispatcher.context.database.durable() as connection:
        seen = table.read_dataset(connection, SCOPE, NAME)
        assert seen is not None
        old = seen._replace(stateChangeTime=seen.stateChangeTime - 1)
        assert not table.store_look(connection, old, "closed", table.Tally(), None, dispatcher.clock.now)
    assert numbers(dispatcher)[0] == "open"


def test_files_outlive_their_jobs_going_into_the_archive(dispatcher: Dispatcher) -> None:
    dispatcher.submit(writes("a"))
    run(dispatcher)
    assert manage(dispatcher, 4 * DAY) == 1
    assert archiving.archive_jobs(dispatcher.context) == 1
    assert [one["lfn"] for one in datasets.list_files(dispatcher.context, ANYBODY, SCOPE, NAME, "", 10)] == ["a"]


def lfns(dispatcher: Dispatcher, name: str) -> list[tuple[object, object]]:
    found = datasets.list_files(dispatcher.context, ANYBODY, SCOPE, name, "", 100)
    return [(one["lfn"], one["status"]) for one in found]


def test_logs_of_all_attempts_belong_to_their_dataset(dispatcher: Dispatcher) -> None:
    lists = {"outFiles": "a,log.tgz", "logFile": "log.tgz", "realDatasets": "set,set.log"}
    dispatcher.submit({"user": "jane", "maxAttempt": 2, "scopeOut": SCOPE, "scopeLog": SCOPE, **lists})
    run(dispatcher, good=False)
    run(dispatcher)
    assert lfns(dispatcher, "set") == [("a", "ready")]
    assert lfns(dispatcher, "set.log") == [("log.tgz.2", "ready")]


def test_outputs_whose_names_only_the_report_tells_belong_to_that_of_their_pattern(dispatcher: Dispatcher) -> None:
    lists = {"outFiles": "part_*", "realDatasets": NAME, "scopeOut": SCOPE, "transformation": "t", "jobPars": "x"}
    dispatcher.submit({"user": "jane", "command": None, **lists})
    assert manage(dispatcher, table.LOOK_AGAIN) == 0
    assert numbers(dispatcher) == ("open", 0, 0, 0, 0)
    job = int(str(dispatcher.get_job()["PandaID"]))
    dispatcher.report(job, "finished", xml=json.dumps({name: good_file() for name in ("part_1", "part_2")}))
    dispatcher.add()
    assert lfns(dispatcher, NAME) == [("part_1", "ready"), ("part_2", "ready")]


class Keeper:
    """A plugin that remembers what was closed, and fails on one of its names."""

    told: ClassVar[list[ClosedDataset]] = []
    broken = False

    def close(self, dataset: ClosedDataset) -> None:
        if Keeper.broken:
            raise RuntimeError("the catalogue is away")
        Keeper.told.append(dataset)


@pytest.fixture
def kept(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[Dispatcher]:
    """A dispatcher with a keeper for one VO."""
    Keeper.told, Keeper.broken = [], False
    with dispatcher_in(tmp_path, empty_database, dataset_plugins=f"exp:{__name__}:Keeper") as made:
        yield made


def test_the_plugin_of_its_vo_is_told_and_asked_again_while_it_fails(kept: Dispatcher) -> None:
    kept.submit(writes("a", VO="exp"), {**writes("z"), "outputs": [{"lfn": "z", "scope": SCOPE, "dataset": "other"}]})
    run(kept)
    run(kept)
    Keeper.broken = True
    assert manage(kept, 2 * HOUR) == 1  # the one of no VO
    assert (numbers(kept)[0], numbers(kept, "other")[0]) == ("open", "closed")
    Keeper.broken = False
    assert manage(kept, table.LOOK_AGAIN) == 1
    assert Keeper.told == [ClosedDataset(SCOPE, NAME, "jane", 1, 0, 6)]


def test_many_are_looked_at_in_one_run(dispatcher: Dispatcher) -> None:
    names = [f"set.{number:03}" for number in range(450)]
    outputs = [{"lfn": name, "scope": SCOPE, "dataset": name} for name in names]
    dispatcher.submit(*({"outputs": outputs[start : start + 50], "user": "jane"} for start in range(0, 450, 50)))
    for _ in range(9):
        run(dispatcher)
    assert manage(dispatcher, 2 * HOUR) == 450


def test_names_with_a_star_states_and_users_choose(dispatcher: Dispatcher) -> None:
    def named(pattern: str, state: str = "", user: str = "", identity: Identity = ANYBODY) -> list[object]:
        found = datasets.list_datasets(dispatcher.context, identity, pattern, state, user, 10)
        return sorted(str(one["name"]) for one in found)

    for name, user in (("fit_1", "jane"), ("fit_2", "joe"), ("fitx3", "jane"), ("50%", "jane")):
        scope = f"user.{user}"
        dispatcher.submit({"user": user, "outputs": [{"lfn": f"{name}.root", "scope": scope, "dataset": name}]})
    assert named("") == ["50%", "fit_1", "fit_2", "fitx3"]
    assert named("fit_*") == ["fit_1", "fit_2"]
    assert named("*3") == ["fitx3"]
    assert named("fit_1") == ["fit_1"]
    assert named("*%") == ["50%"]
    assert named("", user="joe") == ["fit_2"]
    assert named("", identity=JOE) == named("", user="jane", identity=JOE) == ["fit_2"]
    assert named("", "closed") == []
    assert datasets.list_datasets(dispatcher.context, ANYBODY, "", "", "", -1) == []
    with pytest.raises(BadField, match="state must be open or closed, not 'frozen'"):
        named("", "frozen")


def test_only_its_user_and_operators_look_into_it(dispatcher: Dispatcher) -> None:
    dispatcher.submit(writes("a"))
    assert datasets.read_dataset(dispatcher.context, JANE, SCOPE, NAME)["promised"] == 1
    with pytest.raises(NotAllowed, match="belongs to jane"):
        datasets.read_dataset(dispatcher.context, JOE, SCOPE, NAME)
    with pytest.raises(NotAllowed):
        datasets.list_files(dispatcher.context, JOE, SCOPE, NAME, "", 10)
    with pytest.raises(NotFound, match="no job has named it"):
        datasets.read_dataset(dispatcher.context, JANE, "user.joe", NAME)


def test_a_job_that_names_none_is_told_one_of_its_own(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"user": "jane", "outputs": ["a"]})
    given = dispatcher.get_job()
    own = f"user.jane.{job}"
    assert given["realDatasets"] == f"{own},{own}"
    assert {one["dataset"] for one in dispatcher.files(job)} == {own}
    assert datasets.list_datasets(dispatcher.context, ANYBODY, "", "", "", 10) == []


def test_jobs_that_were_there_before_the_table_are_found(dispatcher: Dispatcher) -> None:
    dispatcher.submit(writes("a", "b"), {"user": "jane", "outputs": ["c"]}, writes("d"))
    run(dispatcher)
    migration = import_module("server.db.migrations.versions.0018_datasets")
    engine = create_engine(dispatcher.context.settings.database_url())
    with engine.begin() as connection:
        asked = select(tables.catalogue).order_by(tables.catalogue.c.lfn)
        before = connection.execute(asked).all()
        with Operations.context(MigrationContext.configure(connection)):
            migration.downgrade()
            migration.upgrade()
        assert connection.execute(asked).all() == before
    engine.dispose()
    assert manage(dispatcher) == 0
    assert numbers(dispatcher) == ("open", 2, 1, 0, 12)
