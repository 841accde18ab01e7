"""The pilot's own directory: its flight recorder, its stamp, and what dead pilots have left beside it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import IO

from pilot.control.autopsy import examine, render
from pilot.util import ownership, payloadgroup, recorder
from pilot.util.blot import Secrets
from pilot.util.recorder import Recorder


def make_recorder(workdir: Path, log: logging.Logger, secrets: Secrets) -> Recorder:
    """The flight recorder; on a disk that is full, one that does not outlive the pilot."""
    try:
        return Recorder(workdir / recorder.FILE, secrets.blot)
    except OSError as exc:
        log.warning("no flight recorder in %s: %s", workdir, exc.strerror)
        return Recorder(None, secrets.blot)


def claim(rundir: Path, workdir: Path, log: logging.Logger, *, keep: bool) -> IO[str] | None:
    """Stamp the pilot's directory, and remove those of pilots that are dead. Returns the lock on the stamp.

    A file system without locks costs only this: what a killed pilot leaves there is for the site to clean up.
    """
    for group, alive in payloadgroup.sweep():
        log.warning("%s: its pilot was killed; the control group is removed, with %d process(es)", group, alive)
    try:
        here = ownership.this_process(keep=keep)
        lock = ownership.stamp(workdir, here)
        for path, said in ownership.sweep(rundir, here, _story):
            log.warning("%s: %s", path, said)
    except OSError as exc:
        log.warning("%s is not stamped, and dead pilots' directories stay: %s", workdir, exc.strerror)
        return None
    return lock


def _story(directory: Path) -> str:
    """What became of the jobs of a pilot that was killed, as far as its recorder tells."""
    try:
        return "\n".join(render(one) for one in examine(recorder.read(directory / recorder.FILE), alive=False))
    except (OSError, ValueError):
        return ""
