"""A job's payload with all that is around it, in the documented order (pilot.md, section 6).

utilities before the payload, pre-process, utilities that start before it; the payload, with the commands in its own
shell; co-process and utilities beside it until its end; post-process, utilities after it, and after those. A job that
tries hyperparameter points (HPO) does all this again for each, until its pre-process says that there is none left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, SetupFailure
from pilot.common.orders import (
    UTILITY_AFTER_PAYLOAD_FINISHED,
    UTILITY_AFTER_PAYLOAD_FINISHED2,
    UTILITY_AFTER_PAYLOAD_STARTED,
    UTILITY_BEFORE_PAYLOAD,
    UTILITY_WITH_PAYLOAD,
)
from pilot.control.context import Context
from pilot.control.cores import settle_cores
from pilot.control.jobrun import JobRun
from pilot.control.oom import OomWatch
from pilot.control.payloads import hpo
from pilot.control.payloads.commands import (
    COPROCESS,
    POSTPROCESS,
    PREPROCESS,
    Command,
    Described,
    Started,
    failed_around,
)
from pilot.control.payloads.generic import Executor
from pilot.control.payloads.utilities import Utilities
from pilot.util.guarded import Outcome
from pilot.util.https import Json


class Play:
    """One job's payload. executor: starts its commands. started: called when the first of them runs."""

    def __init__(self, context: Context, run: JobRun, executor: Executor, started: Callable[[], None]) -> None:
        self._context = context
        self._job = run
        self._executor = executor
        self._utilities = Utilities(context, run, executor)
        self._tell_started: Callable[[], None] | None = started
        self._outcomes: list[Outcome] = []
        self._main: Outcome | None = None
        self._no_more = False
        self._is_asked = False
        self._rounds = hpo.Rounds(context, run)

    def run(self) -> PilotException | None:
        """Run all of it; return what was wrong with its end, unless the pilot has brought it about.

        Raises PilotException when something of it cannot be started. Nothing of it runs any more in either case.
        """
        self._executor.prepare()
        if not self._context.plugins.hook("common", "validate")(self._job.data):
            text = f"the plugin {self._context.plugins.experiment} does not find the job's set-up valid (validate)"
            raise SetupFailure(text)
        error: PilotException | None = None
        try:
            while error is None and self._rounds.begin():
                error = self._round()
                self._rounds.end(no_more=self._no_more, is_asked=self._is_asked)
        finally:
            self._utilities.stop()
            self._rounds.close()
        return error

    def outcome(self) -> Outcome | None:
        """The payload's outcome with what all commands of the job have used; None when none of them has run."""
        ended = [*self._outcomes, *self._utilities.ended]
        last = self._main or (ended[-1] if ended else None)
        if last is None:
            return None
        return replace(
            last,
            cpu_user=sum(one.cpu_user for one in ended),
            cpu_system=sum(one.cpu_system for one in ended),
            max_rss=max(one.max_rss for one in ended),
        )

    def _round(self) -> PilotException | None:
        """Once through: what was wrong first, if anything. An order to end the job is obeyed between commands."""
        data = self._job.data
        error = self._in_turn(UTILITY_BEFORE_PAYLOAD, PREPROCESS, data.preprocess)
        if error is not None or self._no_more or self._is_ended():
            return error
        error = self._payload()
        if self._is_ended():
            return None
        after = self._in_turn(UTILITY_AFTER_PAYLOAD_FINISHED, POSTPROCESS, data.postprocess)
        return error or after

    def _in_turn(self, order: str, label: str, own: Mapping[str, Json]) -> PilotException | None:
        """Commands before or after the payload, one after the other, until one fails; return its error.

        The experiment's come first before the payload, and last after it. One of them with the job's own label takes
        the place of the job's.
        """
        orders = [order, UTILITY_AFTER_PAYLOAD_FINISHED2] if label == POSTPROCESS else [order]
        wanted = [one for moment in orders for one in self._utilities.described(moment)]
        code = ErrorCodes.PREPROCESSFAILURE if label == PREPROCESS else ErrorCodes.POSTPROCESSFAILURE
        if own and label not in [one.label for one in wanted]:
            mine = Described.read(own, label, is_utility=False)
            wanted = [*wanted, mine] if label == PREPROCESS else [mine, *wanted]
        for described in wanted:
            if self._is_ended():
                return None
            error = self._see_through(self._command(described), code)
            if error is not None:
                return error
        return None

    def _see_through(self, command: Command, code: int) -> PilotException | None:
        """Run a command that the job waits for; return its error."""
        run, log = self._job, self._context.log
        began = time.monotonic()
        started = self._launched(lambda: self._executor.launch(command))
        outcome = started.wait()
        self._ended(started, outcome)
        log.info(
            "job %s: %s ended with %s after %.3f s", run.jobid, command.label, outcome.ending, time.monotonic() - began
        )
        self._utilities.done(command)
        if self._is_ended():
            return None
        if command.label == PREPROCESS and run.data.is_hpo:
            self._is_asked = True
            self._no_more = outcome.exit_code == self._context.settings.payload.hpo_end_code
        before = run.trans_exit_code
        error = None if self._no_more else started.verdict(self._context, run, outcome)
        self._executor.done(started)
        if error is None or command.is_utility:
            # The exit code that is reported is the payload's, or that of a command of the job which failed.
            run.trans_exit_code = before
        if error is not None and command.ignore_failure:
            log.warning("job %s: %s failed, which is ignored: %s", run.jobid, command.label, error.diag)
            return None
        return failed_around(command.label, error, code) if error is not None else None

    def _payload(self) -> PilotException | None:
        run, utilities = self._job, self._utilities
        begun = time.monotonic()
        beside = [(one, utilities.command(one)) for one in utilities.described(None)]
        with_it = [utilities.command(one).text for one in utilities.described(UTILITY_WITH_PAYLOAD)]
        after = [utilities.command(one) for one in utilities.described(UTILITY_AFTER_PAYLOAD_STARTED)]
        if run.data.coprocess and COPROCESS not in [one.label for one in after]:
            after.insert(0, self._command(Described.read(run.data.coprocess, COPROCESS, is_utility=False)))
        for described, command in beside:
            if utilities.starts_before(described):
                self._start_beside(command)
        self._rounds.keep_output()
        started = self._launched(lambda: self._executor.start("".join(f"{text}; " for text in with_it)), payload=True)
        run.measure("set-up", begun)
        begun = time.monotonic()
        try:
            if started.begins():
                for command in [*after, *(one for described, one in beside if not utilities.starts_before(described))]:
                    self._start_beside(command)
            utilities.wait_for(started.guarded, self._executor.errand())
        except PilotException:
            started.guarded.kill()
            raise
        finally:
            outcome = started.wait()
            self._main = outcome
            self._ended(started, outcome)
            run.measure("payload", begun)
            took = time.monotonic() - begun
            utilities.stop()
        self._log_end(outcome, took)
        unfinished = self._executor.conclude()
        error = None if self._is_ended() else started.verdict(self._context, run, outcome) or unfinished
        self._executor.done(started)
        return error

    def _start_beside(self, command: Command) -> None:
        """Raises PilotException for the job's own co-process; a utility that does not start costs the job nothing."""
        try:
            self._utilities.start(command)
        except PilotException as exc:
            if not command.is_utility:
                raise
            self._context.log.warning("job %s: %s does not start: %s", self._job.jobid, command.label, exc.diag)

    def _is_ended(self) -> bool:
        """Whether somebody has ended the job: then its own end means nothing."""
        return self._job.error is not None

    def _command(self, described: Described) -> Command:
        if described.is_utility:
            return self._utilities.command(described)
        try:
            return Command(described.label, self._executor.command_of(described))
        except PilotException as exc:
            # Else it would be read as a word on the job's own transformation.
            raise PilotException(f"{described.label}: {exc.diag}", code=exc.code) from exc

    def _launched(self, start: Callable[[], Started], *, payload: bool = False) -> Started:
        """Start a command that the job waits for."""
        run = self._job
        run.oom = OomWatch()
        run.usage.begin()
        started = start()
        if started.group is not None and started.guarded.is_grouped:
            # Its memory counts there from the first moment on.
            run.oom.own = started.group.memory
        if payload:
            run.payload = started.guarded
        run.adopt(started.guarded)
        if self._tell_started is not None:
            self._tell_started()
            self._tell_started = None
        return started

    def _ended(self, started: Started, outcome: Outcome) -> None:
        self._job.drop(started.guarded)
        self._outcomes.append(outcome)
        settle_cores(self._job, self._context)

    def _log_end(self, outcome: Outcome, took: float) -> None:
        run, log = self._job, self._context.log
        text = "job %s: payload ended with %s after %.3f s, %.2f s of CPU"
        cpu = outcome.cpu_user + outcome.cpu_system
        log.info(text, run.jobid, outcome.ending, took, cpu)
        if outcome.left:
            log.warning("job %s: %d processes had outlived the payload and were ended", run.jobid, outcome.left)
        if outcome.lost:
            log.error("job %s: %d processes of the payload could not be ended", run.jobid, outcome.lost)
