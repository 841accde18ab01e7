"""Errors in words."""

from __future__ import annotations

import pytest

from pilot.common.errorcodes import ERRORS
from server.db.tables import ERROR_SOURCES
from server.logic.explain import DISPATCHER_ERRORS, explain


@pytest.mark.parametrize("key", DISPATCHER_ERRORS)
def test_every_error_of_the_dispatcher_is_explained(key: tuple[str, int]) -> None:
    source, code = key
    found = explain({"jobStatus": "failed", f"{source}ErrorCode": code, f"{source}ErrorDiag": "the numbers"})
    assert found is not None
    assert (found["source"], found["code"], found["diag"]) == (source, code, "the numbers")
    for word in ("name", "message", "blame", "advice"):
        assert found[word]


def test_every_error_of_the_pilot_is_explained() -> None:
    for code in ERRORS:
        for number in (code, -code):
            found = explain({"jobStatus": "failed", "pilotErrorCode": number})
            assert found is not None
            assert found["name"] == ERRORS[code].name
            assert found["advice"]


@pytest.mark.parametrize("source", ERROR_SOURCES)
def test_an_error_nobody_knows_is_explained_too(source: str) -> None:
    found = explain({"jobStatus": "failed", f"{source}ErrorCode": 98765})
    assert found is not None
    assert "98765" in f"{found['name']} {found['message']} {found['code']}"
    assert found["blame"]
    assert found["advice"]


def test_the_dispatchers_own_decision_is_named_before_the_pilots_error() -> None:
    found = explain({"jobDispatcherErrorCode": 100, "pilotErrorCode": 1305})
    assert found is not None
    assert found["name"] == "LOSTHEARTBEAT"


def test_an_exit_code_alone_is_the_payloads() -> None:
    found = explain({"jobStatus": "failed", "transExitCode": 3})
    assert found is not None
    assert (found["source"], found["code"], found["blame"]) == ("trans", 3, "payload")
    assert explain({"jobStatus": "finished", "transExitCode": 0}) is None
    assert explain({"jobStatus": "running"}) is None
