"""The command line where no server is needed: its help, its exit codes, what it says, how quickly it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from server.cli.main import pilotkit
from server.cli.output import cell

RUN = [sys.executable, "-m", "server.cli.main"]
ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.fixture
def nobody(port_of_nobody: int) -> str:
    """An address where nobody answers."""
    return f"http://127.0.0.1:{port_of_nobody}"


ALL = dict(commands(pilotkit))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(pilotkit, [*path, "--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.output
    assert f"pilotkit {' '.join(path)}" in shown.output


def test_the_commands_are_those_that_are_documented() -> None:
    expected = {
        "config": {"get", "list", "remove", "set"},
        "db": {"backup", "migrate", "restore"},
        "harvester": {
            *("commands", "dialogs", "kill-workers", "list", "metrics", "report", "resource-types"),
            *("set-workers", "statistics", "workers"),
        },
        "node": {"failing", "lift"},
        "retries": {"activate", "add", "list", "passivate", "remove"},
        "queue": {"add", "history", "list", "remove", "set", "show"},
        "shares": {"list", "set", "show"},
        "site": {"list", "network", "show", "sources"},
        "storage": {"add", "list", "remove"},
        "task": {"release", "throttle"},
        "token": {"create", "list", "revoke"},
        "user": {"ban", "list", "set", "unban"},
    }
    single = {"daemon", "datasets", "debug", "demo", "job", "jobs", "kill", "log", "metrics", "recover", "serve"}
    single.add("submit")
    assert {" ".join(path) for path in ALL} == single | {f"{one} {two}" for one, all in expected.items() for two in all}


ASKING: dict[str, list[str]] = {
    "shares list": [],
    "shares show": [],
    "node failing": [],
    "node lift": ["Q", "wn1"],
    "queue list": [],
    "queue show": ["Q"],
    "queue set": ["Q", "status=offline"],
    "queue history": ["Q"],
    "queue remove": ["Q"],
    "storage remove": ["DISK"],
    "metrics": [],
    "datasets": [],
    "recover": ["scope:lfn"],
    "harvester statistics": [],
    "site list": [],
    "site show": ["S"],
    "site sources": [],
    "site network": [],
    "queue add": ["-"],
    "storage add": ["-"],
    "storage list": [],
    "submit": ["-"],
    "jobs": [],
    "job": ["1"],
    "log": ["1"],
    "debug": ["1", "ls", "-l"],
    "kill": ["1"],
    "token create": ["--name", "x", "--role", "user"],
    "token list": [],
    "token revoke": ["0123"],
    "user list": [],
    "user set": ["x"],
    "user ban": ["x"],
    "user unban": ["x"],
    "task throttle": ["7"],
    "task release": ["7"],
    "retries list": [],
    "retries add": ["no_retry", "pilot", "1305"],
    "retries remove": ["1"],
    "retries activate": ["1"],
    "retries passivate": ["1"],
    "config list": [],
    "config get": ["watcher", "TIMEOUT_sent"],
    "config set": ["watcher", "TIMEOUT_sent", "1"],
    "config remove": ["watcher", "TIMEOUT_sent"],
    "harvester list": [],
    "harvester workers": [],
    "harvester dialogs": [],
    "harvester metrics": [],
    "harvester commands": [],
    "harvester set-workers": ["h", "Q", "managed/SCORE=1"],
    "harvester report": ["h", "Q"],
    "harvester kill-workers": ["h", "7"],
    "harvester resource-types": ["-"],
}


@pytest.mark.parametrize("command", ASKING)
def test_without_a_server_every_command_says_what_to_do_and_exits_with_3(command: str, nobody: str) -> None:
    done = CliRunner().invoke(
        pilotkit, [*command.split(), *ASKING[command]], input='{"a": {}}', env={"PILOTKIT_URL": nobody}
    )
    assert done.exit_code == 3
    assert done.output == (
        f"pilotkit: no server answers at {nobody}; start one with `pilotkit serve`, or set PILOTKIT_URL (or --url)\n"
    )


@pytest.mark.parametrize(
    "arguments", [["--url", "{}", "jobs"], ["jobs", "--url", "{}"], ["--url", "http://x", "jobs", "--url", "{}"]]
)
def test_the_address_may_stand_before_or_after_the_command(arguments: list[str], nobody: str) -> None:
    done = CliRunner().invoke(pilotkit, [word.format(nobody) for word in arguments], env={"PILOTKIT_URL": "http://y"})
    assert nobody in done.output


def test_an_address_that_is_none_is_a_usage_error() -> None:
    done = run("jobs", "--url", "localhost:25080")
    assert done.returncode == 2
    assert done.stderr == "pilotkit: 'localhost:25080' is not a server address; write it as http://host:25080\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (["submit", "-"], '{"queue": "Q",}', "not JSON, line 1 column"),
        (["submit", "-"], "[]", "expected a job"),
        (["submit", "-"], "[1]", "expected a job"),
        (["submit", "-"], "[" * 100_000, "not JSON"),
        (["queue", "add", "-"], "[]", "expected {"),
        (["queue", "add", "-"], '{"status": "online"}', "the description of queue 'status' is not an object"),
        (["storage", "add", "-"], "{}", "description of the storage"),
        (["queue", "set", "Q", "status"], "", "'status' is not of the form KEY=VALUE"),
        (["submit", "/no/such/file"], "", "No such file"),
        (["job", "seventeen"], "", "Invalid value for 'ID'"),
        (["kill"], "", "Missing argument"),
        (["token", "create", "--name", "x", "--role", "user", "--expires", "soon"], "", "'soon' is no time"),
        (["token", "revoke"], "", "one of them"),
        (["nonsense"], "", "No such command"),
    ],
)
def test_input_that_cannot_be_used_is_named_and_exits_with_2(arguments: list[str], stdin: str, said: str) -> None:
    done = run(*arguments, stdin=stdin)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_is_there_quickly() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "server.cli.main", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in loaded
    assert not loaded & {"requests", "rich", "flask", "sqlalchemy", "numpy", "psutil"}, (
        "heavy imports cost half a second"
    )


def test_the_version_is_told() -> None:
    from pilot import __version__

    assert __version__ in run("--version").stdout


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        (0, "0"),
        (1.5, "1.5"),
        ({"__datetime__": "2026-01-02T03:04:05.678"}, "2026-01-02 03:04:05.678"),
        ("2026-01-02T03:04:05.678+00:00", "2026-01-02 03:04:05.678"),
        ({"activated": 2, "running": 1}, "activated=2 running=1"),
        ({}, "-"),
        (["a", "b"], "a, b"),
        ("two\n lines", "two lines"),
        ("\x1b[2Jwiped \u202eoff", "?[2Jwiped ?off"),
    ],
)
def test_a_cell_is_one_readable_line(value: object, text: str) -> None:
    assert cell(json.loads(json.dumps(value))) == text
