"""Signs of life of a payload, and what the log keeps of one that had none."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.rules.looping import Signs
from pilot.util.filehandling import entries_below
from pilot.util.processes import sample_tree
from pilot.util.sockets import traffic
from pilot.util.stacks import describe_processes

# In the queue's catchall: the limit in seconds for its jobs. A job changes it with --overwriteQueueData.
CATCHALL = "loopinglimit"
# More files than so many are not looked at: a payload with more has been busy.
_FILES = 200_000
# So many of the last touched files are named in the log.
_NAMED = 10

# Path below the job's directory -> when it was changed (nanoseconds since 1970), and its size.
Files = Mapping[str, "tuple[int, int]"]


def is_wanted(context: Context, run: JobRun) -> bool:
    """Whether this job is looked after: its definition and the experiment may say no."""
    return run.data.looping_check and bool(
        context.plugins.hook("loopingjob_definitions", "allow_loopingjob_detection")()
    )


def limit_of(run: JobRun, setting: float) -> float:
    """Seconds without a sign of life: the queue's (or the job's, which may change the queue's), else the setting."""
    value = run.infosys.queuedata.catchall_value(CATCHALL)
    with suppress(ValueError):
        return float(int(value)) or setting
    return setting


def files_of(context: Context, run: JobRun) -> Files:
    """The files of the job's directory that tell something, without those that the pilot writes itself."""
    found: dict[str, tuple[int, int]] = {}
    for entry in islice(entries_below(run.workdir), _FILES):
        with suppress(OSError):
            stat = entry.stat(follow_symlinks=False)
            found[os.path.relpath(entry.path, run.workdir)] = stat.st_mtime_ns, stat.st_size
    settings = context.settings.payload
    aside = {settings.stdout, settings.stderr, *run.aside}
    remove = context.plugins.hook("loopingjob_definitions", "remove_unwanted_files")
    wanted = remove(str(run.workdir), [name for name in found if name not in aside])
    names = [str(name) for name in wanted] if isinstance(wanted, (list, tuple)) else list(found)
    return {name: found[name] for name in names if name in found}


def signs_of(context: Context, run: JobRun, files: Files) -> Signs:
    """What can be seen of a job's life now: of its payload, and of what runs beside it."""
    sample = sample_tree(*run.roots)
    settings = context.settings.payload
    output = [_stat(run.workdir / name) for name in (settings.stdout, settings.stderr)]
    changed = [when for when, _ in files.values()]
    return Signs(
        cpu=sample.cpu_user + sample.cpu_system,
        io=sample.rchar + sample.wchar + sample.rbytes + sample.wbytes,
        network=traffic(sample.below),
        output=(sum(size for size, _ in output), max(when for _, when in output)),
        # Their number is part of it: a file that is gone is a sign too.
        files=(sum(size for _, size in files.values()) + len(files), max(changed, default=0)),
        stopped=sample.stopped,
    )


def evidence(run: JobRun, files: Files) -> Sequence[str]:
    """Lines for the log: what each process is doing, and which files were touched last."""
    last = sorted(files.items(), key=lambda item: item[1], reverse=True)[:_NAMED]
    lines = ["what its processes are doing:", *describe_processes(sample_tree(*run.roots).below)]
    lines.append(
        f"the files in {run.workdir} that were touched last:" if last else f"no file in {run.workdir} but the pilot's"
    )
    for name, (when, size) in last:
        shown = "".join(c if c.isprintable() else "?" for c in name)
        lines.append(f"    {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(when / 1e9))} {size} bytes {shown}")
    return lines


def _stat(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
