"""Commands that a server sends to a running job: tail, ls, ps, du and gdb, and what they show.

Each becomes a list of arguments of a known form, for files in the job's directory and processes of the job alone; no
shell sees it (promise S6). It runs under a guard, with a time limit, beside everything else; its output goes with the
next heartbeats in the place of the payload's own.
"""

from __future__ import annotations

import re
import shlex
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.payloads.files import SECRETS
from pilot.control.payloads.proxy import PAYLOAD_PROXY
from pilot.control.updates import STDOUT_LIMIT
from pilot.util.filehandling import masked_tail
from pilot.util.guard import descendants
from pilot.util.stacks import hands_on

COMMANDS = ("tail", "ls", "ps", "du", "gdb")
# A command that takes longer (s) is ended: the next heartbeat is minutes away, but its node has a job to do.
_LIMIT = 60.0
# Options without an argument are letters of these; all others could read or write somewhere else.
_LETTERS = {"ls": "1AaFhlRrSsTtu", "du": "abchkms", "tail": "v"}
# How many lines or bytes of a file.
_COUNT = re.compile(r"-(?:[nc])?\+?\d{1,7}\Z")
_PS_COLUMNS = "pid,ppid,stat,nlwp,etime,time,rss,args"
# What gdb may be asked for: to look, and to write a core file into the job's directory.
_GDB_WORDS = re.compile(
    r"(?:generate-core-file|gcore|bt|where|backtrace|info (?:threads|registers|proc)|thread apply all bt|detach|quit)\Z"
)
# Files for the payload alone: what a command shows goes to the server.
_HIDDEN = frozenset({SECRETS, PAYLOAD_PROXY})
# What gdb says when it has written a core file.
_CORE = re.compile(r"^Saved corefile ", re.MULTILINE)


class Refused(Exception):
    """The command is none of those that are obeyed; the text says why."""


def parse(text: str, workdir: Path, payload: int, tree: Sequence[int]) -> list[str]:
    """The arguments of a command. payload: pid of its first process; tree: pids of all its processes.

    Raises Refused.
    """
    try:
        name, *words = shlex.split(text)
    except ValueError as exc:
        raise Refused(f"it cannot be read ({exc})") from None
    if name == "ps":
        # Whatever is asked for, the job's own processes are what is shown.
        return ["ps", "-o", _PS_COLUMNS, "-p", ",".join(str(pid) for pid in tree) or str(payload)]
    if name == "gdb":
        return ["gdb", "--batch", "--nx", "--pid", str(payload), *_gdb_words(words)]
    if name not in _LETTERS:
        raise Refused(f"only {', '.join(COMMANDS)} are obeyed")
    options = [word for word in words if word.startswith("-")]
    for option in options:
        if not (name == "tail" and _COUNT.match(option)) and option.strip(_LETTERS[name]) != "-":
            raise Refused(f"option {option} of {name} is not obeyed")
    files = [str(_inside(workdir, word)) for word in words if not word.startswith("-")]
    if name == "tail" and len(files) != 1:
        raise Refused("tail wants the name of one file in the job's directory")
    return [name, *options, "--", *files]


def _gdb_words(words: Sequence[str]) -> list[str]:
    """The expressions that gdb is asked to evaluate; `--pid %` is the payload's and is there already."""
    wanted: list[str] = []
    left = iter(words)
    for word in left:
        if word in ("--pid", "-p"):
            next(left, "")
        elif word in ("-ex", "--ex"):
            expression = next(left, "")
            if not _GDB_WORDS.match(expression):
                raise Refused(f"gdb is not asked for '{expression}'")
            wanted += ["-ex", expression]
        else:
            raise Refused(f"option {word} of gdb is not obeyed")
    return wanted or ["-ex", "thread apply all bt"]


def _inside(workdir: Path, name: str) -> Path:
    """The file of a name or pattern in the job's directory or below: the newest of several."""
    root = workdir.resolve()
    if name.startswith("/") or ".." in Path(name).parts:
        raise Refused(f"{name} is not in the job's directory")
    if name in (".", "./"):
        return root
    try:
        found = list(root.glob(name)) or list(root.rglob(name))
    except (ValueError, NotImplementedError, OSError):
        found = []
    inside: list[tuple[float, Path]] = []
    for path in found:
        # The payload may remove one meanwhile, or have made links in a circle.
        with suppress(OSError, RuntimeError):
            real = path.resolve(strict=True)
            if root in real.parents and real.name not in _HIDDEN:
                inside.append((path.lstat().st_mtime, path))
    if not inside:
        raise Refused(f"there is no {name} in the job's directory")
    return max(inside)[1]


class DebugCommands:
    """Obeys commands. stop: ends a job for a reason (after a core file was made)."""

    def __init__(self, context: Context, stop: Callable[[JobRun, PilotException], None]) -> None:
        self._context = context
        self._stop = stop
        self._busy = threading.Lock()
        self._output: dict[str, tuple[str, str]] = {}

    def order(self, run: JobRun, text: str, done: Callable[[JobRun], None]) -> None:
        """Obey a command of the server, in a thread of its own. done: called when a new command has its output.

        Servers repeat a command with each answer: then only its output is made anew. One at a time is obeyed.
        """
        is_new = self._output.get(run.jobid, ("", ""))[0] != text
        if not self._busy.acquire(blocking=False):
            self._context.log.info("job %s: command '%s' waits for the one before it", run.jobid, text)
            return
        if is_new:
            self._context.recorder.decision("command", job=run.jobid, text=text)
            self._context.log.info("job %s: the server's command is: %s", run.jobid, text)

        def body() -> None:
            try:
                output = self._obey(run, text)
            except Exception:
                # The top of a thread: Python itself would print what it fails on, secrets included.
                self._context.log.exception(
                    "job %s: command '%s' failed, which is a fault of the pilot", run.jobid, text
                )
                output = f"$ {text}\nnot obeyed: it failed in the pilot"
            finally:
                self._busy.release()
            self._output = {run.jobid: (text, output)}
            if is_new and run.is_live:
                done(run)

        threading.Thread(target=body, name="debug-command", daemon=True).start()

    def stdout(self, run: JobRun) -> str:
        """What a heartbeat in debug mode shows: a command's output, else the end of the payload's own."""
        if run.jobid in self._output:
            return self._output[run.jobid][1]
        path = run.workdir / self._context.settings.payload.stdout
        return masked_tail(path, STDOUT_LIMIT, self._context.secrets).decode("utf-8", "replace")

    def _obey(self, run: JobRun, text: str) -> str:
        guarded = run.guarded
        if guarded is None or run.outcome is not None:
            return f"$ {text}\nthere is no payload now"
        try:
            wanted = self._context.plugins.hook("common", "process_debug_command")(text, run.jobid)
            tree = descendants(guarded.guard_pid)
            # Of a container the first ones are the runtime's.
            payload = next((pid for pid in tree if not hands_on(pid)), guarded.pid)
            command = parse(str(wanted), run.workdir, payload, tree)
            output = self._run(run, command)
        except (Refused, PilotException) as exc:
            self._context.log.warning("job %s: command '%s' is not obeyed: %s", run.jobid, text, exc)
            return f"$ {text}\nnot obeyed: {exc}"
        if command[0] == "gdb" and _CORE.search(output):
            self._stop(run, PilotException("a core file was made on the server's order", code=ErrorCodes.PANDAKILL))
        return f"$ {text}\n{output}"

    def _run(self, run: JobRun, command: Sequence[str]) -> str:
        """Run a command in the job's directory, without the pilot's environment, and return the end of its output."""
        environ = {name: self._context.environ[name] for name in ("PATH", "LANG") if name in self._context.environ}
        with tempfile.TemporaryFile() as output:
            started = self._context.launcher.start(command, cwd=run.workdir, env=environ, stdout=output, stderr=output)
            in_time = started.is_ending(_LIMIT)
            if not in_time:
                started.kill()
            started.wait()
            secrets = self._context.secrets
            output.seek(max(0, output.seek(0, 2) - STDOUT_LIMIT - secrets.reach))
            said = secrets.mask(output.read())[-STDOUT_LIMIT:].decode("utf-8", "replace")
        return said if in_time else f"{said}\n(ended after {_LIMIT:.0f} s)"
