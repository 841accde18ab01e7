"""File recovery: what a storage has lost is made again, and nothing else is touched."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from server.daemon.scripts import recover_lost_files_daemon as script
from server.logic.context import ANYBODY, Identity, Role
from server.logic.errors import BadField
from server.logic.recovery import Recovery, read_names, recover_files
from tests.unit.server.dispatcher import Dispatcher, good_file

SCOPE = "user.guest"


def made(dispatcher: Dispatcher, **job: object) -> int:
    """A job that has finished."""
    (job_id,) = dispatcher.submit({"max_attempts": 3, **job})
    dispatcher.get_job()
    dispatcher.report(job_id, "running")
    dispatcher.finish(job_id)
    assert dispatcher.status(job_id) == "finished"
    return job_id


def outputs(dispatcher: Dispatcher, job_id: int) -> dict[str, str]:
    """{LFN: status} of a job's outputs."""
    return {str(f["lfn"]): str(f["status"]) for f in dispatcher.files(job_id) if f["type"] == "output"}


def recover(dispatcher: Dispatcher, *lfns: str, dry_run: bool = False, identity: Identity = ANYBODY) -> Recovery:
    (scope,) = {str(f["scope"]) for f in dispatcher.files(1)} or {SCOPE}
    return recover_files(dispatcher.context, [(scope, lfn) for lfn in lfns], identity, dry_run=dry_run)


def test_a_lost_file_is_made_again_by_a_job_of_its_own_under_its_name(dispatcher: Dispatcher) -> None:
    job = made(dispatcher, command="make a b", outputs=["a", "b"])
    before = dispatcher.job(job)
    recovery = recover(dispatcher, "a")
    heir = recovery.heirs[job]
    after = dispatcher.job(job)
    assert {key: after[key] for key in before if key not in ("history", "children")} == {
        key: before[key] for key in before if key not in ("history", "children")
    }
    assert "makes the lost file a again" in str(after["history"])
    assert outputs(dispatcher, heir) == {"a": "defined", f"{heir}.b": "defined"}
    definition = dispatcher.get_job()
    assert definition["PandaID"] == heir
    assert definition["attemptNr"] == 2
    assert f"'b': '{heir}.b'" in str(definition["jobPars"])
    dispatcher.report(heir, "running")
    dispatcher.finish(heir)
    assert dispatcher.status(heir) == "finished"
    (user,) = dispatcher.submit({"inputs": ["a"]})
    assert dispatcher.status(user) == "activated"


def test_the_heir_is_related_to_the_job_it_follows(dispatcher: Dispatcher) -> None:
    job = made(dispatcher, outputs=["a"])
    heir = recover(dispatcher, "a").heirs[job]
    assert dispatcher.job(heir)["parents"] == [{"PandaID": job, "kind": "recovery"}]


def test_the_files_of_one_job_may_be_lost_one_after_the_other(dispatcher: Dispatcher) -> None:
    job = made(dispatcher, outputs=["a", "b"])
    first = recover(dispatcher, "a").heirs[job]
    second = recover(dispatcher, "b").heirs[job]
    assert dispatcher.get_job()["PandaID"] == first
    dispatcher.finish(first)
    assert dispatcher.get_job()["PandaID"] == second
    dispatcher.finish(second)
    assert (dispatcher.status(first), dispatcher.status(second)) == ("finished", "finished")


def test_asking_twice_makes_nothing_twice(dispatcher: Dispatcher) -> None:
    job = made(dispatcher, outputs=["a"])
    heir = recover(dispatcher, "a").heirs[job]
    again = recover(dispatcher, "a")
    assert again.heirs == {}
    (sentence,) = again.left
    assert sentence.endswith(f":a is being made by job {heir}")


def test_who_has_not_started_waits_again_and_who_has_goes_on(dispatcher: Dispatcher) -> None:
    job = made(dispatcher, outputs=["a"])
    running, queued = dispatcher.submit({"inputs": ["a"]}, {"inputs": ["a"]})
    assert dispatcher.get_job()["PandaID"] == running
    recovery = recover(dispatcher, "a")
    assert recovery.waiting == [queued]
    assert (dispatcher.status(running), dispatcher.status(queued)) == ("sent", "assigned")
    heir = recovery.heirs[job]
    assert dispatcher.get_job()["PandaID"] == heir
    dispatcher.finish(heir)
    assert dispatcher.status(queued) == "activated"


def test_a_whole_chain_is_made_again_in_its_order(dispatcher: Dispatcher) -> None:
    first = made(dispatcher, outputs=["a"])
    second = made(dispatcher, inputs=["a"], outputs=["b"])
    recovery = recover(dispatcher, "b", "a")
    assert dispatcher.status(recovery.heirs[second]) == "assigned"
    assert dispatcher.get_job()["PandaID"] == recovery.heirs[first]
    dispatcher.finish(recovery.heirs[first])
    assert dispatcher.get_job()["PandaID"] == recovery.heirs[second]


def test_a_dry_run_changes_nothing(dispatcher: Dispatcher) -> None:
    job = made(dispatcher, outputs=["a"])
    (user,) = dispatcher.submit({"inputs": ["a"]})
    before = dispatcher.job(job), dispatcher.job(user)
    recovery = recover(dispatcher, "a", dry_run=True)
    assert (recovery.heirs, recovery.waiting) == ({job: 0}, [user])
    assert (dispatcher.job(job), dispatcher.job(user)) == before


def test_what_cannot_be_made_again_is_a_sentence(dispatcher: Dispatcher) -> None:
    job = made(dispatcher, outputs=["a"])
    (silent,) = dispatcher.submit({})
    dispatcher.get_job()
    dispatcher.report(silent, "finished", xml=json.dumps({"x.root": good_file()}))
    dispatcher.add()
    assert outputs(dispatcher, silent) == {"x.root": "ready"}
    (failed,) = dispatcher.submit({"outputs": ["c"]})
    dispatcher.get_job()
    dispatcher.fail(failed)
    (log,) = [str(f["lfn"]) for f in dispatcher.files(job) if f["type"] == "log"]
    other = Identity("bob", frozenset({Role.USER}))
    for lfn, identity, sentence in (
        ("nothing", ANYBODY, "is no output of a job"),
        (log, ANYBODY, "is a log of job"),
        ("x.root", ANYBODY, "does not name all of its outputs"),
        ("c", ANYBODY, "which has failed"),
        ("a", other, "only that user and operators"),
    ):
        recovery = recover(dispatcher, lfn, identity=identity)
        assert recovery.heirs == {}
        assert sentence in recovery.left[0]


@pytest.mark.parametrize("names", [[], ["a"], [":a"], ["s:"], ["s:a/b"], [5], ["s:a"] * 10_001])
def test_names_are_checked(names: list[object]) -> None:
    with pytest.raises(BadField):
        read_names(names)


def test_requests_in_the_directory_are_dealt_with_once(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    job = made(dispatcher, outputs=["a"])
    scope = dispatcher.files(job)[0]["scope"]
    folder = dispatcher.context.settings.data_path() / "recovery"
    caplog.set_level(logging.WARNING)
    assert script.run(dispatcher.context, []) is False
    (folder / "one.json").write_text(json.dumps({"files": [f"{scope}:a", f"{scope}:nothing"]}))
    (folder / "two.json").write_text('{"files": ["')
    old = folder / "old.result"
    old.write_text("{}")
    os.utime(old, (0, 0))
    script.run(dispatcher.context, [])
    assert sorted(path.name for path in folder.iterdir()) == ["one.result", "two.result"]
    result = json.loads((folder / "one.result").read_text())
    assert list(result["heirs"]) == [str(job)]
    assert len(result["left"]) == 1
    assert "is not JSON" in json.loads((folder / "two.result").read_text())["error"]
    assert len(caplog.records) == 2


def test_a_folder_that_is_not_there_is_made(dispatcher: Dispatcher) -> None:
    script.run(dispatcher.context, [])
    assert Path(dispatcher.context.settings.data_path() / "recovery").is_dir()
