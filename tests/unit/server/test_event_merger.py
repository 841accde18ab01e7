"""Merge jobs that are made by themselves, once all ranges of a jobset are settled, and once only."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, func, select

from server.db import tables
from server.db.archive import DAY
from server.logic import archiving, events
from server.logic.context import ANYBODY
from server.logic.errors import BadJob
from server.logic.eventmerger import merge_ranges
from server.logic.events import RangeReport
from tests.unit.server.dispatcher import QUEUE, Dispatcher

JOBSET = {"taskID": 3, "jobsetID": 12}
MERGE: dict[str, object] = {
    "transformation": "merge.sh",
    "jobPars": "--in ${IN/L} --out all.root",
    "outFiles": "all.root",
}
FACTS = {"objstoreID": 7, "fsize": 5, "adler32": "0000000a", "endpoint": "DISK", "surl": "file:///a"}


def brings(merge: object = MERGE, number: int = 2, **job: object) -> dict[str, object]:
    return {**JOBSET, "events": {"number": number, "merge": merge}, **job}


def take(dispatcher: Dispatcher, label: str = "user") -> tuple[int, list[str]]:
    """A pilot takes the next job and all ranges it can have."""
    job_id = int(str(dispatcher.get_job(label=label)["PandaID"]))
    dispatcher.report(job_id, "running")
    return job_id, [
        str(one["eventRangeID"]) for one in events.acquire_ranges(dispatcher.context, job_id, 100, "", ANYBODY)
    ]


def tell(dispatcher: Dispatcher, status: str, *names: str, archive: str = "", **facts: object) -> None:
    zip_file = {"zipFile": {**FACTS, "lfn": archive, **facts}} if archive else {}
    reports = [RangeReport(name, status, zip_file) for name in names]
    assert events.update_ranges(dispatcher.context, reports, "", ANYBODY).taken == [True] * len(names)


def done(dispatcher: Dispatcher, *archives: str, **facts: object) -> int:
    """A pilot takes the next job and does one range for each archive."""
    job_id, names = take(dispatcher)
    for name, archive in zip(names, archives, strict=True):
        tell(dispatcher, "finished", name, archive=archive, **facts)
    dispatcher.finish(job_id)
    return job_id


def look(dispatcher: Dispatcher) -> int:
    """The merger looks at all that may be due."""
    dispatcher.clock.now += 601
    return merge_ranges(dispatcher.context)


def merging(dispatcher: Dispatcher, job_id: int) -> tuple[str, str]:
    found: Any = dispatcher.job(job_id)["merge"]
    return found["state"], found["reason"]


def counts(dispatcher: Dispatcher, job_id: int) -> dict[str, int]:
    return events.count_ranges(dispatcher.context, job_id)


def related(dispatcher: Dispatcher, job_id: int, which: str) -> list[int]:
    found: Any = dispatcher.job(job_id)[which]
    return [one["PandaID"] for one in found if one["kind"] == "merge"]


def test_one_merge_job_is_made_when_all_ranges_are_settled_and_all_jobs_over(dispatcher: Dispatcher) -> None:
    first, second = dispatcher.submit(
        brings(queue=QUEUE, label="managed", priority=3000), {**JOBSET, "eventService": True}
    )
    job_id, names = take(dispatcher, "managed")
    assert look(dispatcher) == 0
    tell(dispatcher, "finished", names[0], archive="one.tar")
    tell(dispatcher, "finished", names[1], archive="two.tar")
    dispatcher.finish(job_id)
    assert look(dispatcher) == 0
    assert merging(dispatcher, first) == ("waiting", "jobs that may have its ranges are not over")
    dispatcher.kill(second)
    assert look(dispatcher) == 1
    assert look(dispatcher) == 0
    merge = dispatcher.get_job(label="managed")
    merge_id = int(str(merge["PandaID"]))
    assert (merge["inFiles"], merge["eventServiceMerge"], merge["taskID"]) == ("one.tar,two.tar", "True", 3)
    assert (merge["checksum"], merge["fsize"], merge["ddmEndPointIn"]) == (
        "ad:0000000a,ad:0000000a", "5,5", "DISK,DISK",
    )  # fmt: skip
    assert merge["jobPars"] == "--in one.tar,two.tar --out all.root"
    assert merge["currentPriority"] == 5000
    assert (related(dispatcher, merge_id, "parents"), related(dispatcher, first, "children")) == ([first], [merge_id])
    assert merging(dispatcher, first) == ("merging", f"by job {merge_id}")
    dispatcher.report(merge_id, "running")
    dispatcher.finish(merge_id)
    assert counts(dispatcher, first) == {"merged": 2}
    assert look(dispatcher) == 0
    assert merging(dispatcher, first) == ("merged", "all that is done is merged")


def test_ranges_that_are_fatal_or_cancelled_keep_nobody_waiting(dispatcher: Dispatcher) -> None:
    dispatcher.submit(brings(number=3))
    job_id, (a, b, _) = take(dispatcher)
    tell(dispatcher, "finished", a, archive="one.tar")
    tell(dispatcher, "fatal", b)
    dispatcher.kill(job_id)
    dispatcher.fail(job_id, 1144)
    assert counts(dispatcher, job_id) == {"done": 1, "fatal": 1, "cancelled": 1}
    assert look(dispatcher) == 1
    assert dispatcher.get_job()["inFiles"] == "one.tar"


def test_ranges_that_are_left_are_waited_for_until_another_job_has_done_them(dispatcher: Dispatcher) -> None:
    dispatcher.submit(brings())
    job_id, names = take(dispatcher)
    tell(dispatcher, "finished", names[0], archive="one.tar")
    dispatcher.fail(job_id)
    assert look(dispatcher) == 0
    assert (
        merging(dispatcher, job_id)[1] == "ranges are left that no job has: submit another job of the jobset for them"
    )
    dispatcher.submit({**JOBSET, "eventService": True})
    done(dispatcher, "two.tar")
    assert look(dispatcher) == 1
    assert dispatcher.get_job()["inFiles"] == "one.tar,two.tar"


def test_nothing_is_made_where_no_merge_is_named(dispatcher: Dispatcher) -> None:
    dispatcher.submit({**JOBSET, "events": {"number": 1}})
    job_id = done(dispatcher, "one.tar")
    assert look(dispatcher) == 0
    assert counts(dispatcher, job_id) == {"done": 1}
    assert dispatcher.job(job_id)["merge"] is None


@pytest.mark.parametrize(
    ("limits", "size", "expected"),
    [
        ({}, 5, ["a,b,c,d,e"]),
        ({"max_inputs": 2}, 5, ["a,b", "c,d", "e"]),
        ({"max_size": 2}, 10**6, ["a,b", "c,d", "e"]),
        ({"max_size": 1}, 5 * 10**6, ["a", "b", "c", "d", "e"]),
    ],
)
def test_a_merge_job_has_so_many_inputs_and_so_large_ones(
    dispatcher: Dispatcher, limits: dict[str, int], size: int, expected: list[str]
) -> None:
    dispatcher.submit(brings({**MERGE, **limits}, 5))
    done(dispatcher, *"abcde", fsize=size)
    assert look(dispatcher) == len(expected)
    merges = [dispatcher.get_job() for _ in expected]
    assert sorted(str(merge["inFiles"]) for merge in merges) == expected
    outputs = [str(merge["outFiles"]).split(",")[0] for merge in merges]
    assert len(set(outputs)) == len(expected), "each has an output of its own"
    assert all(f"--out {name}" in str(merge["jobPars"]) for merge, name in zip(merges, outputs, strict=True))


def test_a_friendly_command_merges_too_and_each_range_of_an_archive_goes_with_it(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"events": {"number": 3, "merge": {"command": "cat %IN > all", "outputs": ["all"], "memory": 7}}})
    job_id, names = take(dispatcher)
    tell(dispatcher, "finished", *names, archive="one.tar")
    dispatcher.finish(job_id)
    assert look(dispatcher) == 1
    merge = dispatcher.get_job()
    assert (merge["inFiles"], merge["minRamCount"]) == ("one.tar", 7)
    assert "one.tar" in str(merge["jobPars"])
    dispatcher.finish(int(str(merge["PandaID"])))
    assert counts(dispatcher, job_id) == {"merged": 3}


def test_what_was_in_corrupted_archives_is_redone_and_merged_with_the_rest(dispatcher: Dispatcher) -> None:
    (first,) = dispatcher.submit(brings())
    done(dispatcher, "good.tar", "bad.tar")
    assert look(dispatcher) == 1
    merge = int(str(dispatcher.get_job()["PandaID"]))
    dispatcher.report(merge, "running")
    dispatcher.fail(merge, corruptedFiles="bad.tar")
    assert counts(dispatcher, first) == {"done": 1, "ready": 1}
    assert look(dispatcher) == 0
    dispatcher.submit({**JOBSET, "eventService": True})
    redone = done(dispatcher, "again.tar")
    assert look(dispatcher) == 1
    second = dispatcher.get_job()
    assert second["inFiles"] == "good.tar,again.tar"
    assert related(dispatcher, int(str(second["PandaID"])), "parents") == [first, redone]
    dispatcher.finish(int(str(second["PandaID"])))
    assert counts(dispatcher, first) == {"merged": 2}


def test_a_merge_that_fails_for_good_says_so_and_somebody_may_submit_another(dispatcher: Dispatcher) -> None:
    (first,) = dispatcher.submit(brings({**MERGE, "max_attempts": 2}))
    done(dispatcher, "one.tar", "two.tar")
    assert look(dispatcher) == 1
    for _ in range(2):
        merge = int(str(dispatcher.get_job()["PandaID"]))
        dispatcher.report(merge, "running")
        assert look(dispatcher) == 0
        assert merging(dispatcher, first) == ("merging", f"by job {merge}")
        dispatcher.fail(merge)
    assert look(dispatcher) == 0
    text = f"job {merge} did not merge its ranges: submit another merge job for its archives"
    assert merging(dispatcher, first) == ("failed", text)
    inputs = [{"lfn": name, "fsize": 5, "surl": "file:///a"} for name in ("one.tar", "two.tar")]
    dispatcher.submit({"eventServiceMerge": True, "inputs": inputs})
    by_hand = int(str(dispatcher.get_job()["PandaID"]))
    dispatcher.finish(by_hand)
    assert look(dispatcher) == 0
    assert counts(dispatcher, first) == {"merged": 2}
    assert merging(dispatcher, first)[0] == "merged"
    assert related(dispatcher, by_hand, "parents") == [first]


def test_what_a_failed_merge_has_is_left_alone_when_more_is_to_be_merged(dispatcher: Dispatcher) -> None:
    (first,) = dispatcher.submit(brings())
    done(dispatcher, "one.tar", "two.tar")
    assert look(dispatcher) == 1
    failed = int(str(dispatcher.get_job()["PandaID"]))
    dispatcher.fail(failed)
    assert look(dispatcher) == 0
    dispatcher.submit(brings(number=1))
    done(dispatcher, "three.tar")
    assert look(dispatcher) == 1
    merge = dispatcher.get_job()
    assert merge["inFiles"] == "three.tar"
    dispatcher.finish(int(str(merge["PandaID"])))
    assert look(dispatcher) == 0
    assert counts(dispatcher, first) == {"done": 2, "merged": 1}
    assert merging(dispatcher, first)[1].startswith(f"job {failed} did not merge its ranges")


def test_a_killed_merge_is_not_made_again(dispatcher: Dispatcher) -> None:
    dispatcher.submit(brings())
    job_id = done(dispatcher, "one.tar", "two.tar")
    assert look(dispatcher) == 1
    (merge,) = related(dispatcher, job_id, "children")
    dispatcher.kill(merge)
    assert look(dispatcher) == 0
    assert counts(dispatcher, job_id) == {"discarded": 2}


def test_a_merge_job_that_cannot_be_submitted_any_more_is_tried_again_later(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher.submit(brings())
    job_id = done(dispatcher, "one.tar", "two.tar", adler32="nonsense")
    assert look(dispatcher) == 0
    state, reason = merging(dispatcher, job_id)
    assert (state, "the merge job is refused, inputs: 'ad:nonsense' is neither" in reason) == ("failed", True)
    assert merge_ranges(dispatcher.context) == 0


def test_two_daemons_make_one_merge_job(dispatcher: Dispatcher) -> None:
    dispatcher.submit(*[{**brings(), "jobsetID": number} for number in range(1, 6)])
    for number in range(5):
        done(dispatcher, f"{number}.tar", f"{number}b.tar")
    dispatcher.clock.now += 601
    made: list[int] = []
    threads = [threading.Thread(target=lambda: made.append(merge_ranges(dispatcher.context))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(made) == 5
    inputs = sorted(str(dispatcher.get_job()["inFiles"]) for _ in range(5))
    assert inputs == [f"{number}.tar,{number}b.tar" for number in range(5)]
    dispatcher.no_job()


def test_a_daemon_that_dies_in_the_middle_has_made_nothing(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher.submit(brings())
    done(dispatcher, "one.tar", "two.tar")

    def dies(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("server.db.eventmerges.set_merge_state", dies)
        with pytest.raises(RuntimeError):
            look(dispatcher)
    dispatcher.no_job()
    assert look(dispatcher) == 1


def test_a_task_job_and_its_heir_are_merged_together(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"taskID": 3, "max_attempts": 2, "events": {"number": 2, "merge": MERGE}})
    job_id, names = take(dispatcher)
    tell(dispatcher, "finished", names[0], archive="one.tar")
    dispatcher.fail(job_id)
    assert look(dispatcher) == 0
    heir = done(dispatcher, "two.tar")
    assert heir != job_id
    assert look(dispatcher) == 1
    assert merging(dispatcher, job_id)[0] == merging(dispatcher, heir)[0] == "merging"
    assert dispatcher.get_job()["inFiles"] == "one.tar,two.tar"


@pytest.mark.parametrize(
    ("merge", "text"),
    [
        ("cat", "merge must be an object"),
        ({}, "merge, command: is missing"),
        ({"command": "x", "inputs": ["a"]}, "merge has 'inputs': that is decided"),
        ({"command": "x", "taskID": 4}, "merge has 'taskID': that is decided"),
        ({"command": "x", "bogus": 4}, "merge, bogus: is not known"),
        ({"command": "x", "max_inputs": 0}, "max_inputs must be a whole number between 1"),
        ({"command": "x", "queue": "NOWHERE"}, "merge, queue: this server has no queue 'NOWHERE'"),
        ({"command": "x", "sandbox": "no.tgz"}, "merge, sandbox: 'no.tgz' is not on this server"),
    ],
)
def test_a_merge_that_makes_no_sense_is_refused_at_once(dispatcher: Dispatcher, merge: object, text: str) -> None:
    with pytest.raises(BadJob, match="job 0, field 'events'") as raised:
        dispatcher.submit(brings(merge))
    assert text in str(raised.value)


def test_a_jobset_is_merged_in_one_way(dispatcher: Dispatcher) -> None:
    dispatcher.submit(brings(), brings())
    with pytest.raises(BadJob, match="is not the one that another job of this jobset has"):
        dispatcher.submit(brings({"command": "x"}))


# ---- and the archive


def rows(dispatcher: Dispatcher) -> dict[str, int]:
    with dispatcher.context.database.reading() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (
                tables.jobs,
                tables.event_ranges,
                tables.event_jobs,
                tables.event_merges,
                tables.job_relations,
            )
        }


def test_the_jobs_of_a_jobset_stay_out_of_the_archive_while_one_of_them_is_not_over(dispatcher: Dispatcher) -> None:
    dispatcher.configure("EVENTS_DAYS", 0, "archive")
    _, living = dispatcher.submit(brings(), {**JOBSET, "eventService": True, "label": "test"})
    done(dispatcher, "one.tar", "two.tar")
    dispatcher.clock.now += 4 * DAY
    assert archiving.archive_jobs(dispatcher.context) == 0
    dispatcher.kill(living)
    dispatcher.clock.now += 4 * DAY
    assert archiving.archive_jobs(dispatcher.context) == 2


def test_what_is_done_and_not_merged_stays_for_a_while(dispatcher: Dispatcher) -> None:
    (other,) = dispatcher.submit({"label": "test"})
    (job_id,) = dispatcher.submit(brings())
    done(dispatcher, "one.tar", "two.tar")
    dispatcher.clock.now += 1
    dispatcher.kill(other)
    dispatcher.clock.now += 13 * DAY
    assert archiving.archive_jobs(dispatcher.context) == 1, "others do not wait for it"
    assert look(dispatcher) == 1
    assert counts(dispatcher, job_id) == {"done": 2}
    dispatcher.clock.now += 2 * DAY
    assert archiving.archive_jobs(dispatcher.context) == 1, "nobody has merged it"


def test_what_is_merged_goes_as_soon_as_any_job(dispatcher: Dispatcher) -> None:
    (job_id,) = dispatcher.submit(brings())
    done(dispatcher, "one.tar", "two.tar")
    look(dispatcher)
    merge = int(str(dispatcher.get_job()["PandaID"]))
    dispatcher.finish(merge)
    before = dispatcher.job(job_id)
    dispatcher.clock.now += 4 * DAY
    assert archiving.archive_jobs(dispatcher.context) == 2
    assert dispatcher.job(job_id) == {**before, "merge": None}
    assert rows(dispatcher) == {"jobs": 0, "event_ranges": 0, "event_jobs": 0, "event_merges": 0, "job_relations": 1}


def test_ranges_that_nobody_has_go_with_the_last_job_of_their_jobset(dispatcher: Dispatcher) -> None:
    first, second = dispatcher.submit(brings(number=4), {**JOBSET, "eventService": True, "label": "test"})
    job_id, _ = take(dispatcher)
    dispatcher.fail(job_id)
    dispatcher.clock.now += DAY
    dispatcher.kill(second)
    dispatcher.clock.now += 2.5 * DAY
    assert archiving.archive_jobs(dispatcher.context) == 1
    assert rows(dispatcher) == {"jobs": 1, "event_ranges": 4, "event_jobs": 1, "event_merges": 1, "job_relations": 0}
    dispatcher.clock.now += DAY
    assert archiving.archive_jobs(dispatcher.context) == 1
    assert set(rows(dispatcher).values()) == {0}
    assert dispatcher.job(second)["events"] == {"ready": 4}
    assert dispatcher.job(first)["events"] == {}


@pytest.mark.parametrize("number", [3, 7])
def test_jobs_that_are_kept_do_not_hold_up_the_others_however_many_there_are(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Of several jobsets, all ended at one time."""
    monkeypatch.setattr(archiving, "_BATCH", 2)
    jobsets = [{**brings(), "jobsetID": one} for one in range(1, number + 1)]
    others = [{**JOBSET, "jobsetID": one, "eventService": True, "label": "test"} for one in range(1, number + 1)]
    dispatcher.submit(*jobsets, *others)
    for one in range(number):
        done(dispatcher, f"{one}.tar", f"{one}b.tar")
    for plain in dispatcher.submit(*[{"label": "managed"}] * 5):
        dispatcher.kill(plain)
    dispatcher.clock.now += 4 * DAY
    assert archiving.archive_jobs(dispatcher.context) == 5


def test_whom_a_job_comes_from_is_forgotten_with_it(dispatcher: Dispatcher) -> None:
    dispatcher.configure("KEEP_DAYS", 10, "archive")
    dispatcher.submit({"taskID": 5, "max_attempts": 3})
    for _ in range(3):
        dispatcher.fail(int(str(dispatcher.get_job()["PandaID"])))
    assert rows(dispatcher)["job_relations"] == 2
    dispatcher.clock.now += 4 * DAY
    assert archiving.archive_jobs(dispatcher.context) == 3
    assert rows(dispatcher)["job_relations"] == 2
    dispatcher.clock.now += 8 * DAY
    assert archiving.forget_jobs(dispatcher.context) == 1
    assert rows(dispatcher)["job_relations"] == 0


def test_jobs_that_were_there_before_the_tables_are_found(dispatcher: Dispatcher) -> None:
    dispatcher.submit(brings(), {**JOBSET, "eventService": True}, {"events": {"number": 3}}, {})
    migration = import_module("server.db.migrations.versions.0017_event_jobs")
    engine = create_engine(dispatcher.context.settings.database_url())
    with engine.begin() as connection:
        asked = select(tables.event_jobs).order_by(tables.event_jobs.c.PandaID)
        before = connection.execute(asked).all()
        with Operations.context(MigrationContext.configure(connection)):
            migration.downgrade()
            migration.upgrade()
        assert connection.execute(asked).all() == before
    assert len(before) == 3
    engine.dispose()
