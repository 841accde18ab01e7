"""From the command line to a workflow: the address of the dispatcher, and the log."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.arguments import parse
from pilot.util.blot import Secrets
from pilot.util.logs import establish_logging, stop_logging
from pilot.workflow.start import server_url
from tests.unit.pilot.builders import SETTINGS


def url_of(*argv: str, insecure: bool = False) -> str:
    return server_url(parse(["-q", "Q", *argv]), replace(SETTINGS.pilot, insecure_http=insecure))


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ([], "http://127.0.0.1:25080"),
        (["-p", "99"], "http://127.0.0.1:25080"),
        (["--url", "https://panda.example"], "https://panda.example:25443"),
        (["--url", "https://panda.example/"], "https://panda.example:25443"),
        (["--url", "https://panda.example", "-p", "443"], "https://panda.example:443"),
        (["--url", "https://panda.example:8443", "-p", "443"], "https://panda.example:8443"),
        (["--url", "panda.example"], "https://panda.example:25443"),
        (["--url", "http://localhost:5"], "http://localhost:5"),
        (["--url", "http://[::1]:5"], "http://[::1]:5"),
        (["--url", "https://[2001:db8::1]"], "https://[2001:db8::1]:25443"),
    ],
)
def test_the_dispatchers_address_comes_from_option_or_setting_and_its_own_port_wins(
    argv: list[str], wanted: str
) -> None:
    assert url_of(*argv) == wanted


@pytest.mark.parametrize("url", ["http://panda.example", "http://127.evil.example:1", "http://10.0.0.1:25080"])
def test_plain_http_is_for_loopback_unless_it_is_allowed(url: str) -> None:
    with pytest.raises(ValueError, match=r"is plain http across a network.*insecure_http = True"):
        url_of("--url", url)
    assert url_of("--url", url, insecure=True).startswith("http://")


@pytest.mark.parametrize("url", ["ftp://panda.example", "https://", "https://:5", "https://h:port", "https://[::1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        url_of("--url", url)


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The pilot's logger is the process's: what a pilot sets, the next test must not find."""
    made = logging.getLogger("pilot")
    monkeypatch.setattr(logging, "raiseExceptions", logging.raiseExceptions)
    monkeypatch.setattr(made, "propagate", made.propagate)
    yield
    stop_logging(made)
    made.setLevel(logging.NOTSET)


@pytest.mark.usefixtures("logger")
def test_a_log_line_goes_to_file_and_stdout_with_its_time_in_utc(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = establish_logging(False, tmp_path / "pilotlog.txt")
    log.info("job %s is taken", 254)
    log.debug("not shown")
    (line,) = (tmp_path / "pilotlog.txt").read_text().splitlines()
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO +MainThread +job 254 is taken$", line)
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.usefixtures("logger")
def test_stdout_may_go_to_a_file_and_debug_messages_are_shown_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    establish_logging(True, None, str(tmp_path / "out")).debug("details")
    assert (tmp_path / "out").read_text().endswith("details\n")
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("logger")
def test_a_traceback_in_the_log_has_no_secret_in_it(tmp_path: Path) -> None:
    log = establish_logging(False, tmp_path / "pilotlog.txt", str(tmp_path / "stdout"), Secrets(["c4na7y-c4na7y"]).blot)
    try:
        raise ValueError("cannot read c4na7y-c4na7y")
    except ValueError:
        log.exception("thread %s died with %r", "payload", ["c4na7y-c4na7y"])
    for name in ("pilotlog.txt", "stdout"):
        said = (tmp_path / name).read_text()
        assert "c4na7y" not in said and "ValueError: cannot read ***" in said and "died with ['***']" in said


@pytest.mark.usefixtures("logger")
def test_no_secret_of_a_url_reaches_the_log_not_even_in_a_traceback(tmp_path: Path) -> None:
    log = establish_logging(True, tmp_path / "pilotlog.txt", str(tmp_path / "stdout"))
    try:
        raise ValueError("GET https://h/k?X-Amz-Signature=c4na7y failed")
    except ValueError:
        log.exception("it failed for %s", "https://h/k?token=c4na7y")
    for name in ("pilotlog.txt", "stdout"):
        said = (tmp_path / name).read_text()
        assert "c4na7y" not in said and said.count("***") >= 3 and "ValueError" in said


@pytest.mark.usefixtures("logger")
def test_what_cannot_be_written_to_the_log_harms_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = establish_logging(False, tmp_path / "pilotlog.txt")
    log.info("half a character: %s", "\ud800")
    log.info("the next")
    assert (tmp_path / "pilotlog.txt").read_text().endswith("the next\n")
    assert capsys.readouterr().err == ""


def test_what_few_jobs_and_options_need_is_not_loaded_at_the_start() -> None:
    asked = "import sys, pilot.workflow.start, pilot.workflow.generic; print(*sys.modules)"
    root = Path(__file__).parents[3]
    loaded = subprocess.run([sys.executable, "-c", asked], cwd=root, capture_output=True, text=True, check=True).stdout
    few = (
        "pilot.control.events",
        "pilot.eventservice",
        "pilot.control.realtime",
        "pilot.control.msgsvc",
        "pilot.util.stomp",
    )
    assert "pilot.control.payload" in loaded.split()
    assert not {name for name in loaded.split() if name.startswith(few) and name != "pilot.control.eventsource"}
