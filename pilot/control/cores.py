"""Core dumps that a payload has left: found, kept for the log or removed, and told of."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import translate
from itertools import islice
from pathlib import Path

from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.util.filehandling import entries_below, open_plain
from pilot.util.tarball import is_core

KEEP, DROP, IN_DEBUG = "keep", "drop", "debug"
# How the kernel, gdb and the runtimes of languages call them.
_NAMES = r"core|core\..+|.+\.core"
# Where the kernel says how it calls them; what begins with | is a program that takes them, and leaves none here.
_PATTERN = Path("/proc/sys/kernel/core_pattern")
# More files than so many are not looked at.
_FILES = 200_000
# So much of a file tells what it is (bytes).
_HEAD = 64
# So many are named in the log.
_NAMED = 5


def settle_cores(run: JobRun, context: Context) -> None:
    """Look for core dumps in the job's directory. Those that the settings do not keep, or that are too large, are
    removed; `run.cores` gets the others, `run.core_story` a sentence on all of them.
    """
    settings, outputs = context.settings.payload, {spec.lfn for spec in run.data.outdata}
    keeps = settings.core_dumps == KEEP or (settings.core_dumps == IN_DEBUG and run.debug)
    kept, told = [], []
    for path, size in find_cores(run.workdir, kernel_pattern()):
        name = os.path.relpath(path, run.workdir)
        if name in outputs:
            continue
        if keeps and size <= settings.core_limit:
            kept.append(name)
            told.append(f"{_shown(name)} ({size} bytes) is in the log")
            continue
        why = f"more than {settings.core_limit}" if keeps else f"core_dumps = {settings.core_dumps}"
        try:
            path.unlink()
            told.append(f"{_shown(name)} ({size} bytes) was removed: {why}")
        except OSError as exc:
            told.append(f"{_shown(name)} ({size} bytes) cannot be removed: {exc.strerror}")
    run.cores = frozenset(kept)
    if told:
        more = f", and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        run.core_story = f"core dump {', '.join(told[:_NAMED])}{more}"
        context.log.warning("job %s: %s", run.jobid, run.core_story)


def find_cores(directory: Path, pattern: str = "") -> Iterator[tuple[Path, int]]:
    """Core dumps below a directory, with their sizes (bytes): files that are called so and begin so.

    pattern: what the kernel calls them besides, as kernel_pattern gives it.
    """
    called = re.compile(f"(?:{_NAMES}|{translate(pattern)})\\Z" if pattern else f"(?:{_NAMES})\\Z", re.DOTALL)
    found = [Path(entry.path) for entry in islice(entries_below(directory), _FILES) if called.match(entry.name)]
    for path in sorted(found):
        with suppress(OSError), open_plain(path) as stream:
            if is_core(stream.read(_HEAD)):
                yield path, os.fstat(stream.fileno()).st_size


def kernel_pattern(setting: Path = _PATTERN) -> str:
    """How the kernel calls core dumps in a process's directory, with * for what differs; empty when it makes none."""
    try:
        text = setting.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    name = os.path.basename(text)
    if text.startswith("|") or not name:
        return ""
    literal = re.sub(r"([\[\]?*])", r"[\1]", name)
    return re.sub(r"%(.)", lambda found: "%" if found.group(1) == "%" else "*", literal)


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[-100:])
