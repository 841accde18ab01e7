"""Promise D3: whatever is reported, repeated, reordered or lost, the states are those of a model of the protocol.

The model is written from wire.md (sections 5, 7 and 8) and chapter 12.1.3, and knows nothing of the server's tables.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from server.logic import details, setupper, throttling, transfers
from server.logic.context import ANYBODY
from server.logic.dispatch import NoJob
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import Dispatcher, dispatcher_in, good_file

HOUR, DAY = 3600, 86400
#: Jobs that a user submits in one life: enough for chains.
MOST = 7
#: States a pilot moves a job through, in their order.
RANK = {"sent": 0, "starting": 1, "running": 2, "transferring": 3, "holding": 4}
VERDICTS = ("finished", "failed")
REPORTS = ("starting", "running", "transferring", "holding", *VERDICTS)
OVER = ("finished", "failed", "cancelled", "closed")
NOT_STARTED = ("pending", "defined", "assigned", "throttled", "activated")
#: What may follow what within an attempt.
FOLLOWS = {
    "pending": {"defined", "failed", "cancelled", "closed"},
    "defined": {"assigned", "activated", "failed", "cancelled", "closed"},
    "assigned": {"activated", "throttled", "failed", "cancelled"},
    "throttled": {"assigned", "failed", "cancelled", "closed"},
    "activated": {"sent", "throttled", "failed", "cancelled", "closed"},
    "sent": {"starting", "running", "transferring", "holding", "failed"},
    "starting": {"running", "transferring", "holding", "failed"},
    "running": {"transferring", "holding", "failed"},
    "transferring": {"holding", "finished", "failed", "cancelled"},
    "holding": {"finished", "failed", "cancelled", "merging", "transferring"},
    "merging": {"finished", "failed", "cancelled"},
    "failed": {"failed"},  # a remark: which job is the next attempt
}


@dataclass
class Job:
    """A job as the model has it."""

    number: int
    status: str
    most: int
    task: int
    output: str
    kind: str
    maker: Job | None = None
    merges: Job | None = None
    ready: bool = True  # its input, if it has one
    made: bool = False  # its output can be read
    attempt: int = 1
    failed: int = 0
    since: float = 0.0
    heard: float = 0.0
    claim: str | None = None
    verdict: str = ""
    given_up: bool = False
    killed: bool = False
    heir: int = 0
    users: list[Job] = field(default_factory=list)

    def moves(self, status: str, now: float) -> None:
        self.status, self.since, self.heard = status, now, now


_users = itertools.count()


class Life(RuleBasedStateMachine):
    """Pilots, users, operators, storages, the daemon and time, in any order."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self.dispatcher = dispatcher
        number = next(_users)
        self.user, self.task = f"user{number}", 1000 + number
        self.jobs: dict[int, Job] = {}

    @property
    def now(self) -> float:
        return self.dispatcher.clock.now

    def some(self, data: st.DataObject, wanted: Callable[[Job], bool] = lambda job: True) -> Job | None:
        found = [job.number for job in self.jobs.values() if wanted(job)]
        return self.jobs[data.draw(st.sampled_from(found))] if found else None

    def has(self, *statuses: str) -> bool:
        return any(job.status in statuses for job in self.jobs.values())

    # ---- users and operators

    @initialize(kinds=st.lists(st.sampled_from(["plain", "moved", "unmerged"]), min_size=2, max_size=3))
    def begin(self, kinds: list[str]) -> None:
        """Some jobs that can run at once, so that there is something to do."""
        for number, kind in enumerate(kinds):
            name = f"{'panda.um.' if kind == 'unmerged' else ''}{self.user}.first{number}"
            place = "TAPE" if kind == "moved" else "DISK"
            outputs = [{"lfn": name, "endpoint": place}]
            form = {"outputs": outputs, "max_attempts": 3, "taskID": self.task * (number % 2)}
            self._submit(form, kind, "", None)

    @precondition(lambda self: len(self.jobs) < MOST)
    @rule(
        data=st.data(),
        kind=st.sampled_from(["plain", "plain", "moved", "unmerged"]),
        most=st.integers(1, 3),
        of_task=st.booleans(),
        chained=st.booleans(),
        prepared=st.sampled_from(["", "", "ready", "wait"]),
    )
    def submit(self, data: st.DataObject, kind: str, most: int, of_task: bool, chained: bool, prepared: str) -> None:
        maker = self.some(data, lambda job: not job.heir and not job.merges) if chained else None
        name = f"{'panda.um.' if kind == 'unmerged' else ''}{self.user}.{len(self.jobs)}"
        form: dict[str, object] = {
            "outputs": [{"lfn": name, "endpoint": "TAPE" if kind == "moved" else "DISK"}],
            "max_attempts": most,
            "taskID": self.task if of_task else 0,
            **({"inputs": [maker.output]} if maker else {}),
            **({"vo": "careful", "workingGroup": prepared} if prepared else {}),
        }
        self._submit(form, kind, prepared, maker)

    @precondition(lambda self: self.has("merging"))
    @rule(data=st.data())
    def submit_merge_job(self, data: st.DataObject) -> None:
        if job := self.some(data, lambda job: job.status == "merging" and not any(u.merges for u in job.users)):
            form = {"inputs": [job.output], "outputs": [f"merged.{job.output}"], "processingType": "pmerge"}
            self._submit(form, "plain", "", job).merges = job

    def _submit(self, form: dict[str, object], kind: str, prepared: str, maker: Job | None) -> Job:
        (number,) = self.dispatcher.submit({"user": self.user, "scope": "user.x", **form})
        outputs = form["outputs"]
        assert isinstance(outputs, list)
        output = outputs[0]["lfn"] if isinstance(outputs[0], dict) else outputs[0]
        job = Job(number, "pending" if prepared else "assigned", int(str(form.get("max_attempts", 1))),
                  int(str(form.get("taskID", 0))), output, kind, maker)  # fmt: skip
        job.moves(job.status, self.now)
        self.jobs[number] = job
        if maker is not None:
            maker.users.append(job)
            job.ready = maker.made
            if maker.status in OVER and not maker.made:
                self._ends(job, "failed")
        if job.status == "assigned" and job.ready:
            job.status = "activated"
        return job

    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        job = self.some(data)
        if job is None:
            return
        (result,) = self.dispatcher.kill(job.number)
        held = job.status in RANK and not job.verdict
        assert result.killed == (job.status not in OVER and not (job.status == "holding" and bool(job.verdict)))
        if not result.killed:
            return
        if held and job.status != "holding":
            job.killed = True
        else:
            self._ends(job, "cancelled")

    @precondition(lambda self: any(job.task for job in self.jobs.values()))
    @rule(on=st.booleans())
    def throttle(self, on: bool) -> None:
        context = self.dispatcher.context
        if on:
            throttling.throttle_task(context, self.task, "x", ANYBODY)
        else:
            throttling.release_task(context, self.task, ANYBODY)
        for job in self.jobs.values():
            if job.task and on and job.status in ("assigned", "activated"):
                job.moves("throttled", self.now)
            elif job.task and not on and job.status == "throttled":
                job.moves("activated" if job.ready else "assigned", self.now)

    # ---- pilots

    @rule()
    def get_job(self) -> None:
        found = self.dispatcher.ask(user=self.user)
        free = {job.number for job in self.jobs.values() if job.status == "activated"}
        if isinstance(found, NoJob):
            assert not free
            return
        given = self.jobs[int(str(found[0]["PandaID"]))]
        assert given.number in free
        assert found[0]["attemptNr"] == given.attempt
        given.moves("sent", self.now)
        given.claim = str(found[0]["claim_id"])

    @precondition(lambda self: self.has("activated", "sent", "starting", "running"))
    @rule(
        data=st.data(),
        verdict=st.sampled_from(["finished", "finished", "finished", "holding", "failed"]),
        noticed=st.booleans(),
    )
    def run_to_the_end(self, data: st.DataObject, verdict: str, noticed: bool) -> None:
        if not self.has("sent", "starting", "running"):
            self.get_job()
        if job := self.some(data, lambda job: job.status in ("sent", "starting", "running")):
            for said in ("running", verdict):
                self._report(job, said, {"attemptNr": job.attempt}, strange=False)
            if noticed:
                self.add()
            else:
                self.tell_late(data, ["running", "holding", verdict])

    @precondition(lambda self: self.has("holding", "transferring", "merging", "finished", "failed"))
    @rule(data=st.data(), words=st.lists(st.sampled_from(REPORTS), min_size=1, max_size=4))
    def tell_late(self, data: st.DataObject, words: list[str]) -> None:
        """What was lost on the way, repeated or overtaken comes when the pilot has had its last word."""
        if job := self.some(data, lambda job: job.status in ("holding", "transferring", "merging", *VERDICTS)):
            for said in words:
                self._report(job, said, {}, strange=False)

    @rule(
        data=st.data(),
        said=st.sampled_from(["starting", "running", "running", "transferring", "holding", "finished", "failed"]),
        attempt=st.sampled_from(["", "", "right", "right", "old"]),
        claim=st.sampled_from(["", "", "right", "right", "wrong"]),
    )
    def report(self, data: st.DataObject, said: str, attempt: str, claim: str) -> None:
        # Mostly of what pilots have: of other jobs there is less to be said.
        held = data.draw(st.integers(0, 4)) > 0
        job = self.some(data, lambda job: job.status in RANK) if held else self.some(data)
        if job is None:
            return
        values: dict[str, object] = {}
        if attempt:
            values["attemptNr"] = job.attempt if attempt == "right" else job.attempt - 1
        if claim:
            values["claim_id"] = (job.claim or "none") if claim == "right" else "wrong"
        self._report(job, said, values, strange=attempt == "old" or (bool(claim) and values["claim_id"] != job.claim))

    def _report(self, job: Job, said: str, values: dict[str, object], *, strange: bool) -> None:
        if said == "failed":
            values["pilotErrorCode"] = 1305
        if said == "finished":
            values["xml"] = json.dumps({job.output: good_file()})
        before = replace(job)
        command = self.dispatcher.report(job.number, said, **values).command
        assert command == self._reported(job, said, strange=strange), (before, said, values)

    def _reported(self, job: Job, said: str, *, strange: bool) -> str:
        """What the pilot is to be told, and what its report does."""
        if strange or job.given_up or job.status in NOT_STARTED or job.status in ("cancelled", "closed"):
            return "tobekilled"
        if job.status in OVER:
            return "alreadydone"
        if job.verdict:
            again = said in VERDICTS or (said == "holding" and job.status == "transferring")
            return "alreadydone" if again else ""
        if job.status == "holding" and said not in VERDICTS:
            return ""
        job.heard = self.now
        if said in VERDICTS:
            job.verdict, said = said, "holding"
        if RANK[said] > RANK[job.status]:
            job.moves(said, self.now)
        return "tobekilled" if job.killed and job.status != "holding" else ""

    # ---- storages

    @precondition(lambda self: self.has("transferring"))
    @rule(data=st.data(), arrived=st.booleans(), twice=st.booleans())
    def transfer(self, data: st.DataObject, arrived: bool, twice: bool) -> None:
        job = self.some(data, lambda job: job.kind == "moved")
        if job is None:
            return
        told = transfers.read_reports([{"scope": "user.x", "lfn": job.output, "arrived": arrived}])
        for _ in range(1 + twice):
            transfers.report_transfers(self.dispatcher.context, told)
        for one in list(self.jobs.values()):  # a job and its heirs have one output
            if one.output == job.output and one.status == "transferring" and one.verdict:
                if arrived:
                    self._finishes(one)
                else:
                    self._fails(one)

    # ---- the daemon, and time

    @precondition(lambda self: self.has("holding"))
    @rule()
    def add(self) -> None:
        self.dispatcher.add()
        for job in [job for job in self.jobs.values() if job.status == "holding" and job.verdict]:
            if job.verdict == "failed":
                self._fails(job)
            elif job.kind == "moved":
                job.moves("transferring", self.now)
            elif job.kind == "unmerged":
                job.moves("merging", self.now)
                self._publishes(job)
            else:
                self._finishes(job)

    @precondition(lambda self: self.has("pending", "defined"))
    @rule()
    def prepare(self) -> None:
        setupper.prepare_jobs(self.dispatcher.context)
        for job in self.jobs.values():
            waits = self.dispatcher.job(job.number)["workingGroup"] == "wait"
            if job.status == "pending":
                job.moves("defined", self.now)
            if job.status == "defined" and not waits:
                job.moves("activated" if job.ready else "assigned", self.now)

    @rule(seconds=st.sampled_from([1, 1, 600, 600, HOUR // 2, HOUR, 2 * HOUR, 3 * HOUR, 5 * HOUR, DAY, 5 * DAY]))
    def time_passes(self, seconds: int) -> None:
        self.dispatcher.clock.now += seconds
        for _ in range(20):
            self.dispatcher.watch()
        overdue = [job for job in self.jobs.values() if self._deadline(job) <= self.now]
        lost = [job for job in overdue if not self._gives_up(job)]
        for job in lost:
            self._loses(job)

    def _gives_up(self, job: Job) -> bool:
        """What the watcher does to a job that is overdue; False if it is not tried again."""
        if job.status in NOT_STARTED:
            job.moves("closed", self.now)
            return False
        again = job.status != "merging" and self._tries_again(job)
        if not again:
            job.moves("failed", self.now)
        job.given_up = job.status == "failed"
        return again

    def _deadline(self, job: Job) -> float:
        limits = {"pending": HOUR, "defined": 4 * HOUR, "throttled": 7 * DAY, "activated": 7 * DAY, "merging": 14 * DAY}
        if job.status in limits:
            return job.since + limits[job.status]
        if job.verdict or job.status not in RANK:
            return job.since + 4 * DAY if job.status == "transferring" else float("inf")
        if job.status == "holding":
            return job.since + 3 * HOUR
        longest = {"sent": HOUR // 2, "starting": 2 * DAY, "running": 21 * DAY}.get(job.status, 365 * DAY)
        return min(job.since + longest, job.heard + 2 * HOUR)

    # ---- what follows

    def _finishes(self, job: Job) -> None:
        job.moves("finished", self.now)
        self._publishes(job)
        if job.merges is not None and job.merges.status == "merging":
            job.merges.moves("finished", self.now)

    def _publishes(self, job: Job) -> None:
        job.made = True
        for user in job.users:
            user.ready = True
            if user.status == "assigned":
                user.moves("activated", self.now)

    def _fails(self, job: Job) -> None:
        if not self._tries_again(job):
            self._ends(job, "failed")

    def _tries_again(self, job: Job) -> bool:
        if job.killed or job.failed + 1 >= job.most:
            return False
        if not job.task:
            job.attempt, job.failed, job.claim, job.verdict = job.attempt + 1, job.failed + 1, None, ""
            job.moves("activated", self.now)
            return True
        (child,) = self.dispatcher.job(job.number)["children"]  # type: ignore[misc]
        job.heir = child["PandaID"]
        heir = Job(job.heir, "activated", job.most, job.task, job.output, job.kind, job.maker, job.merges,
                   attempt=job.attempt + 1, failed=job.failed + 1, users=job.users)  # fmt: skip
        heir.moves("activated", self.now)
        self.jobs[heir.number] = heir
        job.moves("failed", self.now)
        return True

    def _ends(self, job: Job, status: str) -> None:
        job.moves(status, self.now)
        self._loses(job)

    def _loses(self, job: Job) -> None:
        """Nobody will make the job's output any more: those who wait for it end, too."""
        if job.made or job.heir:
            return
        for user in job.users:
            if user.status in NOT_STARTED:
                self._ends(user, "failed")

    # ---- what always holds

    @invariant()
    def states_are_the_models(self) -> None:
        found = details.job_states(self.dispatcher.context, self.jobs)
        assert found == [(job.number, job.status, job.attempt) for job in self.jobs.values()]

    def teardown(self) -> None:
        """No attempt has ever gone back, or on from its end."""
        for number in self.jobs:
            for _, changes in itertools.groupby(self.dispatcher.states(number), key=lambda change: change[0]):
                for (_, before), (_, after) in itertools.pairwise(changes):
                    assert after in FOLLOWS[before], self.dispatcher.states(number)


@pytest.fixture
def dispatcher(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[Dispatcher]:
    """A dispatcher with a setupper for one VO, and an adder that has outputs moved."""
    plugins = {
        "setupper_plugins": "careful:tests.unit.server.test_plugins:Careful",
        "adder_plugins": "any:destination",
    }
    with dispatcher_in(tmp_path, empty_database, **plugins) as made:
        yield made


@pytest.mark.timeout(1800)
def test_states_are_the_models_whatever_is_repeated_reordered_or_lost(dispatcher: Dispatcher) -> None:
    run_state_machine_as_test(
        lambda: Life(dispatcher),
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            # Shrinking would take longer than a test may: jobs of earlier lives are still there when one is repeated.
            phases=[Phase.generate],
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
