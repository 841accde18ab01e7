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
from sqlalchemy import create_engine, select, update

from server.daemon.scripts import datasetManager
from server.db import datasets as table
from server.db import tables
from server.db.archive import DAY
from server.db.database import DatabaseUnavailable
from server.logic import archiving, datasets, recovery
from server.logic.context import ANYBODY, Identity, Role
from server.logic.errors import BadField, NotFound
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
        (seen,) = table.read_datasets(connection, SCOPE, NAME, "jane")
        tally = table.Tally(ready=1, fsize=6)
        assert table.store_look(connection, seen, "closed", tally, dispatcher.clock.now + HOUR, dispatcher.clock.now)
    assert manage(dispatcher, HOUR) == 0
    assert numbers(dispatcher)[:3] == ("open", 1, 1)


def test_what_has_changed_since_it_was_seen_is_not_overwritten(dispatcher: Dispatcher) -> None:
    dispatcher.submit(writes("a"))
    with dispatcher.context.database.durable() as connection:
        (seen,) = table.read_datasets(connection, SCOPE, NAME, "jane")
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


def patterned() -> dict[str, object]:
    """A job that writes files to the dataset whose names nobody knows before."""
    lists = {"outFiles": "part_*", "realDatasets": NAME, "scopeOut": SCOPE}
    return {"user": "jane", "VO": "exp", "command": None, "transformation": "t", "jobPars": "x", **lists}


def test_outputs_whose_names_only_the_report_tells_keep_it_open_and_belong_to_it(kept: Dispatcher) -> None:
    kept.submit(patterned())
    assert manage(kept, 10 * HOUR) == 0
    job = int(str(kept.get_job()["PandaID"]))
    kept.report(job, "running")
    assert manage(kept, HOUR) == 0
    kept.report(job, "finished", xml=json.dumps({name: good_file() for name in ("part_1", "part_2")}))
    kept.add()
    assert lfns(kept, NAME) == [("part_1", "ready"), ("part_2", "ready")]
    assert manage(kept, 2 * HOUR) == 1
    assert Keeper.told == [ClosedDataset(SCOPE, NAME, "jane", 2, 0, 12)]


def test_what_came_between_the_closing_and_the_second_look_is_told_of(kept: Dispatcher) -> None:
    kept.submit(writes("a", VO="exp"))
    run(kept)
    kept.submit(writes("b", VO="exp"))
    kept.clock.now += 2 * HOUR
    with kept.context.database.durable() as connection:  # as the manager did before it could see the second job
        (seen,) = table.read_datasets(connection, SCOPE, NAME, "jane")
        tally = table.Tally(ready=1, fsize=6)
        assert table.store_look(connection, seen, "closed", tally, kept.clock.now + HOUR, kept.clock.now)
    run(kept)
    assert manage(kept, HOUR) == 0
    assert numbers(kept) == ("open", 2, 0, 0, 12)
    assert manage(kept, HOUR) == 1
    assert [one.ready for one in Keeper.told] == [2]


def test_sizes_that_cannot_be_and_datasets_that_cannot_be_looked_at_keep_no_other_open(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = {**good_file(), "fsize": 2**62 - 1}
    other = {"user": "jane", "outputs": [{"lfn": "z", "scope": SCOPE, "dataset": "other"}]}
    (job, _) = dispatcher.submit(writes("a", "b", "c"), other)
    dispatcher.get_job()
    names = [str(one["lfn"]) for one in dispatcher.files(job)]
    dispatcher.report(job, "finished", xml=json.dumps(dict.fromkeys(names, huge)))
    dispatcher.add()
    run(dispatcher)
    assert manage(dispatcher, table.LOOK_AGAIN) == 0
    assert numbers(dispatcher) == ("open", 3, 0, 0, 2**63 - 1)
    assert numbers(dispatcher, "other") == ("open", 1, 0, 0, 6)

    def away(connection: object, dataset: table.Dataset) -> table.Tally:
        if dataset.name == NAME:
            raise DatabaseUnavailable("somebody has locked it")
        return counted(connection, dataset)  # type: ignore[arg-type]

    counted = table.count_files
    monkeypatch.setattr(table, "count_files", away)
    assert manage(dispatcher, 2 * HOUR) == 1
    assert (numbers(dispatcher)[0], numbers(dispatcher, "other")[0]) == ("open", "closed")
    monkeypatch.undo()
    assert manage(dispatcher, table.LOOK_AGAIN) == 1


def test_a_shorter_patience_holds_for_those_that_wait_already(dispatcher: Dispatcher) -> None:
    dispatcher.configure("CLOSE_AFTER", 1000 * HOUR, component="dataset")
    dispatcher.submit(writes("a"))
    run(dispatcher)
    assert manage(dispatcher, HOUR) == 0
    dispatcher.configure("CLOSE_AFTER", HOUR, component="dataset")
    assert manage(dispatcher, HOUR) == 1


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
    assert named("FIT*") == named("[f]it*") == named("fit??") == []
    assert named("", user="joe") == ["fit_2"]
    assert named("", identity=JOE) == named("", user="jane", identity=JOE) == ["fit_2"]
    assert named("", "closed") == []
    assert datasets.list_datasets(dispatcher.context, ANYBODY, "", "", "", -1) == []
    with pytest.raises(BadField, match="state must be open or closed, not 'frozen'"):
        named("", "frozen")


def test_two_users_with_one_name_have_a_dataset_each_and_see_their_own(dispatcher: Dispatcher) -> None:
    def of(user: str, lfn: str) -> dict[str, object]:
        return {"user": user, "outputs": [{"lfn": lfn, "scope": SCOPE, "dataset": NAME}]}

    def seen_by(identity: Identity, user: str = "") -> list[object]:
        found = datasets.list_files(dispatcher.context, identity, SCOPE, NAME, "", 10, user)
        return [one["lfn"] for one in found]

    dispatcher.submit(of("joe", "bait"))  # who comes first has no claim to what others write
    dispatcher.submit(of("jane", "secret"))
    assert (seen_by(JANE), seen_by(JOE), seen_by(JOE, "jane")) == (["secret"], ["bait"], ["bait"])
    assert datasets.read_dataset(dispatcher.context, JANE, SCOPE, NAME)["promised"] == 1
    assert seen_by(ANYBODY, "jane") == ["secret"]
    with pytest.raises(BadField, match="user is needed: several have a dataset of this name, like jane, joe"):
        seen_by(ANYBODY)
    with pytest.raises(NotFound, match="of jim; no job has named it"):
        seen_by(Identity("jim", frozenset({Role.USER})))
    with pytest.raises(NotFound, match="no job has named it"):
        datasets.read_dataset(dispatcher.context, ANYBODY, "user.joe", NAME)


def test_a_job_that_names_none_is_told_one_of_its_own(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"user": "jane", "outputs": ["a"]})
    given = dispatcher.get_job()
    own = f"user.jane.{job}"
    assert given["realDatasets"] == f"{own},{own}"
    assert {one["dataset"] for one in dispatcher.files(job)} == {own}
    assert datasets.list_datasets(dispatcher.context, ANYBODY, "", "", "", 10) == []


def test_jobs_that_were_there_before_the_table_are_found(dispatcher: Dispatcher) -> None:
    zoe = {"user": "zoe", "VO": "exp", "outputs": [{"lfn": "z", "scope": SCOPE, "dataset": NAME}]}
    own, *_ = dispatcher.submit({"user": "jane", "outputs": ["c"]}, writes("a", "b"), writes("d"), zoe)
    run(dispatcher)
    run(dispatcher)
    heir = recovery.recover_files(dispatcher.context, [(SCOPE, "c")], ANYBODY).heirs[own]
    migration = import_module("server.db.migrations.versions.0018_datasets")
    engine = create_engine(dispatcher.context.settings.database_url())
    with engine.begin() as connection:
        asked = select(tables.catalogue).order_by(tables.catalogue.c.lfn)
        before = connection.execute(asked).all()
        with Operations.context(MigrationContext.configure(connection)):
            migration.downgrade()
            outputs = tables.files.c.type != "input"  # as they stood there then, an heir's like its ancestor's
            for job in (own, heir):
                of_job = update(tables.files).where(tables.files.c.PandaID == job, outputs)
                connection.execute(of_job.values(dataset=f"user.jane.{own}"))
            migration.upgrade()
        assert connection.execute(asked).all() == before
    engine.dispose()
    assert manage(dispatcher) == 0
    found = datasets.list_datasets(dispatcher.context, ANYBODY, "", "", "", 10)
    assert sorted((one["prodUserName"], one["VO"], one["ready"], one["promised"]) for one in found) == [
        ("jane", "", 2, 1),
        ("zoe", "exp", 0, 1),
    ]
