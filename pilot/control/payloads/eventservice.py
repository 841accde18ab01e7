"""The executor of event service jobs: a payload as all others, which asks the pilot for its events while it runs."""

from __future__ import annotations

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.context import Context
from pilot.control.events import EventBook
from pilot.control.eventsource import EventHelpers
from pilot.control.jobrun import JobRun
from pilot.control.payloads import generic
from pilot.control.payloads.commands import Errand
from pilot.control.payloads.container import PayloadContainer
from pilot.eventservice.esprocess.esmessage import CHANNEL_VARIABLE, MessageServer
from pilot.util.filehandling import is_made


class Executor(generic.Executor):
    """Runs one event service job's payload. helpers: of the other controllers."""

    def __init__(self, context: Context, run: JobRun, helpers: EventHelpers | None) -> None:
        super().__init__(context, run)
        self._helpers = helpers
        self._server: MessageServer | None = None

    def get_executor_type(self) -> dict[str, str]:
        """What --es-executor-type says: generic is the only one that is here."""
        return {"executor_type": self._context.args.es_executor_type}

    def prepare(self) -> None:
        """As generic's, with a socket in the job's directory. Raises PilotException."""
        context, run = self._context, self._job
        if context.events is None or self._helpers is None:
            text = "event ranges come from a dispatcher, and this pilot has none (--job)"
            raise PilotException(text, code=ErrorCodes.ESNOEVENTS)
        inside = context.settings.container.workdir if PayloadContainer.is_wanted(context, run) else ""
        book = EventBook(context, run, context.events, self._helpers, inside)
        server = MessageServer(
            run.workdir,
            book.get_event_ranges,
            book.handle_out_message,
            context.log,
            context.settings.payload.event_retry,
        )
        try:
            run.variables[CHANNEL_VARIABLE] = server.start()
        except OSError as exc:
            server.close()
            text = f"the payload's channel cannot be made in {run.workdir}: {exc.strerror}"
            raise PilotException(text, code=ErrorCodes.FILEHANDLINGFAILURE) from exc
        run.events, self._server = book, server
        super().prepare()

    def errand(self) -> Errand | None:
        """Store outputs and tell the server until the payload ends."""
        return self._job.events

    def conclude(self) -> PilotException | None:
        """Listen to the payload's last words, and judge by its ranges."""
        self._hang_up()
        run = self._job
        # The outputs of such a job are those of its merge; what is there all the same is stored.
        run.data.outdata = [spec for spec in run.data.outdata if is_made(run.workdir / spec.lfn)]
        return run.events.verdict() if run.events is not None else None

    def close(self) -> None:
        """After the last end."""
        self._hang_up()
        super().close()

    def _hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
