"""Watching one job: what is looked at in which phase, and what it leads to. The clock is the test's own."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.common.lifecycle import Abort, Accepted, Event, PayloadEnded, PayloadStarted, StagedIn
from pilot.control import looping
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.rules.slot import Deadline
from pilot.control.slot import SLOT_FILE, Slot
from pilot.control.watch import JobWatch
from pilot.util.guard import descendants
from pilot.util.guarded import GuardedProcess
from pilot.util.https import Json
from pilot.util.plugins import Plugins
from tests.pilots import wait_until
from tests.unit.pilot.builders import LOG, SETTINGS, context, is_asleep, job_run

C = ErrorCodes


class Bench:
    """A job under watch, and the verdicts on it."""

    def __init__(self, shared: Context, **changes: Json) -> None:
        self.shared = shared
        self.run = job_run(shared.workdir / "PanDA_Pilot-254", **changes)
        self.run.workdir.mkdir(exist_ok=True)
        self.verdicts: list[PilotException] = []
        self.graces: list[float] = []
        self.began = time.monotonic()
        self.watch = JobWatch(shared, self.run, self._verdict)

    def _verdict(self, run: JobRun, error: PilotException, grace: float) -> None:
        self.verdicts.append(error)
        self.graces.append(grace)

    def look(self, after: float) -> float:
        """Look so many seconds after the start; when the next look is due, in the same count."""
        return self.watch.look(self.began + after) - self.began

    def to(self, *events: Event) -> None:
        for event in events:
            self.run.lifecycle.handle(event)

    @property
    def codes(self) -> list[int]:
        return [error.code for error in self.verdicts]


def settings(tmp_path: Path, slot: float = 1e6, **changes: Any) -> Context:
    """The project's settings with changes to [Payload], and a slot that ends in so many seconds."""
    made = replace(SETTINGS, payload=replace(SETTINGS.payload, **changes), file=replace(SETTINGS.file, space_to_run=0))
    now = time.time()
    return context(tmp_path, settings=made, slot=Slot(now, [Deadline(now + slot, "the test")], {}))


@pytest.fixture
def sleeping(tmp_path: Path) -> Iterator[list[GuardedProcess]]:
    """Payloads that are ended after the test."""
    running: list[GuardedProcess] = []
    yield running
    for guarded in running:
        guarded.kill()
        guarded.wait()


def payload(bench: Bench, sleeping: list[GuardedProcess], command: str = "sleep 300") -> None:
    """Start a payload for the job."""
    with (bench.shared.workdir / "out").open("wb") as out:
        guarded = bench.shared.launcher.start(
            ["sh", "-c", command], cwd=bench.run.workdir, env={}, stdout=out, stderr=out
        )
    bench.run.adopt(guarded)
    bench.run.payload = guarded
    sleeping.append(guarded)
    if command == "sleep 300":
        # Its program is still loading at first, which is reading: the looks of a test come faster than that.
        wait_until(lambda: any(map(is_asleep, descendants(guarded.guard_pid))), "it sleeps")
    bench.to(Accepted(), StagedIn(), PayloadStarted())


def test_stage_in_has_its_limit_and_stage_out_its_own(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path, stagein_limit=100.0, stageout_limit=50.0))
    bench.to(Accepted())
    assert bench.look(0) <= 60
    bench.look(99)
    assert bench.codes == []
    bench.look(101)
    assert bench.codes == [C.STAGEINTIMEOUT]
    bench.to(StagedIn(), PayloadStarted(), PayloadEnded())
    bench.look(200)
    bench.look(249)
    assert bench.codes == [C.STAGEINTIMEOUT]
    bench.look(251)
    assert bench.codes == [C.STAGEINTIMEOUT, C.STAGEOUTTIMEOUT]
    bench.look(500)
    assert len(bench.codes) == 2


def test_the_payload_is_measured_soon_after_a_long_pre_process(tmp_path: Path, sleeping: list[GuardedProcess]) -> None:
    # Samples may cost what they like: otherwise they come less often on a busy machine.
    bench = Bench(
        settings(tmp_path, memory_check_first=1.0, memory_check=60.0, memory_check_near=5.0, memory_share=1e9)
    )
    payload(bench, sleeping)
    bench.run.payload = None  # what runs is a pre-process
    now = 0.0
    while now < 300.0:
        now = min(bench.look(now), 300.0)
    with (bench.shared.workdir / "out").open("ab") as out:
        second = bench.shared.launcher.start(["sleep", "300"], cwd=bench.run.workdir, env={}, stdout=out, stderr=out)
    sleeping.append(second)
    bench.run.adopt(second)
    bench.run.payload = second
    samples = bench.run.usage.samples
    assert bench.look(now) <= now + 5.0
    bench.look(now + 5.0)
    assert bench.run.usage.samples > samples
    assert bench.look(now + 5.5) <= now + 8.0, "the pauses begin anew"


def test_a_limit_of_zero_is_none(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path, stagein_limit=0.0))
    bench.to(Accepted())
    bench.look(1e7)
    assert bench.codes == []


def test_a_silent_payload_is_ended_at_its_limit_with_what_it_was_doing_in_the_log(
    tmp_path: Path, sleeping: list[GuardedProcess], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(settings(tmp_path))
    (bench.run.workdir / "notes").write_text("x")
    payload(bench, sleeping)
    with caplog.at_level(logging.INFO, LOG.name):
        # Its guard may still be loading at the first looks.
        for look in range(1000):
            bench.look(look * 600.0)
            assert bench.codes == [] or look >= 12
            if bench.codes:
                break
    assert bench.codes[0] == C.LOOPINGJOB
    text = caplog.text
    assert "no sign of life for 6600 s; it is ended at the next check in 600 s unless something moves" in text
    assert "what its processes are doing:" in text and "sleep 300" in text and "1 bytes notes" in text


@pytest.mark.parametrize(("share", "walks"), [(1e-9, 1), (1e9, 3)])
def test_a_directory_of_very_many_files_is_walked_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, walks: int
) -> None:
    walked: list[Path] = []

    def costly(path: Path) -> int:
        walked.append(path)
        begun = time.thread_time()
        while time.thread_time() < begun + 0.001:
            pass
        return 7

    monkeypatch.setattr("pilot.control.watch.directory_size", costly)
    bench = Bench(settings(tmp_path, memory_share=share))
    bench.to(Accepted(), StagedIn(), PayloadStarted())
    for now in (0.0, 60.0, 120.0, 180.0):
        bench.look(now)
    assert walked.count(bench.run.workdir) == walks and bench.run.usage.workdir == 14


def test_neither_the_job_nor_the_experiment_needs_the_looping_check(tmp_path: Path) -> None:
    shared = settings(tmp_path)
    assert looping.is_wanted(shared, job_run(tmp_path))
    assert not looping.is_wanted(shared, job_run(tmp_path, loopingCheck=False))
    refusing = replace(shared, plugins=Refusing("generic"))
    assert not looping.is_wanted(refusing, job_run(tmp_path))


class Refusing(Plugins):
    """An experiment that wants no checks."""

    def hook(self, module: str, name: str) -> Any:
        return (lambda: False) if name.startswith("allow_") else super().hook(module, name)


@pytest.mark.parametrize(
    ("catchall", "limit"),
    [("", 7200.0), ("loopinglimit=60", 60.0), ("x,loopinglimit=60", 60.0), ("loopinglimit=0", 7200.0),
     ("loopinglimit=long", 7200.0), ("loopinglimit", 7200.0)],
)  # fmt: skip
def test_the_queue_may_have_a_looping_limit_of_its_own(tmp_path: Path, catchall: str, limit: float) -> None:
    run = job_run(tmp_path)
    run.infosys.queuedata.catchall = catchall
    assert looping.limit_of(run, 7200.0) == limit


def test_what_the_pilot_writes_itself_is_no_sign_of_the_payloads_life(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    for name in (
        "memory_monitor_output.txt",
        "memory_monitor_summary.json",
        "pilot_slot.json",
        "payload.stdout",
        "own",
    ):
        (bench.run.workdir / name).write_text("x")
    (bench.run.workdir / "sub").mkdir()
    (bench.run.workdir / "sub" / "memory_monitor_output.txt").write_text("another one")
    assert sorted(looping.files_of(bench.shared, bench.run)) == ["own", "sub/memory_monitor_output.txt"]


def test_an_experiment_that_wants_no_memory_check_has_none(tmp_path: Path, sleeping: list[GuardedProcess]) -> None:
    for plugins, codes in ((Plugins("generic"), [C.PAYLOADEXCEEDMAXMEM]), (Refusing("generic"), [])):
        shared = replace(settings(tmp_path / str(len(codes)), memory_samples=1), plugins=plugins)
        bench = Bench(shared)
        bench.run.infosys.queuedata.maxrss = 0
        bench.run.data.minramcount = 1
        bench.watch = JobWatch(shared, bench.run, bench._verdict)
        payload(bench, sleeping, "x=$(head -c 3000000 /dev/zero | tr '\\0' x); sleep 300 & wait")
        deadline = time.monotonic() + 30
        while not bench.codes and codes and time.monotonic() < deadline:
            bench.look(time.monotonic() - bench.began + 100)
            time.sleep(0.02)
        bench.look(10_000.0)
        assert bench.codes[:1] == codes


def test_samples_come_at_doubling_pauses_and_are_written_down(tmp_path: Path, sleeping: list[GuardedProcess]) -> None:
    bench = Bench(settings(tmp_path, looping_check=1e9, stdout_check=1e9, memory_monitor="", memory_share=1e9))
    payload(bench, sleeping)
    looks = [bench.look(0)]
    # The slot is looked at every minute too; only what comes sooner tells the samples.
    while looks[-1] < 59:
        looks.append(bench.look(looks[-1]))
    assert looks[:6] == pytest.approx([1, 3, 7, 15, 31, 60], abs=0.5)
    table = (bench.run.workdir / "memory_monitor_output.txt").read_text().splitlines()
    assert len(table) == 1 + bench.run.usage.samples == 6


def test_zombies_are_told_once(
    tmp_path: Path, sleeping: list[GuardedProcess], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(settings(tmp_path, zombies_told=1))
    payload(bench, sleeping, "sleep 0.01 & exec sleep 300")
    bench.look(0)
    deadline = time.monotonic() + 30
    after = 0.0
    with caplog.at_level(logging.WARNING, LOG.name):
        while "zombies" not in caplog.text and time.monotonic() < deadline:
            after += 100
            bench.look(after)
            time.sleep(0.01)
        bench.look(after + 100)
    assert caplog.text.count("1 processes of the payload have ended and were never waited for (zombies)") == 1
    assert bench.codes == []


def test_the_slots_end_stops_the_payload_and_at_the_very_end_hurries_the_stage_out(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path, slot=0.0))
    bench.to(Accepted())
    bench.look(0)
    assert bench.codes == [C.REACHEDMAXTIME]
    assert "the slot ends in 0 s: the test" in bench.verdicts[0].diag
    bench.to(Abort(bench.verdicts[0]), StagedIn())
    bench.look(1)
    assert bench.codes == [C.REACHEDMAXTIME] * 2
    bench.look(100)
    assert len(bench.codes) == 2


def test_a_stage_out_has_the_time_that_was_kept_for_it(tmp_path: Path) -> None:
    # Reserve 120 s, grace 60 s: with 100 s left a payload would have to end, a stage-out goes on.
    now = time.time()
    shared = settings(tmp_path)
    shared = replace(shared, slot=Slot(now - 86300, [Deadline(now + 100, "the test")], {}))
    bench = Bench(shared)
    bench.to(Accepted(), StagedIn(), PayloadStarted(), PayloadEnded())
    assert bench.look(0) == pytest.approx(60.0, abs=5)
    assert bench.codes == []


def test_an_end_that_comes_nearer_is_told_to_the_payload_and_once_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared = settings(tmp_path)
    shared = replace(
        shared, slot=Slot(time.time(), [Deadline(time.time() + 86400, "queue")], {"MACHINEFEATURES": str(tmp_path)})
    )
    bench = Bench(shared)
    bench.to(Accepted())
    bench.look(0)
    assert not (bench.run.workdir / SLOT_FILE).exists()
    (tmp_path / "shutdowntime").write_text(str(int(time.time()) + 3600))
    with caplog.at_level(logging.WARNING, LOG.name):
        for after in (61, 122, 183):
            bench.look(after)
    assert "machine feature shutdowntime" in (bench.run.workdir / SLOT_FILE).read_text()
    assert caplog.text.count("the slot now ends in ") == 1
