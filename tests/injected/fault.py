"""One row of the table of faults, and how it is played: real pilot, real dispatcher, and something that goes wrong.

A row says what to expect in plain words and numbers, never by asking the pilot's own tables: those are what is tested.
"""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests import pilots
from tests.containers import Container
from tests.site import OVER, QUEUE, Site

# s; the final update has been sent when the pilot ends, and the server looks at it at once.
_PATIENCE = 10.0

# Who decided, as an autopsy says it.
BY_PAYLOAD = "the payload, by its end"
BY_DEFINITION = "the pilot, reading the job's definition"
BY_STAGEIN = "stage-in"
BY_STAGEOUT = "stage-out"
BY_START = "the pilot, starting the payload"
BY_KERNEL = "the kernel, short of memory"
BY_RUNTIME = "the container runtime, before the payload began"
BY_LIMIT = "the pilot's monitor, by a limit"
BY_SERVER = "the server, by a kill order"
BY_KILL_FILE = "whoever made the kill file"
BY_SIGNAL = "the batch system or an administrator, by a signal to the pilot"
BY_TIME = "the pilot, at the end of its time"
BY_KILLER = "whoever killed the pilot"
BY_GUARD = "whoever killed the payload's guard"
BY_PILOT = "the pilot, by a fault of its own"


@dataclass
class Scene:
    """Where a fault is played. What a row's `before` changes in here counts for its job and its pilot.

    site: queue and storage. folder: of this row alone. box: gives Apptainer and an image. stack: what is entered on it
    ends with the row. url: the server that the pilot is told. env, queue, settings, options: for the pilot; queue is
    laid over the queue's description. job: the job's fields; None for a pilot that gets no job.
    """

    site: Site
    folder: Path
    box: Callable[[], Container]
    stack: ExitStack
    url: str
    env: dict[str, str] = field(default_factory=dict)
    queue: dict[str, object] = field(default_factory=dict)
    settings: str = ""
    options: list[str] = field(default_factory=list)
    job: dict[str, object] | None = None
    jobid: int = 0
    queue_name: str = QUEUE

    @property
    def rundir(self) -> Path:
        """Where the pilot runs."""
        return self.folder / "run"

    def pilot(self) -> pilots.Pilot:
        """Start a pilot; it is ended with the row at the latest."""
        queue = {"PILOTKIT_QUEUEDATA": json.dumps(self.queue)} if self.queue else {}
        more = ["-v", "1", "--cleanup=False", *self.options]
        running = pilots.running(
            self.url, self.queue_name, self.rundir, *more, env={**queue, **self.env}, settings=self.settings
        )
        return self.stack.enter_context(running)

    def submit(self, **job: object) -> int:
        """A job that is not the row's own: one that makes its input, for instance."""
        (jobid,) = self.site.submit(job)
        return jobid


Before = Callable[[Scene], None]
During = Callable[[Scene, pilots.Pilot], None]


@dataclass(frozen=True)
class Fault:
    """One row.

    name: what goes wrong. how: how the test brings it about. code, blame: what is expected of the server, or of the
    pilot's log when there is no job. said: words of pilotErrorDiag. decided_by: how the autopsy begins to say it.

    script: what the payload is, for a shell; program: the same in Python. job: more fields of the job; None: no job.
    image: the payload's container, `image` for that of the tests; words in braces are the scene's folder. queue: laid
    over the queue's description. settings, options, env: the pilot's. before: called before the job is submitted.
    during: called when the job is in the state `when`. after: called when the pilot has ended.

    trans: transExitCode. exe: exeErrorCode. shell: exit code of the pilot. charged: whether the attempt counts. log:
    whether the log tarball is in storage. command: whether the log must show a container's command. state: how the job
    ends. told: whether the server hears of it from this pilot.
    """

    name: str
    how: str
    code: int
    blame: str
    decided_by: str
    said: tuple[str, ...]
    script: str = "true"
    program: str = ""
    job: Mapping[str, object] | None = field(default_factory=dict)
    image: str = ""
    queue: Mapping[str, object] = field(default_factory=dict)
    settings: str = ""
    options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    before: Before | None = None
    during: During | None = None
    when: str = "running"
    after: Before | None = None
    trans: int = 0
    exe: int = 0
    shell: int = 0
    charged: bool = True
    log: bool = True
    command: bool = False
    state: str = "failed"
    told: bool = True


@dataclass(frozen=True)
class Ending:
    """What became of a fault. job: what the server knows, empty without a job. log: the pilot's. exit_code: its own."""

    job: Mapping[str, object]
    log: str
    exit_code: int


def play(fault: Fault, scene: Scene) -> Ending:
    """Bring a fault about and wait for what becomes of it."""
    _set(fault, scene)
    if fault.before is not None:
        fault.before(scene)
    if scene.job is not None:
        scene.jobid = scene.submit(**scene.job)
    pilot = scene.pilot()
    if fault.during is not None:
        if scene.jobid:
            scene.site.wait_for(scene.jobid, fault.when)
        fault.during(scene, pilot)
    exit_code = pilot.wait()
    if fault.after is not None:
        fault.after(scene)
    if not scene.jobid:
        return Ending({}, pilot.log(), exit_code)
    if not fault.told:
        scene.site.call("job/kill", {"job_ids": [scene.jobid]})
        return Ending({}, pilot.log(), exit_code)
    job = scene.site.wait_for(scene.jobid, *OVER, *(() if fault.charged else ("activated",)), timeout=_PATIENCE)
    assert job["jobStatus"] == (fault.state if fault.charged else "activated"), pilot.log()
    if not fault.charged:
        scene.site.call("job/kill", {"job_ids": [scene.jobid]})
    return Ending(job, pilot.log(), exit_code)


def _set(fault: Fault, scene: Scene) -> None:
    """Carry what a row says into its scene."""
    folder = str(scene.folder)
    scene.queue.update(fault.queue)
    scene.settings = fault.settings
    scene.options += [option.format(folder=folder) for option in fault.options]
    scene.env.update({name: value.format(folder=folder) for name, value in fault.env.items()})
    if fault.job is None:
        return
    called: dict[str, object] = {"transformation": "sh", "jobPars": f"-c {shlex.quote(fault.script)}"}
    if fault.program:
        path = scene.folder / "program.py"
        path.write_text(textwrap.dedent(fault.program), encoding="utf-8")
        called = {"transformation": "python3", "jobPars": f"-u {path}"}
    if fault.image:
        # A runtime that a row brings along wins; a PATH of its own hides the real one.
        box = scene.box()
        scene.env = {**box.environ, **scene.env}
        called["jobPars"] = f"{called['jobPars']} --containerImage={fault.image.format(folder=folder, image=box.image)}"
        scene.queue.setdefault("container_type", "apptainer:pilot")
    # A job with one attempt is never run twice, even when the attempt does not count.
    scene.job = {**called, "max_attempts": 1 if fault.charged else 2, **fault.job}
