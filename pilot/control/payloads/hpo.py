"""Jobs that try hyperparameter points (isHPO): one round a point, until there is none left, or no time for one.

Each round's outputs get a name of their own: `<name>_0`, `<name>_1` and so on.
"""

from __future__ import annotations

import time
from contextlib import suppress

from pilot.control.context import Context
from pilot.control.jobrun import JobRun


class Rounds:
    """The rounds of one job: one, unless it is for hyperparameter points."""

    def __init__(self, context: Context, run: JobRun) -> None:
        self._context = context
        self._job = run
        self._count = 0
        self._longest = 0.0
        self._started = 0.0
        self._is_over = False

    def begin(self) -> bool:
        """Whether there is to be another round."""
        run, log, settings = self._job, self._context.log, self._context.settings
        if self._is_over or run.error is not None:
            return False
        now = time.time()
        if self._count >= settings.payload.hpo_rounds:
            log.warning("job %s: %d points were tried, more are not allowed (hpo_rounds)", run.jobid, self._count)
            return False
        left = self._context.slot.plan(settings.pilot).stop - now
        if self._count and self._longest > left:
            text = "job %s: no time for another point: one took %.0f s, and %.0f s are left in this slot"
            log.info(text, run.jobid, self._longest, left)
            return False
        run.round, self._started = self._count, time.monotonic()
        if run.data.is_hpo:
            log.info("job %s: point %d", run.jobid, run.round)
        return True

    def keep_output(self) -> None:
        """Another payload starts: what the one before has said keeps its number."""
        settings = self._context.settings.payload
        if self._count:
            self._keep(settings.stdout, self._count - 1)
            self._keep(settings.stderr, self._count - 1)

    def end(self, *, no_more: bool, is_asked: bool) -> None:
        """A round is over. no_more: its pre-process has said that there is no point left, so it was none. is_asked:
        there is a pre-process; without one nobody has another point, or will ever say that there is none.
        """
        self._longest = max(self._longest, time.monotonic() - self._started)
        self._is_over = no_more or not is_asked or not self._job.data.is_hpo
        if not self._job.data.is_hpo:
            return
        if no_more:
            self._context.log.info("job %s: no point is left after %d", self._job.jobid, self._count)
            return
        for spec in self._job.data.outdata:
            self._keep(spec.lfn, self._count)
        self._count += 1

    def close(self) -> None:
        """After the last round: the job's outputs are those of its rounds."""
        run = self._job
        if not run.data.is_hpo:
            return
        if self._count:
            self._context.plugins.hook("common", "update_output_for_hpo")(run.data, str(run.workdir))
        else:
            run.data.outdata = []

    def _keep(self, name: str, number: int) -> None:
        """Give a file the number of its round, unless the payload has made one of that name itself."""
        path = self._job.workdir / name
        kept = path.with_name(f"{name}_{number}")
        with suppress(OSError):
            if not kept.exists():
                path.rename(kept)
