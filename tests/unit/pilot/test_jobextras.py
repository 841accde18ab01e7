"""What a definition asks for around the payload, and what of it is refused."""

from __future__ import annotations

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import ConversionFailure, PilotException
from pilot.info.jobdata import JobData
from pilot.info.jobextras import read_command, read_container_options, read_lists, read_secrets
from pilot.util.https import Json
from tests.unit.pilot.builders import definition

C = ErrorCodes


@pytest.mark.parametrize("nothing", [None, "", "NULL", "None", {}, []])
def test_a_job_without_commands_around_its_payload_has_none(nothing: Json) -> None:
    assert read_command(nothing, "preprocess") == {}
    assert read_secrets(nothing) == {} and read_container_options(nothing) == {}


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ({"command": "sh", "args": "-c 'echo x'"}, {"command": "sh", "args": "-c 'echo x'"}),
        ({"command": "http://s:1/trf/user/run"}, {"command": "http://s:1/trf/user/run", "args": ""}),
        ({"command": "./x", "args": None, "label": "y"}, {"command": "./x", "args": ""}),
        ({"command": "x", "args": ["a", 1]}, {"command": "x", "args": "a 1"}),
        ('{"command": "x", "args": "y"}', {"command": "x", "args": "y"}),
    ],
)
def test_a_command_is_taken_as_an_object_and_as_its_text(raw: Json, wanted: dict[str, Json]) -> None:
    assert read_command(raw, "coprocess") == wanted


@pytest.mark.parametrize(
    "raw",
    [
        7,
        True,
        "sh -c x",
        ["sh"],
        {"args": "x"},
        {"command": ""},
        {"command": ["sh"]},
        {"command": "sh; rm"},
        {"command": "$(sh)"},
        {"command": "a\nb"},
        {"command": "x" * 3000},
        {"command": "sh", "args": {"a": 1}},
        {"command": "sh", "args": "a\0b"},
        {"command": "sh", "args": "\ud800"},
        {"command": "sh", "args": "x" * 200_000},
    ],
)
def test_what_is_no_command_refuses_the_job_and_names_the_field(raw: Json) -> None:
    with pytest.raises(ConversionFailure, match="field postprocess: "):
        JobData(definition(postprocess=raw))


def test_secrets_come_as_text_or_object_and_show_nowhere() -> None:
    for raw in ('{"KEY": "hunter2"}', {"KEY": "hunter2"}):
        job = JobData(definition(secrets=raw))
        assert job.secrets == {"KEY": "hunter2"}
        assert "hunter2" not in repr(job)


@pytest.mark.parametrize("raw", ["hunter2", '["hunter2"]', 7, ["hunter2"], '{"hunter2":', "hunter2" * 200_000])
def test_secrets_that_are_none_are_refused_without_being_shown(raw: Json) -> None:
    with pytest.raises(ConversionFailure, match="field secrets: ") as raised:
        read_secrets(raw)
    assert "hunter2" not in raised.value.diag and raised.value.__cause__ is None


def test_lists_of_names_for_files_are_read() -> None:
    assert read_lists("", 255) == {}
    assert read_lists("inputFor_a:x.1,x.2^tmpin_mc16:y", 255) == {"inputFor_a": ["x.1", "x.2"], "tmpin_mc16": ["y"]}
    assert JobData(definition(writeToFile="in:a,b")).process_writetofile() == {"in": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("inputFor_a", C.CONVERSIONFAILURE),
        ("a:", C.CONVERSIONFAILURE),
        ("a:x^a:y", C.CONVERSIONFAILURE),
        ("../a:x", C.BADOUTPUTFILENAME),
        ("/etc/passwd:x", C.BADOUTPUTFILENAME),
        ("a:x/y", C.CONVERSIONFAILURE),
        ("a:x\ny", C.CONVERSIONFAILURE),
        ("a" * 300 + ":x", C.LFNTOOLONG),
    ],
)
def test_lists_that_lead_elsewhere_are_refused(text: str, code: int) -> None:
    with pytest.raises(PilotException) as raised:
        read_lists(text, 255)
    assert raised.value.code == code
