"""The monitor: the thread that looks at the right time, and passes on what the rules say."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.common.lifecycle import Accepted, PayloadEnded, PayloadStarted, StagedIn, StagedOut
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.monitor import Monitor
from tests.unit.pilot.builders import SETTINGS, context, job_run

C = ErrorCodes
SOON = 30.0
MB = 2**20


class Watch:
    """A monitor at work over one job, and what it did."""

    def __init__(self, shared: Context, run: JobRun) -> None:
        self.run = run
        self.heartbeats: list[float] = []
        self.aborts: list[tuple[int, float]] = []
        self.happened = threading.Condition()
        self.monitor = Monitor(shared, lambda: [run], self._heartbeat, self._abort)
        self._thread = threading.Thread(target=self.monitor.run, name="monitor")

    def _heartbeat(self, run: JobRun) -> None:
        with self.happened:
            self.heartbeats.append(time.monotonic())
            self.happened.notify_all()

    def _abort(self, run: JobRun, error: PilotException, grace: float) -> None:
        with self.happened:
            self.aborts.append((error.code, grace))
            self.happened.notify_all()

    def start(self) -> None:
        self._thread.start()

    def wait_for(self, heartbeats: int = 0, aborts: int = 0) -> None:
        with self.happened:
            assert self.happened.wait_for(
                lambda: len(self.heartbeats) >= heartbeats and len(self.aborts) >= aborts, timeout=SOON
            )

    def close(self) -> None:
        self.monitor.close()
        if self._thread.ident is not None:
            self._thread.join()


@pytest.fixture
def shared(tmp_path: Path) -> Context:
    """Everything is checked every ten milliseconds, on a disk that is never too full."""
    pilot = replace(SETTINGS.pilot, kill_file_check=0.01)
    payload = replace(SETTINGS.payload, stdout_check=0.01)
    settings = replace(SETTINGS, pilot=pilot, payload=payload, file=replace(SETTINGS.file, space_to_run=0))
    return context(tmp_path, settings=settings)


@pytest.fixture
def watch(shared: Context) -> Iterator[Watch]:
    run = job_run(shared.workdir / "PanDA_Pilot-254")
    run.workdir.mkdir()
    made = Watch(shared, run)
    yield made
    made.close()


def running(run: JobRun) -> None:
    for event in (Accepted(), StagedIn(), PayloadStarted()):
        run.lifecycle.handle(event)


def test_heartbeats_come_at_their_interval_in_every_phase(watch: Watch) -> None:
    watch.run.interval = 0.03
    began = time.monotonic()
    watch.start()
    watch.wait_for(heartbeats=2)
    running(watch.run)
    watch.wait_for(heartbeats=5)
    assert len(watch.heartbeats) <= (time.monotonic() - began) / 0.03 + 1


def test_a_job_that_is_being_reported_has_no_heartbeats(watch: Watch) -> None:
    running(watch.run)
    for event in (PayloadEnded(), StagedOut()):
        watch.run.lifecycle.handle(event)
    watch.run.interval = 0.001
    watch.start()
    time.sleep(0.1)
    assert watch.heartbeats == []


def test_an_interval_that_the_server_shortens_counts_at_once(watch: Watch) -> None:
    watch.start()
    watch.run.interval = 0.01
    watch.monitor.wake()
    watch.wait_for(heartbeats=2)


def test_a_job_in_debug_mode_reports_at_least_as_often_as_that_setting_says(shared: Context, watch: Watch) -> None:
    settings = replace(shared.settings, pilot=replace(shared.settings.pilot, heartbeat_debug=0))
    debugging = Watch(replace(shared, settings=settings), watch.run)
    watch.run.debug = True
    debugging.start()
    debugging.wait_for(heartbeats=2)
    debugging.close()


@pytest.mark.parametrize("name", ["payload.stdout", "payload.stderr"])
def test_output_that_is_too_large_ends_the_job(shared: Context, watch: Watch, name: str) -> None:
    payload = replace(shared.settings.payload, stdout_limit=1)
    limited = Watch(replace(shared, settings=replace(shared.settings, payload=payload)), watch.run)
    (watch.run.workdir / name).write_bytes(bytes(1025))
    running(watch.run)
    limited.start()
    limited.wait_for(aborts=1)
    limited.close()
    assert limited.aborts[0] == (C.STDOUTTOOBIG, SETTINGS.pilot.grace_on_signal)


def test_a_directory_that_is_too_large_ends_the_job(watch: Watch) -> None:
    watch.run.infosys.queuedata.maxwdir = 1
    (watch.run.workdir / "big").write_bytes(b"x" * (MB + 1))
    running(watch.run)
    watch.start()
    watch.wait_for(aborts=1)
    assert watch.aborts[0][0] == C.USERDIRTOOLARGE


def test_a_disk_that_is_too_full_ends_the_job(shared: Context, watch: Watch) -> None:
    settings = replace(shared.settings, file=replace(shared.settings.file, space_to_run=2**62))
    full = Watch(replace(shared, settings=settings), watch.run)
    running(watch.run)
    full.start()
    full.wait_for(aborts=1)
    full.close()
    assert full.aborts[0][0] == C.NOLOCALSPACE


def test_limits_are_not_looked_at_before_the_payload_runs(watch: Watch) -> None:
    watch.run.infosys.queuedata.maxwdir = 1
    (watch.run.workdir / "big").write_bytes(b"x" * (MB + 1))
    watch.run.lifecycle.handle(Accepted())
    watch.start()
    time.sleep(0.1)
    assert watch.aborts == []


def test_the_payloads_processes_are_measured_soon_and_again(shared: Context, watch: Watch) -> None:
    payload = replace(shared.settings.payload, memory_check_first=0.01, memory_check=0.02)
    measuring = Watch(replace(shared, settings=replace(shared.settings, payload=payload)), watch.run)
    with (shared.workdir / "out").open("wb") as out:
        watch.run.adopt(shared.launcher.start(["sleep", "300"], cwd=shared.workdir, env={}, stdout=out, stderr=out))
    running(watch.run)
    measuring.start()
    deadline = time.monotonic() + SOON
    while watch.run.usage.samples < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    watch.run.guarded.kill()
    watch.run.outcome = watch.run.guarded.wait()
    measuring.close()
    usage = watch.run.usage
    assert usage.samples >= 3 and usage.processes == 2
    assert usage.maximum["pss"] > 1000


def test_the_kill_file_ends_the_job(shared: Context, watch: Watch) -> None:
    running(watch.run)
    watch.start()
    (shared.rundir / "pilot_kill_payload").touch()
    watch.wait_for(aborts=1)
    assert watch.aborts[0][0] == C.KILLPAYLOAD


def test_a_monitor_without_jobs_sleeps_until_it_is_woken_or_closed(shared: Context) -> None:
    looked: list[int] = []

    def jobs() -> list[JobRun]:
        looked.append(1)
        return []

    idle = Monitor(shared, jobs, lambda run: None, lambda run, error, grace: None)
    thread = threading.Thread(target=idle.run)
    thread.start()
    time.sleep(0.1)
    idle.close()
    thread.join(SOON)
    assert not thread.is_alive() and len(looked) <= 2
