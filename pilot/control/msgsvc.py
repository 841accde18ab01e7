"""Jobs and kill orders from a message broker (--subscribe-to-msgsvc).

A message only says that there is work: the job itself is handed out by the dispatcher, so that it has one claim
whatever a broker does. A message is confirmed when its job's first update has been taken; one that led to no job goes
back to the broker once, for another pilot. While a job runs the pilot holds no other message. Orders to end jobs arrive
on a topic of their own at any time.

One thread talks to the broker; the job controller waits in `get_job`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.companion import Abort, Companion
from pilot.control.context import Context
from pilot.control.dispatcher import JobAnswer
from pilot.control.job import JobSource
from pilot.control.jobrun import JobRun
from pilot.util.https import Json, RequestFailed, RetryPolicy, parse_json, wait_before_retry
from pilot.util.stomp import Broker, Connection, Frame, StompError

# What messages say in "msg_type".
_GET_JOB, _KILL_JOB, _KILL_TASK, _FINISH_TASK = "get_job", "kill_job", "kill_task", "finish_task"
# Largest message that is looked at (bytes): an order is a line.
_MESSAGE_LIMIT = 65536
# PandaIDs and task ids are 64-bit numbers.
_DIGITS = 19
# Resource types are words such as SCORE_HIMEM, or patterns of them.
_WORD_LIMIT = 64
# Without heart-beats the thread still looks up now and then (s).
_LONGEST_WAIT = 3600.0
_COMMANDS = "commands"


class BadMessage(Exception):
    """A message that cannot be obeyed; the text says why."""


@dataclass(frozen=True)
class Order:
    """What a message says. conditions: arguments of getJob that it asks for."""

    kind: str
    jobid: str = ""
    taskid: str = ""
    conditions: Mapping[str, Json] = field(default_factory=dict)


def read_order(body: bytes) -> Order:
    """The order in a message: a JSON object {"msg_type": ..., "taskid": ..., "jobid": ..., "resource_type": ...}.

    Raises BadMessage. Keys that are not known are passed over.
    """
    if len(body) > _MESSAGE_LIMIT:
        raise BadMessage(f"it has {len(body)} bytes")
    try:
        said = parse_json(body)
    except ValueError as exc:
        raise BadMessage(f"it is not JSON: {exc}") from None
    if not isinstance(said, dict):
        raise BadMessage("it is no JSON object")
    kind = said.get("msg_type")
    jobid, taskid = _number(said, "jobid"), _number(said, "taskid")
    if kind == _GET_JOB:
        resource = said.get("resource_type") or ""
        if not isinstance(resource, str) or len(resource) > _WORD_LIMIT or not resource.isprintable():
            raise BadMessage("its resource_type is no word")
        asked = {"taskID": taskid, "resourceType": resource}
        return Order(_GET_JOB, conditions={name: value for name, value in asked.items() if value})
    if kind == _KILL_JOB and jobid:
        return Order(_KILL_JOB, jobid=jobid)
    if kind in (_KILL_TASK, _FINISH_TASK) and taskid:
        return Order(str(kind), taskid=taskid)
    raise BadMessage("its msg_type is none that is known, or the id that it needs is missing")


def _number(said: Mapping[str, Json], name: str) -> str:
    value = said.get(name)
    if value is None:
        return ""
    text = str(value)
    if isinstance(value, (bool, float)) or not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise BadMessage(f"its {name} is no number")
    return text


@dataclass
class _Message:
    """One message that there is work. verdict: what is to become of it; jobid: the job it led to."""

    ack: str
    redelivered: bool
    order: Order
    verdict: str = ""
    jobid: str = ""


class MessageService(Companion):
    """brokers: makes the list of those to try, with fresh credentials. jobs and commands: destinations."""

    name = "broker"

    def __init__(
        self,
        context: Context,
        source: JobSource,
        brokers: Callable[[], Sequence[Broker]],
        jobs: str,
        commands: str,
    ) -> None:
        self._context = context
        self._settings = context.settings.broker
        self._log = context.log
        self._source = source
        self._brokers = brokers
        self._destination = jobs
        self._commands = commands
        self._running: Callable[[], list[JobRun]] = list
        self._abort: Abort = lambda run, error, grace: None
        self._changed = threading.Condition()
        self._connection: Connection | None = None
        self._trouble = "no connection was tried yet"
        self._wanted = self._stopped = self._closed = False
        self._subscription = ""
        self._subscriptions = 0
        self._message: _Message | None = None

    # ---- called by other threads

    def attach(self, jobs: Callable[[], list[JobRun]], abort: Abort) -> None:
        """See Companion."""
        self._running, self._abort = jobs, abort

    def accepted(self, run: JobRun) -> None:
        """The first update of a job was taken: its message is confirmed."""
        with self._changed:
            if self._message is not None and self._message.jobid == run.jobid and not self._message.verdict:
                self._message.verdict = "ack"
                self._wake()

    def stop(self) -> None:
        """Wait for no more messages."""
        with self._changed:
            self._stopped = True
            self._wake()

    def close(self) -> None:
        """End the thread. A message that is not confirmed yet goes to another pilot."""
        with self._changed:
            self._closed = True
            self._wake()

    def get_job(self, request: dict[str, Json]) -> JobAnswer:
        """Wait for a message, then ask the dispatcher. See JobSource; no message is an empty answer."""
        begun = time.monotonic()
        message = self._wait_for_message()
        if message is None and self._stopped:
            return JobAnswer(reason="the pilot is told to stop", retry_after=0.0)
        if message is None and self._trouble:
            raise RequestFailed(f"no message broker: {self._trouble}", temporary=True)
        if message is None:
            text = f"no message on {self._destination} within {self._settings.patience:.0f} s"
            return JobAnswer(reason=text, retry_after=0.0)
        asked: dict[str, Json] = {**request, "viaTopic": True, **message.order.conditions}
        left = asked.get("remaining_time")
        if isinstance(left, int):
            asked["remaining_time"] = max(0, left - int(time.monotonic() - begun))
        try:
            answer = self._source.get_job(asked)
        except PilotException:
            self._settle(message, "return")
            raise
        if answer.definition is None:
            # What two pilots had no use for is stale: its job has been taken, or has ended.
            self._settle(message, "ack" if message.redelivered else "return")
            return answer
        with self._changed:
            message.jobid = str(answer.definition.get("PandaID"))
        return answer

    def _wait_for_message(self) -> _Message | None:
        with self._changed:
            if self._message is not None:
                # The job of the last message is over, and nobody has taken an update of it.
                self._message.verdict = self._message.verdict or "return"
            self._wanted = True
            self._wake()
            self._changed.wait_for(self._is_answered, timeout=self._settings.patience)
            self._wanted = False
            self._wake()
            message = self._message if self._message is not None and not self._message.verdict else None
            if message is not None and self._stopped:
                message.verdict = "return"
                return None
            return message

    def _is_answered(self) -> bool:
        return self._stopped or (self._message is not None and not self._message.verdict)

    def _settle(self, message: _Message, verdict: str) -> None:
        with self._changed:
            message.verdict = verdict
            self._wake()

    def _wake(self) -> None:
        """With the lock held: let both threads look at what has changed."""
        self._changed.notify_all()
        if self._connection is not None:
            self._connection.wake()

    # ---- the thread

    def run(self) -> None:
        """Body of the thread: connect, serve, and connect again after a pause when the broker has gone."""
        failures = 0
        previous: Connection | None = None
        while not self._closed:
            connection: Connection | None = None
            try:
                connection = self._connect()
                if previous is not None:
                    previous.close(farewell=True)
                    previous = None
                failures = 0
                self._serve(connection)
                previous, connection = connection, None
            except StompError as exc:
                failures += 1
                policy = RetryPolicy(0, self._settings.retry_delay, self._settings.retry_delay_max)
                wait = wait_before_retry(failures, policy, None, random.random())
                self._log.warning("message broker: %s; connecting again in %.1f s", exc, wait)
                self._lost(str(exc))
                for broken in filter(None, (connection, previous)):
                    broken.close()
                previous = None
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, timeout=wait)
        if previous is not None:
            previous.close(farewell=True)

    def _connect(self) -> Connection:
        """A connection to the first broker that answers, subscribed to orders. Raises StompError, the last one's."""
        trouble = StompError("no broker is named")
        for broker in self._brokers():
            connection = None
            try:
                connection = Connection(broker)
                headers = {"id": _COMMANDS, "destination": self._commands, "ack": "auto"}
                connection.send_with_receipt("SUBSCRIBE", headers)
            except StompError as exc:
                trouble = exc
                if connection is not None:
                    connection.close()
                continue
            self._log.info("message broker %s: waiting for orders on %s", broker, self._commands)
            with self._changed:
                self._connection, self._trouble = connection, ""
                self._subscription, self._message = "", None
            return connection
        raise trouble

    def _lost(self, why: str) -> None:
        """The broker gives a message that was not confirmed to another pilot."""
        with self._changed:
            self._connection, self._trouble = None, why
            self._subscription, self._message = "", None

    def _serve(self, connection: Connection) -> None:
        """Returns when the connection has to end: the pilot does, or a message is to go back to the broker.

        Only the end of a connection gives a message back with every broker: NACK makes it a dead letter with ActiveMQ,
        and after UNSUBSCRIBE RabbitMQ keeps it for this pilot. Raises StompError when the connection breaks.
        """
        while True:
            # What is done may take a call of `wake` for its own: only when nothing is left to do it is safe to wait.
            while self._do_what_is_due(connection):
                pass
            if self._closed or self._is_to_go_back():
                return
            frame = connection.receive(_LONGEST_WAIT)
            if frame is None or frame.command != "MESSAGE":
                continue
            if frame.headers.get("subscription") == _COMMANDS:
                self._obey(frame)
            elif frame.headers.get("subscription") == self._subscription:
                self._take(connection, frame)
            else:
                return  # it was on its way when the subscription ended

    def _is_to_go_back(self) -> bool:
        with self._changed:
            return self._message is not None and self._message.verdict == "return"

    def _do_what_is_due(self, connection: Connection) -> bool:
        """Bring subscription and message to what is wanted, one step; whether there was one."""
        with self._changed:
            message, wanted = self._message, self._wanted
            verdict = message.verdict if message is not None else ""
        if message is not None and verdict == "ack":
            connection.send("ACK", {"id": message.ack})
            with self._changed:
                self._message = None
            return True
        if message is not None or wanted == bool(self._subscription):
            return False
        if wanted:
            self._subscribe(connection)
        else:
            # While a job runs, messages are for other pilots.
            connection.send_with_receipt("UNSUBSCRIBE", {"id": self._subscription})
            self._subscription = ""
        return True

    def _subscribe(self, connection: Connection) -> None:
        """Ask for one message at a time: ActiveMQ and RabbitMQ have each a header of their own for that."""
        self._subscriptions += 1
        self._subscription = f"jobs-{self._subscriptions}"
        headers = {
            "id": self._subscription,
            "destination": self._destination,
            "ack": "client-individual",
            "activemq.prefetchSize": "1",
            "prefetch-count": "1",
        }
        connection.send_with_receipt("SUBSCRIBE", headers)
        self._log.info("message broker: waiting for a message on %s", self._destination)

    def _take(self, connection: Connection, frame: Frame) -> None:
        """A message that there is work; one that says something else goes where the broker puts dead letters."""
        ack = frame.headers.get("ack", "")
        try:
            order = read_order(frame.body)
            if order.kind != _GET_JOB:
                raise BadMessage(f"{order.kind} is no order for {self._destination}")
        except BadMessage as exc:
            self._log.warning("message broker: a message on %s is refused: %s", self._destination, exc)
            connection.send_with_receipt("NACK", {"id": ack, "requeue": "false"})
            return
        with self._changed:
            # Nobody waits any more when it came too late.
            verdict = "" if self._wanted else "return"
            self._message = _Message(ack, frame.headers.get("redelivered") == "true", order, verdict)
            self._changed.notify_all()

    def _obey(self, frame: Frame) -> None:
        """An order to end jobs, those of them that are this pilot's."""
        try:
            order = read_order(frame.body)
            if order.kind == _GET_JOB:
                raise BadMessage(f"{order.kind} is no order for {self._commands}")
        except BadMessage as exc:
            self._log.warning("message broker: an order on %s is not obeyed: %s", self._commands, exc)
            return
        pilot = self._context.settings.pilot
        grace = pilot.grace_planned if order.kind == _FINISH_TASK else pilot.grace_on_signal
        for run in self._running():
            if run.jobid == order.jobid or (order.taskid and run.data.taskid == order.taskid):
                text = f"{order.kind} {order.jobid or order.taskid}"
                self._context.recorder.decision("command", job=run.jobid, text=text)
                error = PilotException(f"a message broker's order: {text}", code=ErrorCodes.PANDAKILL)
                self._abort(run, error, grace)
