"""The dispatcher's event service as the pilot uses it (wire.md, section 6): ranges are asked for, and told about."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from pilot.common.exception import PilotException
from pilot.control.dispatcher import Dispatcher
from pilot.info.jobdata import JobData
from pilot.util.https import Json, RequestFailed, parse_json

if TYPE_CHECKING:
    from pilot.control.jobrun import JobRun
    from pilot.info.filespec import FileSpec

# Version of the list that updateEventRanges takes: groups of ranges, each with the archive that their outputs are in.
_VERSION = 1
# v1 servers of release 1.0 do what update_event_ranges asks for and then fail to say so.
_DONE_ALL_THE_SAME = 500

Group = Mapping[str, Json]


@dataclass(frozen=True)
class RangesAnswer:
    """Answer to an update of ranges.

    taken: for each range whether it was, None where the server does not say. command: an order for the job, or empty.
    """

    taken: Sequence[bool | None] = ()
    command: str = ""


@dataclass(frozen=True)
class EventHelpers:
    """What event ranges need of other controllers.

    save: takes files of a job to storage, until the event is set, and raises PilotException; abort: ends a job for a
    reason, with a grace in seconds.
    """

    save: Callable[[JobRun, list[FileSpec], threading.Event], None]
    abort: Callable[[JobRun, PilotException, float], None]


class EventSource:
    """Client of the event service of one dispatcher. Safe to use from several threads. timeout: of a call (s)."""

    def __init__(self, dispatcher: Dispatcher, timeout: float) -> None:
        self._dispatcher = dispatcher
        self._timeout = timeout

    def get(self, job: JobData, number: int) -> list[dict[str, Json]]:
        """New event ranges for a job, at most so many; empty when there are no more. Raises RequestFailed."""
        arguments: dict[str, Json] = {
            "pandaID": job.jobid,
            "jobsetID": job.jobsetid or "0",
            "taskID": job.taskid or "0",
            "nRanges": number,
        }
        answer = self._dispatcher.call_events(
            "getEventRanges", "event/acquire_event_ranges", arguments, job.claim, self._timeout
        )
        found = _unpacked(answer.get("eventRanges"))
        if not isinstance(found, list):
            raise RequestFailed("the server's answer has no list of event ranges", temporary=False)
        return [one for one in found if isinstance(one, dict) and isinstance(one.get("eventRangeID"), str)]

    def update(self, job: JobData, groups: Sequence[Group]) -> RangesAnswer:
        """Tell what became of ranges, in groups {eventRanges: [{eventRangeID, eventStatus, …}], zipFile: {…}}.

        May be repeated. Raises RequestFailed; whether it is temporary stands in the exception.
        """
        arguments: dict[str, Json] = {"eventRanges": json.dumps([dict(one) for one in groups]), "version": _VERSION}
        try:
            answer = self._dispatcher.call_events(
                "updateEventRanges", "event/update_event_ranges", arguments, job.claim, self._timeout
            )
        except RequestFailed as exc:
            other = self._dispatcher.api == "v1" and not self._dispatcher.is_pilotkit
            if exc.status == _DONE_ALL_THE_SAME and other:
                return RangesAnswer()
            raise
        taken, commands = _unpacked(answer.get("Returns")), _unpacked(answer.get("Command"))
        command = commands.get(job.jobid) if isinstance(commands, dict) else None
        return RangesAnswer(
            [one if isinstance(one, bool) else None for one in taken] if isinstance(taken, list) else (),
            str(command or ""),
        )

    @property
    def knows_places(self) -> bool:
        """Whether the server keeps where an archive is: other servers have found no use for more than its name."""
        return self._dispatcher.is_pilotkit


def _unpacked(value: Json) -> Json:
    """Lists and objects come as JSON texts in legacy answers."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError:
        return None
