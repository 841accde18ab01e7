"""The exceptions: each carries its code, its text and whom to ask."""

from __future__ import annotations

import pickle
import queue
import threading

import pytest

from pilot.common import exception
from pilot.common.errorcodes import Blame, ErrorCodes
from pilot.common.exception import (
    ExcThread,
    NoLocalSpace,
    PilotException,
    StageInFailure,
    StageOutFailure,
    UnknownException,
)

# The names that chapter 7.3.2 documents, with the code of each.
DOCUMENTED = {
    "BadXML": 1247,
    "CommunicationFailure": 1318,
    "ConversionFailure": 1302,
    "ESFatal": 1228,
    "ESNoEvents": 1238,
    "ESRecoverable": 1224,
    "ExceededMaxWaitTime": 1317,
    "ExecutedCloneJob": 1234,
    "FileHandlingFailure": 1303,
    "JobAlreadyRunning": 1336,
    "LogFileCreationFailure": 1320,
    "MKDirFailure": 1199,
    "MessageFailure": 1240,
    "NoGridProxy": 1163,
    "NoLocalSpace": 1098,
    "NoSoftwareDir": 1186,
    "NoSuchFile": 1103,
    "NoVomsProxy": 1177,
    "NotDefined": 1311,
    "NotSameLength": 1312,
    "PilotException": 1301,
    "QueuedataFailure": 1116,
    "QueuedataNotOK": 1117,
    "ReplicasNotFound": 1326,
    "RunPayloadFailure": 1305,
    "SetupFailure": 1110,
    "SizeTooLarge": 1168,
    "StageInFailure": 1099,
    "StageOutFailure": 1137,
    "TrfDownloadFailure": 1149,
    "UnknownException": 1301,
}


@pytest.mark.parametrize(("name", "code"), DOCUMENTED.items())
def test_a_documented_exception_has_its_code(name: str, code: int) -> None:
    error = getattr(exception, name)("what is wrong")
    assert isinstance(error, PilotException)
    assert (error.code, error.get_error_code(), error.diag) == (code, code, "what is wrong")


def test_an_exception_without_a_text_has_the_standard_one() -> None:
    error = NoLocalSpace()
    assert error.diag == error.get_detail() == "Not enough local space"
    assert str(error) == "1098 NOLOCALSPACE: Not enough local space"


def test_an_exception_reads_well_in_a_log() -> None:
    assert str(StageInFailure("no route to host")) == "1099 STAGEINFAILED: Failed to stage-in file: no route to host"


def test_a_code_of_its_own_wins_over_the_class() -> None:
    error = StageOutFailure("quota exceeded at DISK_A", code=ErrorCodes.NOREMOTESPACE)
    assert error.code == 1333
    assert str(error) == "1333 NOREMOTESPACE: No space left on device: quota exceeded at DISK_A"


def test_an_exception_says_whom_to_ask_and_what_to_do() -> None:
    error = StageInFailure("x")
    assert error.blame is Blame.STORAGE
    assert error.info.advice.startswith("Look up the file and endpoint")


def test_the_last_error_is_the_innermost_cause() -> None:
    try:
        try:
            raise ConnectionRefusedError("refused by 127.0.0.1:1094")
        except OSError as cause:
            raise StageInFailure("xrdcp failed") from cause
    except StageInFailure as error:
        assert error.get_last_error() == "refused by 127.0.0.1:1094"
        assert error.get_detail() == "xrdcp failed"
    assert UnknownException("alone").get_last_error() == "alone"


def test_an_exception_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(StageOutFailure("quota", code=1333)))
    assert (type(error), error.code, error.diag, str(error)) == (
        StageOutFailure,
        1333,
        "quota",
        "1333 NOREMOTESPACE: No space left on device: quota",
    )


def test_a_thread_hands_its_exception_to_the_bucket() -> None:
    def fail(text: str) -> None:
        raise NoLocalSpace(text)

    bucket: queue.Queue[BaseException] = queue.Queue()
    thread = ExcThread(bucket=bucket, target=fail, kwargs={"text": "2 MB left"}, name="monitor")
    thread.start()
    thread.join()
    error = thread.get_bucket().get_nowait()
    assert isinstance(error, NoLocalSpace) and error.diag == "2 MB left"
    assert error.__traceback__ is not None
    assert thread.name == "monitor"


def test_a_thread_that_exits_hands_that_over_as_well() -> None:
    bucket: queue.Queue[BaseException] = queue.Queue()
    thread = ExcThread(bucket=bucket, target=exit, kwargs={"code": 3}, name="exits")
    thread.start()
    thread.join()
    assert isinstance(bucket.get_nowait(), SystemExit)


def test_a_thread_that_ends_well_leaves_its_bucket_empty() -> None:
    done = threading.Event()
    thread = ExcThread(bucket=queue.Queue(), target=done.set, kwargs={}, name="well")
    thread.start()
    thread.join()
    assert done.is_set() and thread.get_bucket().empty()


def test_a_text_may_have_parts_and_facts_by_name() -> None:
    error = exception.FileHandlingFailure(OSError("disk gone"), "", 5, code=1098, state="COPY_FAIL")
    assert error.diag == "disk gone: 5: state=COPY_FAIL" and error.code == 1098
    assert exception.FileHandlingFailure(OSError()).diag == exception.FileHandlingFailure().diag
    assert "disk gone" in str(error)
