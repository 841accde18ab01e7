"""Errors in words: which of a job's error codes is the reason, who is to blame, what to do next.

Pilot codes are explained by the pilot's own table; the dispatcher's codes by the one here. Their numbers are those of
wire.md, section 7, and of PanDA's monitors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pilot.common.errorcodes import Blame, describe

LOST_HEARTBEAT = 100
RECOVERY_FAILED = 101
SENT_TIMEOUT = 102
HOLDING_TIMEOUT = 103
TRANSFERRING_TIMEOUT = 104
STATE_TIMEOUT = 105

KILLED = 100
EXPIRED = 101
INPUT_LOST = 110
INPUT_UNKNOWN = 111

REPORT_UNREADABLE = 200
OUTPUT_MISSING = 201
OUTPUT_INSANE = 202
PREPARATION_FAILED = 203
TRANSFER_FAILED = 204
INPUT_NOT_MOVED = 205


@dataclass(frozen=True)
class Explanation:
    """An error code of the dispatcher: its name, message, who is to blame, and what to do."""

    name: str
    message: str
    blame: Blame
    advice: str


#: (source, code) -> explanation.
DISPATCHER_ERRORS: Mapping[tuple[str, int], Explanation] = {
    ("jobDispatcher", LOST_HEARTBEAT): Explanation(
        "LOSTHEARTBEAT",
        "lost heartbeat: the pilot was silent for too long",
        Blame.SITE,
        "Look at the worker node and at the batch log: the pilot was killed, or could not reach this server.",
    ),
    ("jobDispatcher", RECOVERY_FAILED): Explanation(
        "RECOVERYFAILED",
        "the pilot reported a problem with the outputs and nobody recovered them",
        Blame.STORAGE,
        "Look at the pilot's own error text and at the storage it names; then submit the job again.",
    ),
    ("jobDispatcher", SENT_TIMEOUT): Explanation(
        "SENTTIMEOUT",
        "the job was handed out and never heard of again",
        Blame.SITE,
        "The pilot died or lost its network right after it took the job: look at the batch log of that node.",
    ),
    ("jobDispatcher", HOLDING_TIMEOUT): Explanation(
        "HOLDINGTIMEOUT",
        "the final report did not come",
        Blame.SITE,
        "The pilot left the job in holding and did not come back; look at its log, then submit the job again.",
    ),
    ("jobDispatcher", TRANSFERRING_TIMEOUT): Explanation(
        "TRANSFERRINGTIMEOUT",
        "the outputs did not arrive in time",
        Blame.STORAGE,
        "Look at the storage the outputs go to, then submit the job again.",
    ),
    ("jobDispatcher", STATE_TIMEOUT): Explanation(
        "STATETIMEOUT",
        "the job was in one state for longer than a job may be",
        Blame.SITE,
        "Look for the state in the text above: the batch system may not have started the pilot, or the payload hangs.",
    ),
    ("taskBuffer", KILLED): Explanation(
        "KILLED",
        "the job was killed on request",
        Blame.USER,
        "Nothing to do: somebody asked for it.",
    ),
    ("taskBuffer", EXPIRED): Explanation(
        "EXPIRED",
        "the job waited for too long and was closed before it ran",
        Blame.SITE,
        "See with `pilotkit queue list` whether the queue is online, and whether its pilots may take such a job.",
    ),
    ("taskBuffer", INPUT_LOST): Explanation(
        "INPUTLOST",
        "an input will never exist",
        Blame.USER,
        "Look at the job that should have produced it, mend that, and submit both again.",
    ),
    ("taskBuffer", INPUT_UNKNOWN): Explanation(
        "INPUTUNKNOWN",
        "no job makes an input",
        Blame.USER,
        "Check the name and scope of the input; a file that exists is given with its endpoint, size and checksum.",
    ),
    ("ddm", REPORT_UNREADABLE): Explanation(
        "REPORTUNREADABLE",
        "the pilot's list of output files cannot be read",
        Blame.PILOT,
        "Send the pilot's log and the text above to the people who develop it.",
    ),
    ("ddm", OUTPUT_MISSING): Explanation(
        "OUTPUTMISSING",
        "an expected output is not in the pilot's list of files",
        Blame.PAYLOAD,
        "Check in the job's log that the payload wrote the file, and that the stage-out worked.",
    ),
    ("ddm", OUTPUT_INSANE): Explanation(
        "OUTPUTINSANE",
        "the pilot's description of an output makes no sense",
        Blame.PILOT,
        "Send the pilot's log and the text above to the people who develop it.",
    ),
    ("ddm", PREPARATION_FAILED): Explanation(
        "PREPARATIONFAILED",
        "the inputs cannot be prepared",
        Blame.USER,
        "Look at the text above, which is the word of the VO's own setupper.",
    ),
    ("ddm", TRANSFER_FAILED): Explanation(
        "TRANSFERFAILED",
        "an output was stored where the job ran and did not reach its destination",
        Blame.STORAGE,
        "Look at the storage that the text above names, then submit the job again.",
    ),
    ("ddm", INPUT_NOT_MOVED): Explanation(
        "INPUTNOTMOVED",
        "an input did not reach the storage of the queue",
        Blame.STORAGE,
        "Look at the storage of the queue and at the text above, then submit the job again.",
    ),
}

#: Where to look for the reason, the most telling first: this server's own decision, then the pilot's, then the rest.
_SOURCES = ("jobDispatcher", "taskBuffer", "pilot", "exe", "ddm", "sup", "brokerage")


def explain(job: Mapping[str, object]) -> dict[str, object] | None:
    """The reason why a job failed or was cancelled.

    Args:
        job: its columns.

    Returns:
        source, code, name, message, diag, blame and advice; None if the job has no error.
    """
    for source in _SOURCES:
        code = job.get(f"{source}ErrorCode")
        if isinstance(code, int) and code:
            return _explained(source, code, job)
    exit_code = job.get("transExitCode")
    if isinstance(exit_code, int) and exit_code and job.get("jobStatus") == "failed":
        return {
            "source": "trans",
            "code": exit_code,
            "name": "PAYLOADEXITCODE",
            "message": f"the payload ended with exit code {exit_code}",
            "diag": "",
            "blame": str(Blame.PAYLOAD),
            "advice": "Look at payload.stderr in the job's log.",
        }
    return None


def _explained(source: str, code: int, job: Mapping[str, object]) -> dict[str, object]:
    diag = job.get(f"{source}ErrorDiag") or ""
    known = DISPATCHER_ERRORS.get((source, code))
    if known is not None:
        name, message, blame, advice = known.name, known.message, known.blame, known.advice
    elif source == "pilot":
        info = describe(abs(code))  # a legacy server is sent recoverable stage-out errors as negative numbers
        name, message, blame, advice = info.name, info.message, info.blame, info.advice
    elif source == "exe":
        name, message, blame = "PAYLOADERROR", "the payload reported an error of its own", Blame.PAYLOAD
        advice = "Look at the payload's own log in the job's log."
    else:
        name, message, blame = f"{source.upper()}{code}", f"{source} error {code}", Blame.SERVER
        advice = "Look at this server's log."
    return {
        "source": source,
        "code": code,
        "name": name,
        "message": message,
        "diag": diag,
        "blame": str(blame),
        "advice": advice,
    }
