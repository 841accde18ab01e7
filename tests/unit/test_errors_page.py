"""The table of injected faults is complete, and docs/errors.md shows it as it is."""

from __future__ import annotations

from collections import Counter

import pytest

from pilot.common.errorcodes import ERRORS, Blame, ErrorCodes
from server.logic.explain import DISPATCHER_ERRORS
from tests.errors_page import PAGE, render
from tests.injected.fault import Fault
from tests.injected.table import FAULTS

# Codes that say nothing but that something went wrong: no fault that anybody has thought of may end with one.
CATCH_ALL = frozenset(
    {
        ErrorCodes.GENERALERROR, ErrorCodes.UNKNOWNPAYLOADFAILURE, ErrorCodes.UNKNOWNEXCEPTION,
        ErrorCodes.UNKNOWNTRFFAILURE, ErrorCodes.PAYLOADEXECUTIONEXCEPTION,
    }
)  # fmt: skip


def test_the_page_of_errors_is_what_the_tables_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "write it anew: python -m tests.errors_page"


def test_there_are_faults_enough_and_of_everybody() -> None:
    assert len(FAULTS) >= 100
    assert {fault.blame for fault in FAULTS} == {blame.value for blame in Blame}
    assert [name for name, times in Counter(fault.name for fault in FAULTS).items() if times > 1] == []
    assert len({fault.code for fault in FAULTS}) >= 60


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_no_fault_ends_without_a_name_or_with_nothing_said(fault: Fault) -> None:
    assert fault.code in ERRORS and fault.code not in CATCH_ALL
    assert ERRORS[fault.code].blame.value == fault.blame
    assert fault.name and fault.how and fault.said and all(fault.said)
    assert fault.decided_by or fault.job is None or not fault.told


def test_every_code_has_somebody_to_blame_and_something_to_do() -> None:
    for info in (*ERRORS.values(), *DISPATCHER_ERRORS.values()):
        assert info.blame in set(Blame) and info.message, info
        assert len(info.advice.split()) >= 5 and info.advice[0].isupper(), info
