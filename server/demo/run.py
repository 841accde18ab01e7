"""The demo from start to end: set up, submit, let pilots work, check, show, clean up."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

import click

from server.cli.client import Client, Row, row, rows
from server.cli.errors import EXIT_INTERRUPTED, CommandError
from server.demo import checks
from server.demo.chain import FIT_OUTPUTS, QUEUE, SCOPE, job_list, make_sandbox, queue_description, storage_description
from server.demo.processes import PILOT_STOP, Batch, DemoError, Server, adopt_orphans, end_leftovers
from server.demo.show import OVER, Ticker, print_summary

NEEDED: Final = ("numpy", "uproot", "scipy", "iminuit", "matplotlib")  # what payloads/ imports
OUTPUT: Final = Path("demo-output")
TIME_LIMIT: Final = 300.0  # s; a minute is what it should need, this is for machines that are busy
LOOK: Final = 0.2  # s between two looks at the jobs: quick to the eye, nothing to the server
HOPELESS: Final = 6  # pilots that leave and nothing has changed; two may, when others were quicker


@dataclass
class Demo:
    """A running demonstration: where it works, and what was found to be wrong."""

    folder: Path
    events: int
    count: int
    problems: list[str] = field(default_factory=list)
    details: list[Row] = field(default_factory=list)
    fit: dict[str, float] = field(default_factory=dict)

    @property
    def storage(self) -> Path:
        """The folder behind the storage endpoint."""
        return self.folder / "storage"

    @property
    def batch_folder(self) -> Path:
        """Where the pilots are started."""
        return self.folder / "batch"

    def run(self) -> None:
        """Everything between set-up and clean-up; what is wrong is added to the problems."""
        self.storage.mkdir()
        self.batch_folder.mkdir()
        server = Server(self.folder)
        try:
            client = Client(server.url)
            try:
                self._work(client)
            finally:
                client.close()
        finally:
            server.stop()

    def _work(self, client: Client) -> None:
        batch = Batch(self.batch_folder, len(os.sched_getaffinity(0)), _pilot_options(client.url))
        try:
            with Ticker() as ticker:
                ticker.say(f"server at {client.url}, work folder {self.folder}")
                ids = self._submit(client)
                ticker.say(f"submitted {len(ids)} jobs at once; the last one waits for the files of the others")
                self._watch(client, batch, ids, ticker)
                batch.wait(PILOT_STOP)
            self.details = [row(client.get("job/get_details", {"job_id": number})) for number in ids]
        finally:
            batch.stop()
        self._check()

    def _submit(self, client: Client) -> list[int]:
        """Describe queue and storage, upload the scripts, submit both steps; returns the job ids."""
        client.post("storage/add", {"storages": storage_description(self.storage)})
        client.post("queue/add", {"queues": queue_description()})
        sandbox = f"jobO.{uuid.uuid4()}.tar.gz"
        make_sandbox(self.folder / sandbox)
        client.upload(self.folder / sandbox, sandbox)
        taken = rows(client.post("job/submit_jobs", {"jobs": [*job_list(sandbox, self.events, self.count)]}))
        return [int(str(one.get("PandaID"))) for one in taken]

    def _watch(self, client: Client, batch: Batch, ids: list[int], ticker: Ticker) -> None:
        """Start pilots while jobs wait for one, until all jobs are over or nothing can go on."""
        deadline = time.monotonic() + TIME_LIMIT
        states: list[str] = []
        left = 0  # pilots that had left when something last changed
        while True:
            jobs = sorted(
                rows(client.get("job/list", {"job_ids": [str(number) for number in ids], "limit": len(ids)})),
                key=_number,
            )
            running = batch.running()
            ticker.update(jobs, running)
            before, states = states, [str(job.get("jobStatus")) for job in jobs]
            if states != before:
                left = len(batch.exit_codes)
            if all(state in OVER for state in states):
                return
            waiting = states.count("activated")
            if not running and not waiting and any(state in OVER and state != "finished" for state in states):
                return  # what is left waits for the files of a job that failed
            if running < min(batch.slots, waiting):
                if len(batch.exit_codes) - left >= HOPELESS:
                    raise DemoError(_hopeless(batch))
                batch.start_pilot()
                continue
            if time.monotonic() > deadline:
                raise DemoError(f"not done after {TIME_LIMIT:.0f} s")
            time.sleep(LOOK)  # the pace of the display; the server is not asked more often

    def _check(self) -> None:
        for job in self.details:
            self.problems += checks.job_problems(job) or checks.file_problems(job, self.storage)
        result = self._output("zmass.json")
        if result is None:
            self.problems.append("there is no fit result")
        elif not self.problems:
            self.fit = checks.fit_result(result)
            self.problems += checks.fit_problems(self.fit)

    def _output(self, lfn: str) -> Path | None:
        path = checks.storage_path(self.storage, SCOPE, lfn)
        return path if path.is_file() else None

    def copy_results(self, target: Path) -> None:
        """Copy plot, histogram and all logs to a folder, in place of those of an earlier demo."""
        logs = target / "logs"
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        for lfn in FIT_OUTPUTS:
            (target / lfn).unlink(missing_ok=True)
            path = self._output(lfn)
            if path is not None:
                shutil.copy(path, target)
        tarballs = [path for path in self.storage.rglob("*log.tgz*") if path.is_file()]
        for path in [*tarballs, self.folder / "server.log", *self.batch_folder.glob("pilot-*.out")]:
            if path.is_file():
                shutil.copy(path, logs)


def _hopeless(batch: Batch) -> str:
    codes = ", ".join(str(code) for code in batch.exit_codes[-HOPELESS:])
    said = batch.last_log().read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
    return f"{HOPELESS} pilots in a row took no job (exit codes {codes}); the last one said:\n  " + "\n  ".join(said)


def _number(job: Row) -> int:
    return int(str(job.get("PandaID")))


def _pilot_options(url: str) -> list[str]:
    """As in wrappers/slurm.sbatch, but a pilot leaves at the first empty answer, and asks for ten minutes at most."""
    return ["-q", QUEUE, "--url", url, "-j", "user", "--lifetime", "600", "-v", "1"]


def run_demo(events: int, jobs: int, keep: Path | None) -> int:
    """Run the demonstration and show it.

    Args:
        events: events of each generating job.
        jobs: generating jobs.
        keep: a new folder for everything the demo makes; None: a temporary one, removed at the end if all is well.

    Returns:
        exit code: 0 if everything is as it should be, 1 if not, 130 or 143 after SIGINT or SIGTERM.

    Raises:
        CommandError: it cannot start.
    """
    _check_modules()
    demo = Demo(_work_folder(keep), events, jobs)
    adopt_orphans()
    code = 0
    with _interruptible():
        try:
            demo.run()
        except (DemoError, CommandError, OSError) as error:  # the server refuses or is gone, the disk is full
            demo.problems.append(str(error))
        except _Stopped as stopped:
            code = stopped.exit_code
        left = end_leftovers()
    demo.problems += [f"left behind, ended now: process {process}" for process in left]
    if code:
        click.echo(f"pilotkit: stopped; the work folder is {demo.folder}", err=True)
        return code
    _report(demo, keep)
    return 1 if demo.problems else 0


def _report(demo: Demo, keep: Path | None) -> None:
    click.echo()
    if demo.details:
        print_summary(demo.details)
    if demo.fit:
        click.echo(
            f"\nfitted Z mass: {demo.fit['mass']:.3f} ± {demo.fit['mass_error']:.3f} GeV "
            f"(generated with {demo.fit['reference_mass']:.3f} GeV, PDG 2024) from {demo.fit['events']:.0f} events"
        )
    try:
        demo.copy_results(OUTPUT)
    except OSError as error:
        demo.problems.append(f"the results cannot be copied to {OUTPUT.absolute()}: {error.strerror}")
    if (OUTPUT / "zmass.png").is_file():
        click.echo(f"plot:      {OUTPUT / 'zmass.png'}\nhistogram: {OUTPUT / 'zmass.root'}, {OUTPUT / 'zmass.json'}")
    click.echo(f"logs:      {OUTPUT / 'logs'}")
    if keep is None and not demo.problems:
        shutil.rmtree(demo.folder)
    else:
        click.echo(f"all files: {demo.folder}")
    for problem in demo.problems:
        click.echo(f"pilotkit: {problem}", err=True)


def _check_modules() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(
            f"the demo needs {', '.join(missing)}, which this Python ({sys.executable}) does not have; "
            "install them with: pip install 'pilotkit[demo]'"
        )


def _work_folder(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="pilotkit-demo-"))
    try:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise CommandError(f"{keep} is not empty; name a new folder")
    except OSError as error:
        raise CommandError(f"{keep} cannot be made: {error.strerror}") from error
    return keep.resolve()


class _Stopped(BaseException):
    """A signal asked the demo to stop. Like KeyboardInterrupt, it is nobody's error to handle on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = EXIT_INTERRUPTED if number == signal.SIGINT else 128 + number


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise _Stopped, once: the clean-up that follows is not interrupted again."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
