"""Credentials that the daemon keeps fresh for pilots to fetch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from server.logic import credentials
from server.logic.context import ANYBODY
from tests.unit.server.dispatcher import Dispatcher

_PRINTS = "import sys, time; print('credential', time.perf_counter_ns())"
_WRITES = "import sys; open(sys.argv[1], 'w').write('written ' + sys.argv[2])"


@pytest.fixture
def folder(dispatcher: Dispatcher) -> Path:
    made = dispatcher.context.settings.data_path() / credentials.FOLDER
    made.mkdir()
    return made


def configure(folder: Path, *tokens: dict[str, object], **others: object) -> None:
    entries = [{"client_name": "c", "file": "token", "for": [], **token} for token in tokens]
    (folder / credentials.INDEX).write_text(json.dumps({"tokens": entries, **others}))


def command(text: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", text, *arguments]


def token(dispatcher: Dispatcher) -> str:
    return credentials.access_token(dispatcher.context, ANYBODY, "c", "")


def test_what_is_missing_or_old_is_made_anew_by_its_command(dispatcher: Dispatcher, folder: Path) -> None:
    configure(folder, {"command": command(_PRINTS), "every": 100})
    assert credentials.refresh(dispatcher.context) == (1, 0)
    first = token(dispatcher)
    assert first.startswith("credential")
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    dispatcher.clock.now += 99
    assert credentials.refresh(dispatcher.context) == (0, 0)
    dispatcher.clock.now += 1
    assert credentials.refresh(dispatcher.context) == (1, 0)
    assert token(dispatcher) != first
    assert sorted(path.name for path in folder.iterdir()) == [credentials.INDEX, "token"]


def test_a_command_may_write_the_file_it_is_told(dispatcher: Dispatcher, folder: Path) -> None:
    proxy = {"role": "r", "dn": "/CN=x", "file": "x.pem", "command": command(_WRITES, "{file}", "$HOME; {dn}")}
    configure(folder, proxies=[proxy])
    assert credentials.refresh(dispatcher.context) == (1, 0)
    assert credentials.proxy(dispatcher.context, ANYBODY, "r", "/CN=x") == "written $HOME; {dn}\n"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (command("import sys; print('half a'); sys.exit('no network')"), "ended with exit code 1: no network"),
        (command("pass"), "ended well, and gave no credential"),
        (["/no/such/program"], "No such file or directory"),
        ("echo x", "its command must be a list of words"),
        ([], "its command must be a list of words"),
    ],
)
def test_a_command_that_fails_leaves_the_old_credential_and_a_line(
    dispatcher: Dispatcher, folder: Path, caplog: pytest.LogCaptureFixture, bad: object, says: str
) -> None:
    (folder / "token").write_text("old")
    configure(folder, {"command": bad, "every": 0}, {"client_name": "d", "file": "d", "command": command(_PRINTS)})
    assert credentials.refresh(dispatcher.context) == (1, 1)  # the others are made
    assert token(dispatcher) == "old\n"
    (record,) = caplog.records
    assert record.getMessage().startswith("credentials/token is not made anew: ") and says in record.getMessage()
    assert "half" not in caplog.text


def test_a_file_elsewhere_is_never_written(dispatcher: Dispatcher, folder: Path) -> None:
    configure(folder, {"file": "../token.key", "command": command(_PRINTS)})
    assert credentials.refresh(dispatcher.context) == (0, 1)
    assert not (folder.parent / "token.key").exists()


def test_without_commands_nothing_happens(dispatcher: Dispatcher, folder: Path) -> None:
    assert credentials.refresh(dispatcher.context) == (0, 0)
    configure(folder, {})
    assert credentials.refresh(dispatcher.context) == (0, 0)
    (folder / credentials.INDEX).write_text("{")
    assert credentials.refresh(dispatcher.context) == (0, 1)
