"""Where a live log may go: to our dispatcher, or as events to a log server by HTTP or a STOMP broker.

Events have the form that Logstash and Fluentd read without rules of their own: an array of JSON objects, one for each
line, with the time in "@timestamp" and the line in "message". docs/livelog.md lists their fields.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pilot.control.context import Context
from pilot.control.dispatcher import Dispatcher
from pilot.control.jobrun import JobRun
from pilot.control.realtime import Record
from pilot.util.https import HttpClient, Json, RequestFailed
from pilot.util.stomp import Broker, Connection, StompError

# Our dispatcher takes one piece a second from a job (server.logic.livelog).
_DISPATCHER_INTERVAL = 1.0
# A broker has to take a connection, a login and a message within one time limit, each in its share of it.
_STEPS = 3


class DispatcherSink:
    """The dispatcher, where the job's owner reads the log with `pilotkit log`."""

    interval = _DISPATCHER_INTERVAL

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._run: JobRun | None = None
        self._position = 0
        # Whether the last call may have stored its records although its answer was lost.
        self._in_doubt = False

    def send(self, run: JobRun, records: Sequence[Record], limit: float) -> str:
        """See LiveSink."""
        if run is not self._run:
            self._run, self._position, self._in_doubt = run, 0, False
        was_in_doubt, self._in_doubt = self._in_doubt, False
        rows: list[Json] = [
            {"name": one.name, "offset": one.offset, "text": one.text, "dropped": one.dropped} for one in records
        ]
        piece: dict[str, Json] = {
            "job_id": int(run.jobid),
            "attempt_nr": run.data.attemptnr,
            "position": self._position,
            "records": rows,
        }
        try:
            answer = self._dispatcher.append_log(piece, run.claim, limit)
        except RequestFailed as exc:
            self._in_doubt = was_in_doubt or exc.sent
            raise
        before, self._position = self._position, answer.position
        if answer.result == "stored" or (answer.result == "elsewhere" and was_in_doubt and answer.position > before):
            return ""
        if answer.result in ("too_soon", "elsewhere"):
            self._in_doubt = was_in_doubt and answer.result == "too_soon"
            text = f"the dispatcher wants the log another time ({answer.result})"
            raise RequestFailed(text, temporary=True, retry_after=self.interval)
        why = {"full": "the dispatcher keeps no more of it", "tobekilled": "the job is no longer this pilot's"}
        return why.get(answer.result, f"the dispatcher says '{answer.result[:40]}'")

    def close(self) -> None:
        """Nothing: the connection is the pilot's."""


class Events:
    """Turns records into events."""

    def __init__(self, context: Context, logname: str) -> None:
        self._common: dict[str, Json] = {
            "@version": "1",
            "logname": logname,
            "host": context.node.name,
            "site": context.identity.site,
            "queue": context.args.queue,
        }
        self._number = 0
        self._last: Sequence[Record] = ()
        self._events: list[Json] = []

    def of(self, run: JobRun, records: Sequence[Record]) -> list[Json]:
        """An event for each line. `sequence` counts them, so that a reader can sort them and see what is missing.

        Records that come again, because a server has not answered, are the same events again.
        """
        if records is self._last:
            return self._events
        stamp = time.time()
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(stamp)) + f".{int(stamp % 1 * 1000):03d}Z"
        events: list[Json] = []
        for name, message in self._lines(records):
            self._number += 1
            events.append(
                {
                    "@timestamp": moment,
                    **self._common,
                    "PandaID": run.jobid,
                    "taskID": run.data.taskid,
                    "attemptNr": run.data.attemptnr,
                    "file": name,
                    "sequence": self._number,
                    "message": message,
                }
            )
        self._last, self._events = records, events
        return events

    @staticmethod
    def _lines(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
        for record in records:
            if record.dropped:
                yield record.name, f"[{record.dropped} bytes were left out here]"
            for line in record.text.split("\n"):
                if line.strip():
                    yield record.name, line.rstrip("\r")


class HttpSink:
    """A log server that takes events by POST: Logstash's http input, Fluentd's in_http (the path is its tag)."""

    interval = 0.0

    def __init__(self, http: HttpClient, url: str, events: Events) -> None:
        self._http = http
        self._url = url
        self._events = events

    def send(self, run: JobRun, records: Sequence[Record], limit: float) -> str:
        """See LiveSink."""
        events = self._events.of(run, records)
        if events:
            self._http.post_json(self._url, events, headers={}, timeout=limit)
        return ""

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


class StompSink:
    """A STOMP broker; each message is an array of events."""

    interval = 0.0

    def __init__(self, broker: Broker, destination: str, events: Events) -> None:
        self._broker = broker
        self._destination = destination
        self._events = events
        self._connection: Connection | None = None

    def send(self, run: JobRun, records: Sequence[Record], limit: float) -> str:
        """See LiveSink."""
        events = self._events.of(run, records)
        if not events:
            return ""
        headers = {"destination": self._destination, "content-type": "application/json"}
        try:
            if self._connection is None:
                self._connection = Connection(replace(self._broker, timeout=limit / _STEPS))
            self._connection.send_with_receipt("SEND", headers, json.dumps(events).encode())
        except StompError as exc:
            self.close()
            raise RequestFailed(str(exc), temporary=True) from exc
        return ""

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
