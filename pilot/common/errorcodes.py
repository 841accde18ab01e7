"""The pilot's error codes and the documented helpers around them (chapter 7.3.2 of the PanDA documentation).

`ErrorCodes.STAGEINFAILED` is a number; `describe(number)` tells its text, who is to blame and what to do. The lists of
errors that the helpers take belong to a job: nothing is remembered in here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from signal import SIGSEGV

from pilot.common.errornumbers import ErrorNumbers
from pilot.common.errortable import (
    ERRORS,
    Blame,
    ErrorInfo,
    convert_to_pilot_error_code,
    describe,
    shell_exit_code,
)

__all__ = [
    "ERRORS",
    "Blame",
    "ErrorCodes",
    "ErrorInfo",
    "convert_to_pilot_error_code",
    "describe",
    "shell_exit_code",
]

# Characters of pilotErrorDiag that a server keeps (wire.md, section 4: diags are cut at 500).
MAX_DIAG_LENGTH = 500

# Exit codes of a program that died of SIGSEGV: from a shell (128 + 11) and from a parent process (-11).
_SEGFAULT_EXIT_CODES = (128 + SIGSEGV, -SIGSEGV)

# How the container runtime (singularity, now apptainer) begins the lines that say why it gave up. Only such lines
# count: a payload may print the same words about something of its own.
_RUNTIME = r"^(?:FATAL|ERROR|ABORT)\s*:.*"

# What is recognised in the stderr of a payload that has started a container by itself, the most telling pattern first.
_CONTAINER_PATTERNS = (
    (r"\bapptainer: (?:command )?not found", ErrorNumbers.APPTAINERNOTINSTALLED),
    (r"\bsingularity: (?:command )?not found", ErrorNumbers.SINGULARITYNOTINSTALLED),
    (
        _RUNTIME + r"no (?:more available )?loop devices",
        ErrorNumbers.SINGULARITYNOLOOPDEVICES,
    ),
    (
        _RUNTIME + r"failed invoking the NEWUSER namespace",
        ErrorNumbers.SINGULARITYNEWUSERNAMESPACE,
    ),
    (
        _RUNTIME + r"failed to create user namespace",
        ErrorNumbers.SINGULARITYFAILEDUSERNAMESPACE,
    ),
    (
        _RUNTIME + r"resource temporarily unavailable",
        ErrorNumbers.SINGULARITYRESOURCEUNAVAILABLE,
    ),
    (_RUNTIME + r"could not open image .*no such file", ErrorNumbers.IMAGENOTFOUND),
    (
        _RUNTIME + r"(?:failed to mount|while mounting) image",
        ErrorNumbers.SINGULARITYIMAGEMOUNTFAILURE,
    ),
    (
        _RUNTIME + r"not mounting requested bind point",
        ErrorNumbers.SINGULARITYBINDPOINTFAILURE,
    ),
    (
        _RUNTIME + r"destination .* doesn't exist in container",
        ErrorNumbers.SINGULARITYBINDPOINTFAILURE,
    ),
    (
        r"^FATAL:   ",
        ErrorNumbers.SINGULARITYGENERALFAILURE,
    ),  # three blanks: the runtime pads its levels to one width
)
# The same for every payload.
_STDERR_PATTERNS = (
    (r"\bbad_alloc\b", ErrorNumbers.BADALLOC),
    (r"SIGSEGV: .*invalid memory reference", ErrorNumbers.PAYLOADSIGSEGV),
    (r"error: unrecognized arguments:", ErrorNumbers.UNRECOGNIZEDTRFARGUMENTS),
    # ENOSPC and EDQUOT as the C library words them.
    (r"No space left on device|Disk quota exceeded", ErrorNumbers.NOLOCALSPACE),
)


class ErrorCodes(ErrorNumbers):
    """The error codes as attributes, and the helpers that deal with a job's list of errors.

    The helpers take a job's two lists, codes and diagnostics, which belong together item by item. They change the lists
    they are given and return them; without lists they return new ones.
    """

    put_error_codes = (1135, 1136, 1137, 1141, 1152, 1181)
    """Stage-out errors after which the data is still on the node: a user job is reported as holding."""

    recoverable_error_codes = (0, *put_error_codes)
    """Codes after which a job may still end well."""

    @staticmethod
    def add_error_code(
        errorcode: int,
        pilot_error_codes: list[int] | None = None,
        pilot_error_diags: list[str] | None = None,
        priority: bool = False,
        msg: str | None = None,
    ) -> tuple[list[int], list[str]]:
        """Add an error to a job's lists; one that is there already stays as it is, since its first text is the cause.

        With priority the error goes to the front, which makes it the one that the server is told.
        msg is a text that says more than the standard one.
        """
        codes = [] if pilot_error_codes is None else pilot_error_codes
        diags = [] if pilot_error_diags is None else pilot_error_diags
        if errorcode not in codes:
            place = 0 if priority else len(codes)
            codes.insert(place, errorcode)
            diags.insert(place, msg or describe(errorcode).message)
        return codes, diags

    @staticmethod
    def remove_error_code(
        errorcode: int,
        pilot_error_codes: list[int] | None = None,
        pilot_error_diags: list[str] | None = None,
    ) -> tuple[list[int], list[str]]:
        """Take an error and its text out of a job's lists; nothing happens if it is not there."""
        codes = [] if pilot_error_codes is None else pilot_error_codes
        diags = [] if pilot_error_diags is None else pilot_error_diags
        if errorcode in codes:
            place = codes.index(errorcode)
            del codes[place], diags[place : place + 1]
        return codes, diags

    @staticmethod
    def report_errors(pilot_error_codes: Sequence[int], pilot_error_diags: Sequence[str]) -> str:
        """The errors of a job as text for the log, one a line in the order in which they are reported."""
        if not pilot_error_codes:
            return "No errors."
        lines = [f"{len(pilot_error_codes)} error(s); the first is the one that is reported:"]
        for number, (code, diag) in enumerate(zip(pilot_error_codes, pilot_error_diags), start=1):
            info = describe(code)
            lines.append(f"  {number}. {code} {info.name} ({info.blame}): {diag}")
        return "\n".join(lines)

    @staticmethod
    def get_error_message(errorcode: int) -> str:
        """The standard text of an error code; a code that is not in the table gets a text that says so."""
        return describe(errorcode).message

    @classmethod
    def get_kill_signal_error_code(cls, signal: str) -> int:
        """The error code for the name of a signal that ended the job ("SIGTERM" gives 1201); KILLSIGNAL for others."""
        named = (
            "SIGTERM",
            "SIGQUIT",
            "SIGSEGV",
            "SIGXCPU",
            "SIGBUS",
            "SIGUSR1",
            "SIGINT",
        )
        code: int = getattr(cls, signal) if signal in named else cls.KILLSIGNAL
        return code

    @staticmethod
    def format_diagnostics(code: int, diag: str) -> str:
        """The text for pilotErrorDiag: the standard text, then the diagnostics, in at most 500 characters.

        Of diagnostics that are too long the tail is kept, because that is where commands say why they failed.
        """
        message = describe(code).message
        detail = diag.strip()
        if detail.startswith(message):
            detail = detail[len(message) :].lstrip(": ")
        if not detail:
            return message
        room = MAX_DIAG_LENGTH - len(message) - len(": ")
        if len(detail) > room:
            detail = "..." + detail[len("...") - room :]
        return f"{message}: {detail}"

    @classmethod
    def extract_stderr_error(cls, stderr: str) -> str:
        """What the first line of a payload's stderr that reports an error says; empty if there is none."""
        return cls.get_message_for_pattern(
            [r"^\s*(?:FATAL|ERROR)\s*:\s*(.+)", r"\b(?:FATAL|ERROR)\b[\s:]*(.+)"],
            stderr,
        )

    @classmethod
    def extract_stderr_warning(cls, stderr: str) -> str:
        """What the first line of a payload's stderr that warns says; empty if there is none."""
        return cls.get_message_for_pattern([r"^\s*WARNING\s*:\s*(.+)", r"\bWARNING\b[\s:]*(.+)"], stderr)

    @staticmethod
    def get_message_for_pattern(patterns: Sequence[str], stderr: str) -> str:
        """The text that the first matching pattern finds in stderr: its first group, or all of it if it has none.

        patterns are regular expressions; ^ and $ stand for the ends of a line. Empty if nothing matches.
        """
        for pattern in patterns:
            found = re.search(pattern, stderr, re.MULTILINE)
            if found:
                text = found.group(1) if found.groups() else found.group()
                return (text or "").strip()  # a group that took no part in the match is None
        return ""

    @classmethod
    def is_recoverable(cls, code: int = 0) -> bool:
        """Whether a job with this error may still end well; the sign, by which legacy servers are told, is ignored."""
        return abs(code) in cls.recoverable_error_codes

    @classmethod
    def resolve_transform_error(cls, exit_code: int, stderr: str, *, contained: bool = False) -> int:
        """The pilot error code for how a payload ended; 0 for exit code 0.

        What stderr says is more telling than the exit code. Without a known pattern a program that died of SIGSEGV
        gives PAYLOADSIGSEGV, any other one PAYLOADEXECUTIONFAILURE: the number itself goes into transExitCode.
        contained: the payload has begun in a container of the pilot's, so what it says of containers is its own affair.
        """
        if exit_code == 0:
            return 0
        for pattern, code in _STDERR_PATTERNS if contained else (*_CONTAINER_PATTERNS, *_STDERR_PATTERNS):
            if re.search(pattern, stderr, re.MULTILINE | re.IGNORECASE):
                return code
        return cls.PAYLOADSIGSEGV if exit_code in _SEGFAULT_EXIT_CODES else cls.PAYLOADEXECUTIONFAILURE
