"""Traces for Rucio: one for each attempt to move a file, in the form that its trace endpoint checks.

They are for statistics and for finding bad storage: what cannot be sent in a few seconds is dropped.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pilot import __version__
from pilot.api.attempts import Attempt
from pilot.common.exception import PilotException
from pilot.info.filespec import REMOTE_IO, FileSpec
from pilot.util.blot import Secrets
from pilot.util.config import RucioSettings
from pilot.util.https import Credentials, HttpClient, Json

TraceReport = Mapping[str, Json]

# eventType of a transfer made by a pilot, by direction; transfers of users' jobs have _a at the end.
EVENT_TYPES = {"in": "get_sm", "out": "put_sm"}
# clientState of a file that the payload reads where it lies.
_FOUND = "FOUND_ROOT"
# Characters of an error that say enough for statistics.
_REASON_LIMIT = 500
# Rucio takes traces from everybody.
_ENDPOINT = "/traces/"


def trace_base(event_type: str, local_site: str, **more: Json) -> dict[str, Json]:
    """What the traces of one stage-in or stage-out have in common. event_type: empty for that of the direction."""
    return {
        "eventType": event_type,
        "eventVersion": f"pilotkit-{__version__}",
        "uuid": uuid.uuid4().hex,
        "localSite": local_site,
        "remoteSite": local_site,
        "timeStart": time.time(),
        **more,
    }


def trace_of(base: TraceReport, spec: FileSpec, attempt: Attempt, now: float) -> dict[str, Json]:
    """The trace of an attempt that has just ended. now: epoch seconds."""
    scope, _, name = spec.dataset.rpartition(":")
    done = _FOUND if spec.status == REMOTE_IO else "DONE"
    return {
        **base,
        "eventType": base.get("eventType") or EVENT_TYPES[attempt.direction],
        "clientState": done if attempt.code == 0 else "FAILED",
        "stateReason": "OK"
        if attempt.code == 0
        else f"{attempt.kind} ({attempt.code}): {attempt.text}"[:_REASON_LIMIT],
        "scope": spec.scope,
        "filename": spec.lfn,
        "datasetScope": scope,
        "dataset": name,
        "guid": spec.guid,
        "filesize": spec.filesize,
        "remoteSite": attempt.endpoint or str(base.get("remoteSite") or ""),
        "protocol": attempt.protocol,
        # What follows a question mark may be a signature, which opens the file to everybody.
        "url": spec.surl.partition("?")[0],
        "transferStart": now - attempt.seconds,
        "transferEnd": now,
        "timeEnd": now,
    }


@dataclass
class Traces:
    """The traces of one client. host: of Rucio, empty when it is not known; ca: directory of CA certificates.

    secrets: what none of them may tell.
    """

    base: TraceReport
    settings: RucioSettings
    host: str
    ca: str
    log: logging.Logger
    secrets: Secrets = field(default_factory=Secrets)
    waiting: list[dict[str, Json]] = field(default_factory=list)

    def note(self, spec: FileSpec, attempt: Attempt) -> None:
        """Keep the trace of an attempt that has just ended."""
        if self.settings.traces:
            # Before anything is cut: half a secret is not recognised any more.
            told = replace(attempt, text=self.secrets.blot(attempt.text))
            trace = trace_of(self.base, spec, told, time.time())
            self.waiting.append({name: self.secrets.blot_all(value) for name, value in trace.items()})

    def send(self) -> None:
        """Send or write what was kept, within the limit of the settings. Nothing is raised."""
        traces, self.waiting = self.waiting, []
        if not traces:
            return
        if self.settings.trace_file:
            self._write(traces)
        elif self.host:
            # Looking up a name has no limit of its own: a thread can be left behind.
            sender = threading.Thread(target=self._post, args=(traces,), name="rucio-traces", daemon=True)
            sender.start()
            sender.join(self.settings.trace_limit)
            if sender.is_alive():
                self.log.warning("traces: %s takes longer than %g s", self.host, self.settings.trace_limit)
        else:
            self.log.debug("traces: none are sent, since no address of Rucio is known")

    def _write(self, traces: list[dict[str, Json]]) -> None:
        try:
            with Path(self.settings.trace_file).open("a", encoding="utf-8") as stream:
                stream.writelines(json.dumps(trace) + "\n" for trace in traces)
        except OSError as exc:
            self.log.warning("traces: %s cannot be written: %s", self.settings.trace_file, exc.strerror)

    def _post(self, traces: list[dict[str, Json]]) -> None:
        limit = self.settings.trace_limit
        deadline = time.monotonic() + limit
        client = HttpClient(Credentials(ca=self.ca), limit, limit, f"pilotkit/{__version__}", self.host)
        sent = 0
        try:
            # One by one: servers before Rucio 36 know no lists.
            while sent < len(traces) and time.monotonic() < deadline:
                client.post_json(f"{self.host}{_ENDPOINT}", traces[sent], headers={})
                sent += 1
        except PilotException as exc:
            self.log.warning("traces: %d of %d not sent: %s", len(traces) - sent, len(traces), exc.diag)
        else:
            self.log.debug("traces: %d of %d sent to %s", sent, len(traces), self.host)
        finally:
            client.close()
