"""Commands of the server to a running job: what is obeyed, and that nothing outside the job can be reached."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pilot.control.debug import DebugCommands, Refused, parse
from tests.pilots import wait_until
from tests.unit.pilot.builders import context, is_asleep, job_run


@pytest.fixture
def work(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    (work / "deep" / "er").mkdir(parents=True)
    for name in ("payload.stdout", "log.a", "a b", "deep/er/log.RAWtoALL"):
        (work / name).write_text("x")
    (tmp_path / "secret").write_text("x")
    (work / "link").symlink_to(tmp_path / "secret")
    return work


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("tail payload.stdout", ["tail", "--", "{work}/payload.stdout"]),
        ("tail -n5 payload.stdout", ["tail", "-n5", "--", "{work}/payload.stdout"]),
        ("tail -50 log.a", ["tail", "-50", "--", "{work}/log.a"]),
        ("tail log.RAW*", ["tail", "--", "{work}/deep/er/log.RAWtoALL"]),
        ("tail 'a b'", ["tail", "--", "{work}/a b"]),
        ("ls", ["ls", "--"]),
        ("ls -la", ["ls", "-la", "--"]),
        ("ls -l deep", ["ls", "-l", "--", "{work}/deep"]),
        ("du -sk .", ["du", "-sk", "--", "{work}"]),
        ("ps", ["ps", "-o", "pid,ppid,stat,nlwp,etime,time,rss,args", "-p", "11,12"]),
        ("ps -ef", ["ps", "-o", "pid,ppid,stat,nlwp,etime,time,rss,args", "-p", "11,12"]),
        ("gdb", ["gdb", "--batch", "--nx", "--pid", "11", "-ex", "thread apply all bt"]),
        (
            "gdb --pid % -ex 'generate-core-file'",
            ["gdb", "--batch", "--nx", "--pid", "11", "-ex", "generate-core-file"],
        ),
    ],
)
def test_a_command_becomes_a_list_of_arguments(work: Path, text: str, wanted: list[str]) -> None:
    assert parse(text, work, 11, [11, 12]) == [word.replace("{work}", str(work)) for word in wanted]


@pytest.mark.parametrize(
    "text",
    [
        "rm payload.stdout",
        "sh -c 'rm -rf .'",
        "tail",
        "tail ../secret",
        "tail /etc/passwd",
        "tail link",
        "tail deep/../../secret",
        "tail payload.stdout log.a",
        "tail -F payload.stdout",
        "tail --follow=name payload.stdout",
        "tail none",
        "ls --color=always",
        "ls -l /",
        "ls ..",
        "ls 'deep;id'",
        "du --files0-from=/etc/passwd",
        "du -X /etc/passwd",
        "gdb -ex 'shell id'",
        "gdb -x /tmp/script",
        "gdb --pid 1 -ex 'python print(1)'",
        "gdb /bin/sh",
        "tail 'unbalanced",
        "",
        "\0",
    ],
)
def test_all_else_is_refused_with_a_sentence(work: Path, text: str) -> None:
    with pytest.raises(Refused) as raised:
        parse(text, work, 11, [11])
    assert str(raised.value)


def test_gdb_is_never_led_to_a_process_that_is_not_the_payloads(work: Path) -> None:
    assert parse("gdb --pid 1", work, 11, [11]).count("1") == 0


def test_links_in_a_circle_do_not_hide_the_other_files(work: Path) -> None:
    (work / "circle").symlink_to("circle")
    (work / "other").write_text("x")
    assert parse("tail [co][it]*e*", work, 7, [7])[-1] == str((work / "other").resolve())
    with pytest.raises(Refused, match="there is no circle"):
        parse("tail circle", work, 7, [7])


def test_the_newest_of_several_files_is_shown(work: Path) -> None:
    import os

    (work / "log.b").write_text("y")
    os.utime(work / "log.b", (1, 1))
    assert parse("tail log.*", work, 11, [11])[-1] == str(work / "log.a")


@pytest.mark.parametrize("name", ["panda_secrets.json", "x509up_payload", "alias", "*secrets*"])
def test_files_for_the_payload_alone_are_shown_to_nobody(tmp_path: Path, name: str) -> None:
    for secret in ("panda_secrets.json", "x509up_payload"):
        (tmp_path / secret).write_text("hunter2")
    (tmp_path / "alias").symlink_to("panda_secrets.json")
    with pytest.raises(Refused, match="there is no"):
        parse(f"tail {name}", tmp_path, 1, [])


def test_in_a_container_gdb_is_led_to_the_payload_and_not_to_the_runtime(tmp_path: Path) -> None:
    gdb = tmp_path / "gdb"
    gdb.write_text('#!/bin/sh\necho "$@"\n')
    gdb.chmod(0o755)
    shared = context(tmp_path / "pilot", environ={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    run = job_run(shared.workdir / "job")
    run.workdir.mkdir()
    script = "exec -a sinit bash -c 'sleep 300 & echo $! > payload; wait'"
    with (tmp_path / "out").open("wb") as out:
        guarded = shared.launcher.start(["bash", "-c", script], cwd=run.workdir, env=os.environ, stdout=out, stderr=out)
    try:
        run.adopt(guarded)
        wait_until(lambda: (run.workdir / "payload").is_file() and (run.workdir / "payload").read_text(), "it runs")
        # Before its program is there, it looks like the runtime that it was forked from.
        wait_until(lambda: is_asleep(int((run.workdir / "payload").read_text())), "it sleeps")
        commands, done = DebugCommands(shared, lambda run, error: None), threading.Event()
        commands.order(run, "gdb --pid %", lambda run: done.set())
        assert done.wait(30)
        assert f"--pid {(run.workdir / 'payload').read_text().strip()} -ex" in commands.stdout(run)
    finally:
        guarded.kill()
        guarded.wait()
