"""Commands around a payload: what one is, how it is started, and what its end means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.payloadend import judge
from pilot.control.payloads.container import PayloadContainer
from pilot.util.filehandling import masked_tail
from pilot.util.guarded import GuardedProcess, Outcome
from pilot.util.https import Json
from pilot.util.payloadgroup import PayloadGroup
from pilot.util.plugins import coded
from pilot.util.workernode import local_space

# Labels of the commands that a job's definition names.
PREPROCESS, COPROCESS, POSTPROCESS = "preprocess", "coprocess", "postprocess"
# How much of a command's stderr is looked through for known messages (bytes).
STDERR_TAIL = 65536
# Ends that tell more than that a command failed: they are the node's, or the pilot's own.
_TELLING = frozenset(
    {ErrorCodes.PAYLOADOUTOFMEMORY, ErrorCodes.NOLOCALSPACE, ErrorCodes.PAYLOADEXECUTIONEXCEPTION}
)  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A command for the shell. label: its name in the log and in its files' names. is_utility: the experiment's own."""

    label: str
    text: str
    is_utility: bool = False
    ignore_failure: bool = False
    stdout: str = ""


@dataclass(frozen=True)
class Described:
    """A command as a definition or a plugin describes it: {command, args, label, ignore_failure}."""

    label: str
    command: str
    args: str
    is_utility: bool
    ignore_failure: bool = False

    @classmethod
    def read(cls, raw: Mapping[str, Json], label: str = "", *, is_utility: bool) -> Described:
        """Raises PilotException(NOTDEFINED) for a description without a command, or with a label that is no name."""
        command = str(raw.get("command") or "")
        name = label or str(raw.get("label") or os.path.basename(command))
        if not command or not name or not name.replace("-", "_").replace(".", "_").isidentifier():
            text = f"a utility is described without a command, or its label is no name: {command!r}, {name!r}"
            raise PilotException(text, code=ErrorCodes.NOTDEFINED)
        return cls(name, command, str(raw.get("args") or ""), is_utility, bool(raw.get("ignore_failure")))


class Errand(Protocol):
    """Something that is to be done beside a payload, in the thread that waits for its end."""

    def next_look(self) -> float:
        """Seconds until there is something to do."""
        ...

    def look(self) -> None:
        """Do what is due."""
        ...


class Started:
    """A command that runs. container, group: in which, None for none; stderr: where it writes what is wrong."""

    guarded: GuardedProcess

    def __init__(self, container: PayloadContainer | None, stderr: Path, group: PayloadGroup | None) -> None:
        self.container = container
        self.group = group
        self._stderr = stderr
        self._began: bool | None = None if container is not None else True

    def begins(self) -> bool:
        """Wait until it runs in its container; whether it ever did."""
        if self._began is None and self.container is not None:
            self._began = self.container.await_payload(self.guarded)
        return bool(self._began)

    def wait(self) -> Outcome:
        """How it ended, when none of its processes is left."""
        self.begins()
        return self.guarded.wait()

    def verdict(self, context: Context, run: JobRun, outcome: Outcome) -> PilotException | None:
        """What its end means, if nobody has ordered it. Sets transExitCode. The experiment may know it better."""
        stderr = masked_tail(self._stderr, STDERR_TAIL, context.secrets).decode("utf-8", "replace")
        if self.container is not None and not self.begins() and not outcome.guard_died:
            return self.container.failure(outcome, stderr)
        error = judge(run, outcome, stderr, local_space(run.workdir), contained=self.container is not None)
        code, text = coded(context.plugins.hook("diagnose", "interpret")(run.data, run.trans_exit_code, stderr))
        return PilotException(text or (error.diag if error is not None else ""), code=code) if code else error


def failed_around(label: str, error: PilotException, code: int) -> PilotException:
    """The error of a command before (1356) or after (1357) the payload, from what its end would mean for a payload."""
    is_payloads = error.blame.value in ("payload", "user") and error.code not in _TELLING
    return PilotException(f"{label}: {error.diag}", code=code if is_payloads else error.code)


def open_output(path: Path, *, append: bool) -> IO[bytes]:
    """A file for what a command says. A payload may have left something there: no link is followed, no pipe waited for.

    Raises OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_APPEND if append else os.O_TRUNC)
    number = os.open(path, flags, 0o644)
    os.set_blocking(number, True)
    return os.fdopen(number, "wb")
