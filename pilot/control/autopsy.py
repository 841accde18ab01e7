"""What became of a job, from the flight recorder: cause, who decided, evidence, blame, timeline, what to try.

`pilot.py --autopsy DIR` prints it, for a pilot that lives, has ended or was killed; the final update carries the same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pilot.common.errorcodes import ErrorCodes, describe
from pilot.util import ownership, recorder
from pilot.util.https import Json
from pilot.util.recorder import Entry

# Who decides with which of the life cycle's events; an Abort is decided by whoever gave the order (see _BY_ORDER).
_BY_EVENT = {
    "Refused": "the pilot, reading the job's definition",
    "StageInFailed": "stage-in",
    "PayloadEnded": "the payload, by its end",
    "StagedOut": "stage-out",
}
_BY_ORDER = {
    ErrorCodes.PANDAKILL: "the server, by a kill order",
    ErrorCodes.KILLPAYLOAD: "whoever made the kill file",
    ErrorCodes.REACHEDMAXTIME: "the pilot, at the end of its time",
    ErrorCodes.INTERNALPILOTPROBLEM: "the pilot, by a fault of its own",
    **dict.fromkeys(
        (
            ErrorCodes.KILLSIGNAL, ErrorCodes.SIGTERM, ErrorCodes.SIGQUIT, ErrorCodes.SIGSEGV, ErrorCodes.SIGXCPU,
            ErrorCodes.SIGBUS, ErrorCodes.SIGUSR1, ErrorCodes.SIGINT, ErrorCodes.PREEMPTION,
        ),
        "the batch system or an administrator, by a signal to the pilot",
    ),
}  # fmt: skip
_BY_LIMIT = "the pilot's monitor, by a limit"
# Ends of a payload that has not begun: its command could not be had or started, or its container did not get so far.
_BY_START = "the pilot, starting the payload"
_BY_RUNTIME = "the container runtime, before the payload began"
# Ends of a payload that somebody else has brought about.
_BY_KILL = {
    ErrorCodes.KILLSIGNAL: "whoever killed the payload's guard: the kernel short of memory, or an administrator",
    ErrorCodes.PAYLOADOUTOFMEMORY: "the kernel, short of memory",
}
# So many of the last entries of each kind are evidence: memory samples, the command of a container, orders.
_SAMPLES = 5


@dataclass(frozen=True)
class Phase:
    """A stretch of a job's life: seconds since the epoch and milliseconds. milliseconds is None while it lasts."""

    name: str
    began: float
    milliseconds: float | None


@dataclass
class Autopsy:
    """What became of one job.

    outcome: finished, failed, holding, "under way", or "killed" for a job whose pilot is gone without a report.
    code, text: the error, 0 and empty without one. decided_by, blame, advice: empty without an error.
    """

    job: str
    attempt: int = 0
    outcome: str = "under way"
    code: int = 0
    name: str = ""
    text: str = ""
    decided_by: str = ""
    blame: str = ""
    advice: str = ""
    delivered: bool | None = None
    evidence: list[str] = field(default_factory=list)
    timeline: list[Phase] = field(default_factory=list)

    def as_json(self) -> dict[str, Json]:
        """For the final update, and for `--autopsy`'s readers that are programs."""
        timeline: list[Json] = [
            {"phase": one.name, "began": round(one.began, 3), "ms": one.milliseconds} for one in self.timeline
        ]
        evidence: list[Json] = list(self.evidence)
        return {
            "job": self.job, "attempt": self.attempt, "outcome": self.outcome, "code": self.code, "name": self.name,
            "text": self.text, "decided_by": self.decided_by, "blame": self.blame, "advice": self.advice,
            "evidence": evidence, "timeline": timeline,
        }  # fmt: skip


def examine(entries: Iterable[Entry], *, alive: bool = True) -> list[Autopsy]:
    """What became of each job that a recorder tells of. alive: whether its pilot still runs."""
    found: dict[str, Autopsy] = {}
    others: dict[str, dict[str, list[Entry]]] = {}
    started: set[str] = set()
    last: dict[str, Entry] = {}
    for entry in entries:
        job = str(entry.get("job", ""))
        if not job:
            continue
        one = found.setdefault(job, Autopsy(job))
        last[job] = entry
        if entry["kind"] == "taken":
            one.attempt = _whole(entry.get("attempt"))
            _begin(one, "received", entry)
        elif entry["kind"] == "event":
            if entry.get("event") == "PayloadStarted":
                started.add(job)
            _take_event(one, entry, _decider(entry, job in started, others.get(job, {})))
        elif entry["kind"] == "reported":
            one.delivered = bool(entry.get("delivered"))
            one.outcome = str(entry.get("state"))
        else:
            others.setdefault(job, {}).setdefault(str(entry["kind"]), []).append(entry)
    for one in found.values():
        one.evidence += [_shown(entry) for kind in others.get(one.job, {}).values() for entry in kind[-_SAMPLES:]]
        if not alive and one.outcome == "under way":
            _killed(one, last[one.job])
    return list(found.values())


def _decider(entry: Entry, started: bool, others: Mapping[str, list[Entry]]) -> str:
    """Who decides with an event. started: the payload, or its container. others: what else is recorded of the job."""
    event = str(entry.get("event"))
    if event == "PayloadEnded" and _whole(entry.get("code")) in _BY_KILL:
        return _BY_KILL[_whole(entry.get("code"))]
    if event == "Abort":
        return _BY_ORDER.get(_whole(entry.get("code")), _BY_LIMIT)
    if event == "PayloadEnded" and not started:
        return _BY_START
    if event == "PayloadEnded" and "container" in others and "contained" not in others:
        return _BY_RUNTIME
    return _BY_EVENT.get(event, "the pilot")


def _take_event(one: Autopsy, entry: Entry, decider: str) -> None:
    event, code, text = str(entry.get("event")), _whole(entry.get("code")), str(entry.get("text", ""))
    if str(entry.get("state")) != str(entry.get("new")):
        _begin(one, str(entry.get("new")), entry)
    if not code:
        return
    if one.code:
        one.evidence.append(f"later, from {event}: {text}")
        return
    info = describe(code)
    one.code, one.name, one.text, one.blame, one.advice = code, info.name, text, info.blame.value, info.advice
    one.decided_by = decider
    one.evidence.append(f"{event} in phase {entry.get('state')}: {text}")


def _killed(one: Autopsy, last: Entry) -> None:
    """The pilot is gone and has told nobody: it was killed, and so was the job, in its last phase."""
    recorded = time.strftime("%H:%M:%S UTC", time.gmtime(_when(last)))
    info = describe(ErrorCodes.KILLSIGNAL)
    phase = one.timeline[-1].name if one.timeline else "received"
    if one.code:
        one.evidence.append(f"the pilot was killed in phase {phase}, before it could report that")
    else:
        one.code, one.name, one.blame, one.advice = info.code, info.name, info.blame.value, info.advice
        one.text = f"the pilot was killed in phase {phase} without a chance to report it"
        one.evidence.append(f"{one.text}: its flight recorder ends with '{last['kind']}' at {recorded}")
        one.decided_by = "whoever killed the pilot: the batch system, the kernel short of memory, or an administrator"
    one.outcome = "killed"


def _begin(one: Autopsy, name: str, entry: Entry) -> None:
    """A phase begins, and the one before it ends."""
    when = _when(entry)
    if one.timeline:
        last = one.timeline[-1]
        one.timeline[-1] = Phase(last.name, last.began, round((when - last.began) * 1000, 3))
    if name != "over":
        one.timeline.append(Phase(name, when, None))


def _when(entry: Entry) -> float:
    when = entry["time"]
    assert isinstance(when, float)  # recorder.read lets nothing else through
    return when


def _whole(value: Json) -> int:
    return value if isinstance(value, int) else 0


def _shown(entry: Mapping[str, Json]) -> str:
    return f"{entry['kind']}: " + ", ".join(f"{k} {v}" for k, v in entry.items() if k not in ("time", "kind", "job"))


def render(one: Autopsy) -> str:
    """For people."""
    lines = [f"job {one.job} (attempt {one.attempt}): {one.outcome}"]
    if one.code:
        lines.append(f"  cause       {one.code} {one.name}: {one.text}")
    for title, text in (("decided by", one.decided_by), ("blame", one.blame), ("what to do", one.advice)):
        if text:
            lines.append(f"  {title:11} {text}")
    if one.delivered is not None:
        lines.append(f"  reported    {'yes' if one.delivered else 'no: it is in the spool for the next pilot'}")
    lines += [f"  {'evidence' if not number else '':11} {text}" for number, text in enumerate(one.evidence)]
    for number, phase in enumerate(one.timeline):
        lasted = "still" if phase.milliseconds is None else f"{phase.milliseconds:.1f} ms"
        lines.append(f"  {'timeline' if not number else '':11} {phase.name:10} {lasted}")
    return "\n".join(lines)


def recordings(directory: Path) -> Sequence[Path]:
    """The recorders' files in a pilot's work directory, or in a directory where pilots have run."""
    return sorted({*directory.glob(recorder.FILE), *directory.glob(f"*/{recorder.FILE}")})


def print_autopsy(directory: Path) -> int:
    """`--autopsy DIR`: print what became of each job; the exit code is 1 when something cannot be told of."""
    files = recordings(directory)
    if not files:
        print(f"pilot.py: no {recorder.FILE} in {directory} or the directories in it", file=sys.stderr)
        return 1
    code = 0
    for path in files:
        try:
            entries = recorder.read(path)
        except (OSError, ValueError) as exc:
            # Where many pilots have run, one that cannot be read says nothing of the others.
            print(f"pilot.py: {exc}", file=sys.stderr)
            code = 1
            continue
        owner = ownership.read_owner(path.parent)
        alive = owner is not None and ownership.lives(owner)
        print(f"{path.parent} (its pilot {'runs' if alive else 'is gone'})")
        for one in examine(entries, alive=alive):
            print(render(one))
    return code
