"""The error table: for every pilot error code its text, who is to blame, what to do, and the pilot's exit code for it.

The texts are those that PanDA monitors have shown for years, so that people and scripts still recognise them. The blame
decides who is asked first, and what the dispatcher does with the attempt. The advice is read by a tired person:
one sentence, what to look at or do first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from pilot.common.errornumbers import ErrorNumbers
from pilot.common.errortexts import ERROR_TEXTS


class Blame(str, Enum):
    """Who can mend an error: the one to ask first."""

    PAYLOAD = "payload"  # the program that the job runs
    SITE = "site"  # the worker node and what its admin installs and configures, the queue description included
    STORAGE = "storage"  # storage elements, replica catalogues and the network to them
    PILOT = "pilot"  # this software
    SERVER = "server"  # the dispatcher
    BATCH = "batch"  # the batch system: its limits, its signals
    USER = "user"  # whoever submitted the job: its definition, its files, a kill on request

    def __str__(self) -> str:
        """The plain word, so that log lines read well on every Python version."""
        return self.value


@dataclass(frozen=True)
class ErrorInfo:
    """One row of the error table."""

    code: int
    """Pilot error code, as sent to the dispatcher in pilotErrorCode."""
    name: str
    """Attribute name in ErrorCodes."""
    message: str
    """Standard text, the beginning of pilotErrorDiag."""
    blame: Blame
    """Who is asked first."""
    advice: str
    """One sentence: what to do next."""
    shell_code: int
    """What pilot.py exits with when this error ends the pilot."""


# Exit code for an error without one of its own, and for numbers that are not in the table.
SHELL_CODE_OTHER = 1

# Exit codes of pilot.py that wrappers, batch systems and Harvester know (64 to 83 as sysexits.h begins; 128 + signal
# number for signals). Where several errors share one, the first is what the exit code is translated back to.
_SHELL_CODES = (
    ("CVMFSISNOTALIVE", 64),
    ("GENERALERROR", 65),
    ("MKDIR", 66),
    ("NOSUCHFILE", 67),
    ("NOVOMSPROXY", 68),
    ("NOPROXY", 68),
    ("CERTIFICATEHASEXPIRED", 68),
    ("NOLOCALSPACE", 69),
    ("UNKNOWNEXCEPTION", 70),
    ("QUEUEDATA", 71),
    ("QUEUEDATANOTOK", 72),
    ("NOSOFTWAREDIR", 73),
    ("JSONRETRIEVALTIMEOUT", 74),
    ("BLACKHOLE", 75),
    ("MIDDLEWAREIMPORTFAILURE", 76),
    ("MISSINGINPUTFILE", 77),
    ("PANDAQUEUENOTACTIVE", 78),
    ("COMMUNICATIONFAILURE", 79),
    ("PROXYTOOSHORT", 80),
    ("REACHEDMAXTIME", 81),
    ("NOJOBSINPANDA", 82),
    ("PANDAQUEUENOTONLINE", 83),
    ("KILLSIGNAL", 137),
    ("SIGTERM", 143),
    ("SIGQUIT", 131),
    ("SIGSEGV", 139),
    ("SIGXCPU", 152),
    ("SIGBUS", 135),
    ("SIGUSR1", 138),
    ("SIGINT", 130),
)


def _read_table() -> Iterator[ErrorInfo]:
    """The rows of the table; a name without a number, or a row without its parts, fails at import."""
    shell_codes = dict(_SHELL_CODES)
    lines = iter(ERROR_TEXTS.strip().splitlines())
    for head in lines:
        title, message = head.split(": ", 1)
        name, blame = title.split()
        yield ErrorInfo(
            code=getattr(ErrorNumbers, name),
            name=name,
            message=message,
            blame=Blame(blame),
            advice=next(lines).strip(),
            shell_code=shell_codes.get(name, SHELL_CODE_OTHER),
        )


ERRORS: Mapping[int, ErrorInfo] = MappingProxyType({info.code: info for info in _read_table()})
"""Every pilot error by its code."""

# Codes from which a shell code is translated back, the first of those that share one.
_PILOT_CODES = {shell_code: getattr(ErrorNumbers, name) for name, shell_code in reversed(_SHELL_CODES)}


def describe(code: int) -> ErrorInfo:
    """What is known about a pilot error code.

    Legacy servers are sent a recoverable error as a negative number; its row is that of the positive one.
    A code that is not in the table gets a row of its own with a text that says so, so that nobody has to check first.
    """
    info = ERRORS.get(abs(code))
    if info is not None:
        return info
    return ErrorInfo(
        code=code,
        name="UNKNOWNERRORCODE",
        message=f"Error code {code} is not known to this version of the pilot",
        blame=Blame.PILOT,
        advice="Read the job's log for the reason; the code may come from a newer pilot or another experiment.",
        shell_code=SHELL_CODE_OTHER,
    )


def shell_exit_code(code: int) -> int:
    """The exit code of pilot.py for a pilot error code: 0 for 0, and 1 for an error that has none of its own."""
    return 0 if code == 0 else describe(code).shell_code


def convert_to_pilot_error_code(shell_code: int) -> int:
    """The pilot error code that an exit code of pilot.py stands for; Harvester asks this of failed workers.

    0 gives 0. An exit code that no error has for itself (1 among them) gives GENERALERROR, since the pilot did fail.
    """
    return 0 if shell_code == 0 else _PILOT_CODES.get(shell_code, ErrorNumbers.GENERALERROR)
