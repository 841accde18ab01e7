"""The experiment's utilities: which there are, and those that run beside a payload or a stage-in.

The plugin says what they are (hooks of common.py, docs/plugins.md). What runs beside is ended with what it runs beside.
A utility that dies before is started again, so often as the settings say.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pilot.common.exception import PilotException
from pilot.common.orders import UTILITY_BEFORE_PAYLOAD
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.payloads.commands import Command, Described, Errand, Started
from pilot.control.payloads.generic import Executor
from pilot.util.guarded import GuardedProcess, Outcome, first_to_end


@dataclass
class _Running:
    """A command beside the payload. starts: how often it was started."""

    command: Command
    started: Started
    starts: int = 1


class Utilities:
    """Of one job. executor: starts them."""

    def __init__(self, context: Context, run: JobRun, executor: Executor) -> None:
        self._context = context
        self._job = run
        self._executor = executor
        self._beside: list[_Running] = []
        self.ended: list[Outcome] = []

    def described(self, order: str | None) -> list[Described]:
        """What the plugin wants to run at that moment; None: what it wants to run beside the payload.

        Raises PilotException(NOTDEFINED) for an answer that describes none.
        """
        found = self._context.plugins.hook("common", "get_utility_commands")(order=order, job=self._job.data)
        items = found if isinstance(found, (list, tuple)) else [found]
        return [Described.read(item, is_utility=True) for item in items if isinstance(item, dict) and item]

    def command(self, described: Described) -> Command:
        """What runs for a utility: what the plugin makes of its name, else the description's. Raises PilotException."""
        plugins, name = self._context.plugins, described.label
        text = str(plugins.hook("common", "get_utility_command_setup")(name, job=self._job.data) or "")
        stdout = str(plugins.hook("common", "get_utility_command_output_filename")(name) or "")
        self._job.aside.update((stdout or f"{name}_stdout.txt", f"{name}_stderr.txt"))
        return Command(
            name,
            text or self._executor.command_of(described),
            is_utility=True,
            ignore_failure=described.ignore_failure,
            stdout=os.path.basename(stdout),
        )

    def starts_before(self, described: Described) -> bool:
        """Whether one that runs beside the payload is started before it."""
        order = self._context.plugins.hook("common", "get_utility_command_execution_order")(described.label)
        return order == UTILITY_BEFORE_PAYLOAD

    def start(self, command: Command) -> None:
        """Start a command that nothing waits for. Raises PilotException."""
        started = self._executor.launch(command)
        self._job.adopt(started.guarded, beside=True, utility=command.is_utility)
        self._beside.append(_Running(command, started))

    def wait_for(self, payload: GuardedProcess, errand: Errand | None = None) -> None:
        """Wait for a payload's end, and meanwhile look after what runs beside it, and do an errand."""
        while not payload.is_ending(0):
            beside = {one.started.guarded: one for one in self._beside}
            ended = first_to_end([payload, *beside], errand.next_look() if errand is not None else None)
            if not ended and errand is not None:
                errand.look()
            for guarded in ended:
                if guarded is not payload:
                    self._has_ended(beside[guarded])

    def stop(self) -> None:
        """End all that runs beside."""
        beside, self._beside = self._beside, []
        for one in beside:
            self._ask_to_end(one)
        for one in beside:
            if not one.started.guarded.is_ending(self._context.settings.payload.utility_grace):
                one.started.guarded.kill()
            self._close(one)

    def done(self, command: Command) -> None:
        """After a utility's end: what the plugin wants to do then."""
        if command.is_utility:
            self._context.plugins.hook("common", "post_utility_command_action")(command.label, self._job.data)

    @contextmanager
    def during(self, order: str) -> Iterator[None]:
        """Run what the plugin wants beside something, here stage-in. One that does not start costs the job nothing."""
        commands: list[Command] = []
        for described in self.described(order):
            try:
                commands.append(self.command(described))
                self.start(commands[-1])
            except PilotException as exc:
                self._context.log.warning("job %s: %s does not start: %s", self._job.jobid, described.label, exc.diag)
        try:
            yield
        finally:
            self.stop()
            for command in commands:
                tell = self._context.plugins.hook("common", "post_prestagein_utility_command")
                tell(
                    label=command.label,
                    output=str(self._job.workdir / (command.stdout or f"{command.label}_stdout.txt")),
                )

    def _has_ended(self, one: _Running) -> None:
        """A command has ended before what it runs beside: a utility that died is started again, a few times."""
        self._beside.remove(one)
        outcome = self._close(one)
        if outcome.exit_code == 0 or self._job.error is not None:
            return
        again = one.command.is_utility and one.starts <= self._context.settings.payload.utility_restarts
        text = "job %s: %s ended with %s while the payload runs%s"
        said = ", and is started again" if again else ""
        self._context.log.warning(text, self._job.jobid, one.command.label, outcome.ending, said)
        if not again:
            return
        try:
            self.start(one.command)
        except PilotException as exc:
            self._context.log.warning("job %s: %s does not start: %s", self._job.jobid, one.command.label, exc.diag)
        else:
            self._beside[-1].starts = one.starts + 1

    def _close(self, one: _Running) -> Outcome:
        outcome = one.started.wait()
        self._job.drop(one.started.guarded)
        if not one.command.is_utility:
            self.ended.append(outcome)
            if not one.started.begins() and self._job.error is None:
                # The payload may have waited for it.
                error = one.started.verdict(self._context, self._job, outcome)
                self._context.log.warning("job %s: %s did not begin: %s", self._job.jobid, one.command.label, error)
        self._executor.done(one.started)
        self.done(one.command)
        return outcome

    def _ask_to_end(self, one: _Running) -> None:
        guarded, number = one.started.guarded, signal.SIGTERM
        if one.command.is_utility:
            wanted = self._context.plugins.hook("common", "get_utility_command_kill_signal")(one.command.label)
            number = signal.Signals(wanted) if isinstance(wanted, int) else number
        if number == signal.SIGTERM:
            guarded.stop(self._context.settings.payload.utility_grace)
        elif not guarded.is_ending(0):
            with suppress(OSError):
                os.kill(guarded.pid, number)
