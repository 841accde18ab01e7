"""Runs transfer tools under a guard, and stops what makes no progress."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TypeVar

from pilot.copytool.common import Transfer, cancelled_error
from pilot.copytool.errors import Kind, TransferError, tool_error
from pilot.info.filespec import FileSpec
from pilot.util.guarded import GuardedProcess
from pilot.util.parallel import Aside
from pilot.util.processes import sample_tree
from pilot.util.watch import Limits, Watch

T = TypeVar("T")

# Progress is looked at so often (s): an order to stop is obeyed as fast.
SAMPLE = 0.5
# So much of a tool's output is read (bytes): what it says last says why it failed.
OUTPUT_TAIL = 16384
# A tool that writes more than this (bytes) would fill the disk in the end.
OUTPUT_LIMIT = 64 * 1024 * 1024
# A transfer that was told to stop gets so long (s), a tool between TERM and KILL: enough to remove what it has begun.
STOP_GRACE = 2.0

# Removing what an upload left must not hold up the pilot's end (s).
_REMOVE_LIMITS = Limits(stall=5.0, fixed=5.0, speed=1.0)


@dataclass(frozen=True)
class Stop:
    """Why a transfer was stopped by the pilot. cancelled: by request, not for its own slowness."""

    text: str
    cancelled: bool = False


def stop_error(spec: FileSpec, stop: Stop, *, read: bool, output: str = "") -> TransferError:
    """The error of a transfer that the pilot has stopped."""
    if stop.cancelled:
        return cancelled_error(spec, read=read)
    said = f" ({output})" if output else ""
    return TransferError(f"{spec.lfn}, {spec.surl}: stopped, {stop.text}{said}", Kind.STALLED, read=read)


def run_tool(
    command: Sequence[str],
    spec: FileSpec,
    transfer: Transfer,
    progress: Callable[[GuardedProcess], int],
    *,
    read: bool,
) -> str:
    """Run a transfer tool for one file and return what it said on both of its outputs.

    progress: any figure that changes while bytes move. Raises TransferError when the tool fails, stalls or takes too
    long, or when the transfer is cancelled; then none of its processes is left.
    """
    with output_file(transfer) as output:
        guarded = transfer.launcher.start(
            command, cwd=transfer.workdir, env=transfer.environ, stdout=output, stderr=output
        )
        watch = Watch(transfer.limits, spec.filesize, time.monotonic())
        stop: Stop | None = None
        while not guarded.is_ending(SAMPLE):
            stop = look(transfer, watch, progress(guarded))
            if stop is None and os.fstat(output.fileno()).st_size > OUTPUT_LIMIT:
                stop = Stop("the tool writes messages without end")
            if stop is not None:
                guarded.stop(STOP_GRACE)
                break
        outcome = guarded.wait()
        said = read_output(output)
    transfer.log.debug("%s said: %s", command[0], said)
    if stop is not None:
        raise stop_error(spec, stop, read=read, output=" / ".join(said.split("\n")[-3:]).strip(" /"))
    if outcome.exit_code != 0:
        raise tool_error(f"{spec.lfn}, {spec.surl}", said, outcome.ending, read=read)
    return said


@contextmanager
def output_file(transfer: Transfer) -> Iterator[IO[bytes]]:
    """A file without a name in the job's directory for what a tool says.

    It has some room from the beginning, so that a tool can say that the disk is full when it has filled it.
    """
    with tempfile.TemporaryFile(dir=transfer.workdir) as output:
        with suppress(OSError):
            os.posix_fallocate(output.fileno(), 0, OUTPUT_TAIL)
        yield output


def read_output(output: IO[bytes]) -> str:
    """The end of what a tool has said."""
    output.seek(max(0, os.fstat(output.fileno()).st_size - OUTPUT_TAIL))
    return output.read().rstrip(b"\0").decode("utf-8", "replace").strip()


def run_watched(
    spec: FileSpec,
    transfer: Transfer,
    progress: Callable[[], int],
    abort: Callable[[], None],
    body: Callable[[], T],
    *,
    read: bool,
) -> T:
    """Run a transfer that needs no process in a thread, watched from this one, and return what it returns.

    progress: any figure that changes while bytes move; abort: makes the transfer fail soon. One that hangs where
    nothing reaches it (a name server, a dead disk) is left behind in its thread.
    Raises what the transfer raises, and TransferError when it was stopped.
    """
    watch = Watch(transfer.limits, spec.filesize, time.monotonic())
    aside = Aside(body, f"transfer-of-{spec.lfn[:40]}")
    while not aside.has_ended(SAMPLE):
        stop = look(transfer, watch, progress())
        if stop is None:
            continue
        abort()
        if not aside.has_ended(STOP_GRACE):
            transfer.log.warning("%s, %s: the transfer cannot be stopped and is left alone", spec.lfn, spec.surl)
        raise stop_error(spec, stop, read=read) from aside.error
    return aside.result()


def for_removal(transfer: Transfer) -> Transfer:
    """The same for removing what a failed upload has left: done after a cancellation too, and never for long."""
    return replace(transfer, limits=_REMOVE_LIMITS, cancelled=lambda: False)


def look(transfer: Transfer, watch: Watch, progress: int) -> Stop | None:
    """Whether a transfer has to stop now. progress: any figure that changes while bytes move."""
    if transfer.cancelled():
        return Stop("cancelled", cancelled=True)
    reason = watch.look(time.monotonic(), progress)
    return Stop(reason) if reason else None


def growth_of(path: Path) -> Callable[[GuardedProcess], int]:
    """Progress of a download: the size of its destination."""

    def size(_: GuardedProcess) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return 0

    return size


def bytes_read(guarded: GuardedProcess) -> int:
    """Progress of an upload: what the tool and its children have read."""
    return sample_tree(guarded.guard_pid).rchar


def bytes_written(guarded: GuardedProcess) -> int:
    """Progress of a download that may go through a file of the tool's own choice: what it and its children wrote."""
    return sample_tree(guarded.guard_pid).wchar
