"""The pilot's exceptions: one family, each with its number in the error table (chapter 7.3.2 of PanDA's documents).

Raise one with a text that says what is wrong and where; the number, who is to blame and the advice come with it.
Whoever catches one needs nothing else to report it: `code` and `diag` are what the server is sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from queue import Queue
from typing import ClassVar

from pilot.common.errorcodes import Blame, ErrorCodes, ErrorInfo, describe


class PilotException(Exception):
    """Base of the pilot's exceptions.

    The text says what is wrong and where, for people; without one the standard text of the code stands in.
    code: pilot error code, for a cause that the class does not tell by itself.
    """

    default_code: ClassVar[int] = ErrorCodes.UNKNOWNEXCEPTION
    """The code of an exception that is raised without one."""

    def __init__(self, *args: object, code: int | None = None, **kwargs: object) -> None:
        """Take the text, whose parts may be other exceptions, and, where it differs from the class's own, the code.

        What else is given by name becomes a part of the text, so that nothing that a plugin says is lost.
        """
        said = [*map(str, args), *(f"{name}={value}" for name, value in kwargs.items())]
        message = ": ".join(text for text in said if text)
        super().__init__(message)
        self.code = self.default_code if code is None else code
        self.diag = message or self.info.message

    @property
    def info(self) -> ErrorInfo:
        """The row of the error table."""
        return describe(self.code)

    @property
    def blame(self) -> Blame:
        """Who is asked first."""
        return self.info.blame

    def __str__(self) -> str:
        """Number, name and text, without saying anything twice: 1099 STAGEINFAILED: Failed to stage-in file: why."""
        text = ErrorCodes.format_diagnostics(self.code, self.diag)
        return f"{self.code} {self.info.name}: {text}"

    def get_error_code(self) -> int:
        """The pilot error code."""
        return self.code

    def get_detail(self) -> str:
        """The text this exception was raised with, or the standard one."""
        return self.diag

    def get_last_error(self) -> str:
        """What went wrong at the very bottom: the text of the innermost cause, or of this exception if it has none."""
        error: BaseException = self
        while error.__cause__ is not None:
            error = error.__cause__
        return error.diag if isinstance(error, PilotException) else str(error) or type(error).__name__


class BadXML(PilotException):
    """An XML document cannot be read."""

    default_code = ErrorCodes.BADXML


class CommunicationFailure(PilotException):
    """A server (the dispatcher, Harvester, ARC ...) does not answer, or not as agreed."""

    default_code = ErrorCodes.COMMUNICATIONFAILURE


class ConversionFailure(PilotException):
    """A value does not have the type it should have."""

    default_code = ErrorCodes.CONVERSIONFAILURE


class ESFatal(PilotException):
    """The event service cannot go on."""

    default_code = ErrorCodes.ESFATAL


class ESNoEvents(PilotException):
    """There are no event ranges left."""

    default_code = ErrorCodes.ESNOEVENTS


class ESRecoverable(PilotException):
    """The event service failed, and another attempt may go well."""

    default_code = ErrorCodes.ESRECOVERABLE


class ExceededMaxWaitTime(PilotException):
    """Something did not end in time after it was told to stop."""

    default_code = ErrorCodes.EXCEEDEDMAXWAITTIME


class ExecutedCloneJob(PilotException):
    """Another copy of this job is done already."""

    default_code = ErrorCodes.EXECUTEDCLONEJOB


class FileHandlingFailure(PilotException):
    """A local file cannot be read, written, moved or removed."""

    default_code = ErrorCodes.FILEHANDLINGFAILURE


class JobAlreadyRunning(PilotException):
    """Another pilot holds this job."""

    default_code = ErrorCodes.JOBALREADYRUNNING


class LogFileCreationFailure(PilotException):
    """The log tarball cannot be made."""

    default_code = ErrorCodes.LOGFILECREATIONFAILURE


class MKDirFailure(PilotException):
    """A local directory cannot be made."""

    default_code = ErrorCodes.MKDIR


class MessageFailure(PilotException):
    """A message from the payload cannot be understood."""

    default_code = ErrorCodes.MESSAGEHANDLINGFAILURE


class NoGridProxy(PilotException):
    """There is no valid X.509 proxy."""

    default_code = ErrorCodes.NOPROXY


class NoLocalSpace(PilotException):
    """The local disk is too full."""

    default_code = ErrorCodes.NOLOCALSPACE


class NoSoftwareDir(PilotException):
    """The software area is not there."""

    default_code = ErrorCodes.NOSOFTWAREDIR


class NoSuchFile(PilotException):
    """A file or directory is not there."""

    default_code = ErrorCodes.NOSUCHFILE


class NoVomsProxy(PilotException):
    """The proxy has no valid VOMS attributes."""

    default_code = ErrorCodes.NOVOMSPROXY


class NotDefined(PilotException):
    """A value that is needed was never set."""

    default_code = ErrorCodes.NOTDEFINED


class NotSameLength(PilotException):
    """Lists that belong together differ in length."""

    default_code = ErrorCodes.NOTSAMELENGTH


class QueuedataFailure(PilotException):
    """The queue description cannot be had."""

    default_code = ErrorCodes.QUEUEDATA


class QueuedataNotOK(PilotException):
    """The queue description is not valid."""

    default_code = ErrorCodes.QUEUEDATANOTOK


class ReplicasNotFound(PilotException):
    """No replica of a file fits this queue."""

    default_code = ErrorCodes.NOREPLICAS


class RunPayloadFailure(PilotException):
    """The payload could not be run, or failed."""

    default_code = ErrorCodes.PAYLOADEXECUTIONFAILURE


class SetupFailure(PilotException):
    """The payload's environment cannot be set up."""

    default_code = ErrorCodes.SETUPFAILURE


class SizeTooLarge(PilotException):
    """The input files are too large together."""

    default_code = ErrorCodes.SIZETOOLARGE


class StageInFailure(PilotException):
    """An input file did not arrive."""

    default_code = ErrorCodes.STAGEINFAILED


class StageOutFailure(PilotException):
    """An output file did not get away."""

    default_code = ErrorCodes.STAGEOUTFAILED


class TrfDownloadFailure(PilotException):
    """The transformation cannot be downloaded."""

    default_code = ErrorCodes.TRFDOWNLOADFAILURE


class UnknownException(PilotException):
    """Something happened that the pilot has no name for."""

    default_code = ErrorCodes.UNKNOWNEXCEPTION


class ExcThread(threading.Thread):
    """A thread that does not lose its exception: it puts it into a bucket, which whoever started the thread empties."""

    def __init__(
        self,
        bucket: Queue[BaseException],
        target: Callable[..., object],
        kwargs: Mapping[str, object],
        name: str,
    ) -> None:
        """Take the bucket for the exception, the function to run, its keyword arguments and the thread's name."""
        super().__init__(target=target, kwargs=kwargs, name=name)
        self._bucket = bucket

    def run(self) -> None:
        """Run the function; what it raises goes into the bucket, with its traceback, and ends the thread."""
        try:
            super().run()
        # The thread's top. SystemExit, which threads otherwise swallow, is handed over as well.
        except BaseException as error:
            self._bucket.put(error)

    def get_bucket(self) -> Queue[BaseException]:
        """The bucket: empty, or with the exception that ended the thread."""
        return self._bucket


def is_python3() -> bool:
    """Whether this is Python 3, which it is; scripts from the time of two Pythons ask."""
    return True
