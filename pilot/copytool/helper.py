"""The pilot's end of a helper: a process that moves files with a library (pilot.copytool.helpers).

A library in a process of its own costs the pilot no memory, can be stopped whatever it does, may be that of another
Python, and its start is paid once for many files, since a helper stays for the next file of the same client.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pilot.common.exception import RunPayloadFailure
from pilot.copytool.common import Transfer, with_setup
from pilot.copytool.errors import Kind, TransferError, tool_error
from pilot.copytool.runner import OUTPUT_LIMIT, SAMPLE, STOP_GRACE, Stop, look, output_file, read_output, stop_error
from pilot.copytool.ways import check_arrived, check_whole
from pilot.info.filespec import FileSpec
from pilot.util.filehandling import Copied
from pilot.util.guarded import GuardedProcess, Outcome
from pilot.util.https import Json
from pilot.util.watch import Limits, Watch

# Where a library is looked for when the pilot's own Python has none: distributions have some for this one alone.
SYSTEM_PYTHON = "/usr/bin/python3"
_RUN = Path(__file__).with_name("helpers") / "run.py"
# A library may take so long (s) to be imported: from a network file system on a busy node it does.
_START_LIMITS = Limits(stall=120.0, fixed=120.0, speed=1.0)
# An answer of more than this (bytes) is none of ours.
_LINE_LIMIT = 64 * 1024 * 1024
# A helper that was told to go gets so long (s) before it is killed: none has anything left to do.
_FAREWELL = 1.0


class LibraryMissing(Exception):
    """The Python that was asked has no such library, or dies of it. The text is what it said."""


class _Died(TransferError):
    """A helper ended by itself. What it was doing may work another time, and an upload may be left half-written."""


@dataclass(frozen=True)
class Program:
    """A helper: its name below pilot.copytool.helpers, and the Python that runs it."""

    name: str
    python: str = sys.executable


class Helper:
    """One helper process. `usable` until it had to be stopped or is gone; version: of its library."""

    def __init__(self, program: Program, transfer: Transfer) -> None:
        """Start it. Raises LibraryMissing, TransferError when it does not start, RunPayloadFailure without a Python."""
        self._what = f"helper {program.name} ({program.python})"
        self._received = b""
        self._outcome: Outcome | None = None
        self.usable = True
        with ExitStack() as resources:
            self._connection, theirs = socket.socketpair()
            resources.enter_context(self._connection)
            self._connection.settimeout(SAMPLE)
            self._output = resources.enter_context(output_file(transfer))
            with theirs:
                self._guarded: GuardedProcess = transfer.launcher.start(
                    with_setup([program.python, str(_RUN), program.name, str(theirs.fileno())], transfer),
                    # Not in the job's directory: a payload could have left modules there.
                    cwd=Path("/"), env=transfer.environ, stdout=self._output, stderr=self._output,
                    keep=(theirs.fileno(),),
                )  # fmt: skip
            resources.callback(self._end)
            watch = Watch(_START_LIMITS, 0, time.monotonic())
            try:
                said = self._answer(FileSpec(self._what), transfer, watch, lambda _: 0, read=True)
            except _Died as exc:
                raise LibraryMissing(exc.diag) from None
            if "missing" in said:
                raise LibraryMissing(str(said["missing"]))
            self.version = str(said.get("ready", ""))
            self._resources = resources.pop_all()

    def call(
        self,
        request: Mapping[str, Json],
        spec: FileSpec,
        transfer: Transfer,
        *,
        read: bool,
        progress: Callable[[GuardedProcess], int] = lambda _: 0,
    ) -> dict[str, Json]:
        """Have something done for a file, and return the result.

        progress: any figure that changes while bytes move, beside what the helper itself says of them.
        Raises TransferError when it fails, stalls or takes too long, or when the transfer is cancelled; then, and when
        the helper itself dies, it is not usable any more.
        """
        watch = Watch(transfer.limits, spec.filesize, time.monotonic())
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            raise self._died(spec, read=read) from None
        answer = self._answer(spec, transfer, watch, progress, read=read)
        done = answer.get("done")
        if isinstance(done, dict):
            return done
        words, kind = str(answer.get("failed", answer)), str(answer.get("kind", ""))
        transfer.log.debug("%s: %s", self._what, words)
        error = tool_error(f"{spec.lfn}, {spec.surl}", words, self.version or self._what, read=read)
        raise TransferError(error.diag, Kind(kind), read=read) if kind else error

    def close(self) -> None:
        """End it and everything it has started."""
        self.usable = False
        self._resources.close()

    def _end(self) -> None:
        # It ends by itself when the connection does, unless its library hangs.
        self._connection.close()
        if self._outcome is None and not self._guarded.is_ending(_FAREWELL):
            self._guarded.kill()
        self._wait()

    def _answer(
        self,
        spec: FileSpec,
        transfer: Transfer,
        watch: Watch,
        progress: Callable[[GuardedProcess], int],
        *,
        read: bool,
    ) -> dict[str, Json]:
        """The next line that is not about progress."""
        moved = 0
        while True:
            line = self._line()
            if line is not None:
                message = json.loads(line)
                if "moved" not in message:
                    assert isinstance(message, dict)  # our own program's
                    return message
                moved = message["moved"]
            stop = look(transfer, watch, moved + progress(self._guarded))
            if stop is None and os.fstat(self._output.fileno()).st_size > OUTPUT_LIMIT:
                stop = Stop("the library writes messages without end")
            if stop is not None:
                self.usable = False
                self._guarded.stop(STOP_GRACE)
                self._wait()
                raise stop_error(spec, stop, read=read, output=read_output(self._output))
            if line is None and self._is_gone():
                raise self._died(spec, read=read)

    def _line(self) -> bytes | None:
        """A line, or None when none came within the time between two looks."""
        while b"\n" not in self._received:
            try:
                piece = self._connection.recv(1 << 20)
            except socket.timeout:
                return None
            except OSError:
                piece = b""
            if not piece or len(self._received) > _LINE_LIMIT:
                self.usable = False
                return None
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _wait(self) -> Outcome:
        """How it has ended; it is told to end already."""
        self._outcome = self._outcome or self._guarded.wait()
        return self._outcome

    def _is_gone(self) -> bool:
        return not self.usable or self._outcome is not None or self._guarded.is_ending(0)

    def _died(self, spec: FileSpec, *, read: bool) -> _Died:
        self.usable = False
        self._guarded.kill()
        outcome = self._wait()
        where = f"{spec.lfn}, {spec.surl}: {self._what} died"
        error = tool_error(where, read_output(self._output), outcome.ending, read=read)
        return _Died(error.diag, Kind.CUT, read=read)


class _Choice:
    """Which program has its library, kept with what the transfers of a client share."""

    usable = True

    def __init__(self, programs: Sequence[Program], transfer: Transfer) -> None:
        self.program: Program | None = None
        for program in programs:
            try:
                with helper(program, transfer) as started:
                    transfer.log.debug("%s %s: %s", program.name, program.python, started.version)
            except (LibraryMissing, RunPayloadFailure) as exc:
                transfer.log.debug("%s %s: %s", program.name, program.python, exc)
                continue
            self.program = program
            return

    def close(self) -> None:
        """Nothing to end."""


def first_with_library(programs: Sequence[Program], transfer: Transfer) -> Program | None:
    """The first of these programs that starts and has its library, or None. Asked once for all files of a client.

    Raises TransferError when the transfer is cancelled meanwhile.
    """
    with transfer.lend((_Choice, tuple(programs)), lambda: _Choice(programs, transfer)) as choice:
        return choice.program


@contextmanager
def helper(program: Program, transfer: Transfer) -> Iterator[Helper]:
    """A helper for the time of a block: one that is idle, or a new one.

    Raises LibraryMissing, TransferError or RunPayloadFailure when none starts.
    """
    with transfer.lend(program, lambda: Helper(program, transfer)) as lent:
        yield lent


@dataclass(frozen=True)
class HelperWay:
    """A way (pilot.copytool.common.Way) through a helper with the calls get, put, exists and remove.

    get {source, target, algorithm, size, ask} -> {size, checksum, there}: size is the catalogue's, 0 if it has none,
    and what the file has at its source; ask: whether the server's own checksum is wanted as `there`, since the
    catalogue has none; that is empty if it is not known.
    put {source, target, algorithm, replace} -> {size, checksum, stored, there}: the last two of what is stored.
    exists {url} -> {there}. remove {url} -> {}.
    """

    program: Program

    def get(self, spec: FileSpec, transfer: Transfer, target: Path, algorithm: str) -> Copied:
        """Download. Raises TransferError."""
        request: dict[str, Json] = {
            "call": "get", "source": spec.surl, "target": str(target), "algorithm": algorithm, "size": spec.filesize,
            "ask": not spec.checksum,
        }  # fmt: skip
        done = self._call(request, spec, transfer, read=True)
        checksum = str(done["checksum"])
        check_whole(spec, target, int(str(done["size"])))
        check_arrived(spec, algorithm, checksum, str(done["there"]))
        return Copied(target.stat().st_size, checksum)

    def put(self, spec: FileSpec, transfer: Transfer, source: Path) -> tuple[Copied, Copied]:
        """Upload, and what is there then. Raises TransferError."""
        request: dict[str, Json] = {
            "call": "put", "source": str(source), "target": spec.surl, "algorithm": transfer.checksum_type,
            "replace": transfer.may_replace,
        }  # fmt: skip
        done = self._call(request, spec, transfer, read=False)
        sent = Copied(int(str(done["size"])), str(done["checksum"]))
        return sent, Copied(int(str(done["stored"])), str(done["there"]))

    def exists(self, spec: FileSpec, transfer: Transfer) -> bool:
        """Whether the destination is there. Raises TransferError."""
        return bool(self._call({"call": "exists", "url": spec.surl}, spec, transfer, read=False)["there"])

    def remove(self, spec: FileSpec, transfer: Transfer) -> None:
        """Remove the destination. Raises TransferError."""
        self._call({"call": "remove", "url": spec.surl}, spec, transfer, read=False)

    def _call(self, request: dict[str, Json], spec: FileSpec, transfer: Transfer, *, read: bool) -> dict[str, Json]:
        with helper(self.program, transfer) as lent:
            return lent.call(request, spec, transfer, read=read)
