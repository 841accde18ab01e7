"""The daemon's configuration, in the form of PanDA's documents."""

from __future__ import annotations

import json
import os
import pwd
import sys
from multiprocessing import Pipe
from pathlib import Path

import pytest

from server.daemon import service
from server.daemon.config import DEFAULTS, PACKAGE, DaemonConfig, Script, read_config
from server.daemon.scripts import add_sub, task_evaluator
from server.daemon.worker import AGAIN, DONE, load, remark_on, run_script
from server.db import locks
from server.logic.context import Context
from server.settings import ConfigurationError
from tests.unit.server.dispatcher import Dispatcher


def config(folder: Path, content: object) -> str:
    path = folder / "daemon.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_our_own_scripts_run_without_a_file_and_all_of_them_are_there() -> None:
    scripts = read_config("").scripts
    assert [script.name for script in scripts] == list(DEFAULTS)
    for script in scripts:
        assert callable(load(script))


def test_a_file_changes_adds_and_switches_off(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        {
            "add_main": {"period": 240},
            "tmpwatch": {"enable": False},
            "mine": {"module": "watcher", "period": 200, "arguments": ["--network", 5], "sync": True},
        },
    )
    scripts = {script.name: script for script in read_config(path).scripts}
    assert "tmpwatch" not in scripts
    assert (scripts["add_main"].period, scripts["add_main"].loop) == (240, True)
    mine = scripts["mine"]
    assert (mine.module, mine.arguments, mine.sync, mine.loop, mine.timeout) == (
        "watcher",
        ("--network", "5"),
        True,
        False,
        600,
    )


def test_the_time_out_is_at_most_an_hour_longer_than_the_period(tmp_path: Path) -> None:
    (script,) = [s for s in read_config(config(tmp_path, {"x": {"period": 10_000}})).scripts if s.name == "x"]
    assert script.timeout == 13_600


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        {"x": 5},
        {"x": {}},
        {"x": {"period": 0}},
        {"x": {"period": "often"}},
        {"x": {"period": True}},
        '{"x": {"period": NaN}}',
        {"x": {"period": 1e300}},
        {"x": {"period": 5, "timeout": 0}},
        {"x" * 65: {"period": 5}},
        {"x": {"period": 5, "enable": "yes"}},
        {"x": {"period": 5, "arguments": "a"}},
        {"x": {"period": 5, "colour": "red"}},
    ],
)
def test_a_bad_entry_is_refused_by_its_name(tmp_path: Path, content: object) -> None:
    with pytest.raises(ConfigurationError, match="daemon configuration"):
        read_config(config(tmp_path, content))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_config(str(tmp_path / "none.json"))


# In the form of chapter 11's example, with other values.
SECTION = """
[server]
dbhost = %(nowhere)s
logdir = /var/log/panda
dbhost = twice

[daemon]
# whether to run daemons
enable = True
uname = somebody
gname = somegroup
package = pandaserver.daemons.scripts
n_proc = 3

# seconds
proc_lifetime = 7200

config = {
    "dummy_test": {
        "enable": false, "period": 120, "timeout": 300},
    "add_main": {
        "enable": true, "period": 120, "loop": true},
    "tags": {
        "module": "configurator", "arguments": ["--sw_tags", 7], "period": 200, "sync": true},
    "site_script": {
        "period": 20000}
    }
"""


def section(folder: Path, **changes: str) -> str:
    """The section with other values; an empty one is taken out."""
    lines = SECTION.splitlines()
    for key, value in changes.items():
        (at,) = [number for number, line in enumerate(lines) if line.startswith(f"{key} =")]
        lines[at] = f"{key} = {value}" if value else ""
    return config(folder, "\n".join(lines))


def test_the_documented_section_is_read_from_a_file_with_others(tmp_path: Path) -> None:
    read = read_config(section(tmp_path))
    assert (read.enable, read.uname, read.gname) == (True, "somebody", "somegroup")
    assert (read.n_proc, read.proc_lifetime) == (3, 7200)
    scripts = {script.name: script for script in read.scripts}
    assert scripts.keys() == {*DEFAULTS, "tags", "site_script"}
    assert scripts["tags"] == Script("tags", "configurator", 200, ("--sw_tags", "7"), sync=True, timeout=600)
    assert (scripts["add_main"].period, scripts["add_main"].loop) == (120, True)
    assert scripts["site_script"].timeout == 23_600


def test_scripts_of_the_documents_package_are_ours_and_those_of_another_are_looked_for_there_first(
    tmp_path: Path,
) -> None:
    assert {script.package for script in read_config(section(tmp_path)).scripts} == {PACKAGE}
    scripts = {script.name: script for script in read_config(section(tmp_path, package="json")).scripts}
    assert (scripts["watcher"].package, scripts["add_main"].package) == (PACKAGE, "json")
    assert load(scripts["add_main"]).__module__ == f"{PACKAGE}.add_main"
    with pytest.raises(ImportError, match=r"no module site_script in json or server\.daemon\.scripts"):
        load(scripts["site_script"])
    with pytest.raises(ImportError, match=r"json\.decoder has no function run"):
        load(Script("x", "decoder", 1, package="json"))


def test_a_section_without_enable_is_switched_off_as_documented(tmp_path: Path) -> None:
    assert not read_config(section(tmp_path, enable="")).enable
    assert not read_config(section(tmp_path, enable="False")).enable


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"enable": "perhaps"}, "enable must be True or False, not 'perhaps'"),
        ({"n_proc": "0"}, "n_proc must be a whole number above 0, not '0'"),
        ({"proc_lifetime": "a day"}, "proc_lifetime must be a whole number above 0"),
        ({"package": ""}, "it needs package"),
        ({"gname": "x\ncolour = red"}, "there is no setting 'colour'"),
        ({"config": "{ nothing"}, "config is not JSON"),
    ],
)
def test_a_bad_section_is_refused_by_what_is_wrong(tmp_path: Path, changes: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        read_config(section(tmp_path, **changes))


@pytest.mark.parametrize("text", ["[other]\nx = 1\n", "no section\n", "[daemon]\n", ""])
def test_a_file_without_the_section_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="daemon configuration"):
        read_config(config(tmp_path, text))


def test_a_synchronised_script_runs_on_one_machine_and_once_a_period(dispatcher: Dispatcher) -> None:
    def turn(owner: str, now: float) -> float:
        with dispatcher.context.database.durable() as connection:
            return locks.take_turn(connection, "script", owner, 100, 50, now)

    assert turn("a", 1000) == 0
    assert turn("b", 1001) == 99  # it is told when
    with dispatcher.context.database.durable() as connection:
        locks.give_back(connection, "script", "b")
        locks.give_back(connection, "script", "a")
    assert turn("b", 1099.75) == 0.25  # a moment too early costs a moment, and not a period
    assert turn("b", 1100) == 0
    assert turn("a", 1149) == 51
    assert turn("a", 1200) == 0  # b never gave it back: its time-out did


#: A script that notes until when it has its lock, and loses it to another machine in its third call.
LOOPING = """
from sqlalchemy import select, update
from server.db.tables import daemon_locks

until = []

def run(context, arguments):
    with context.database.durable() as connection:
        until.append(connection.execute(select(daemon_locks.c.lockedUntil)).scalar_one())
        if len(until) == 3:
            connection.execute(update(daemon_locks).values(owner="another machine"))
    return len(until) < 9
"""


def test_a_synchronised_script_in_loop_mode_keeps_its_lock_and_ends_when_another_machine_has_it(
    dispatcher: Dispatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "looping_scripts").mkdir()
    (tmp_path / "looping_scripts" / "one.py").write_text(LOOPING)
    monkeypatch.syspath_prepend(tmp_path)
    ours, theirs = Pipe()
    with ours, theirs:
        script = Script("looping", "one", 10, sync=True, loop=True, timeout=50, package="looping_scripts")
        end = run_script(dispatcher.context, script, theirs)
        until = sys.modules.pop("looping_scripts.one").until
        told = [end]
        while ours.poll():
            told.append(ours.recv())
    assert told == [DONE, AGAIN, AGAIN]
    assert len(until) == 3 and until == sorted(set(until)), "each call has a whole time-out of its own"


def ids_as(wanted: DaemonConfig) -> str:
    """Who a process of its own is after it has become somebody: user, group and groups, or why it could not."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            service.become(wanted)
            said = f"{os.getresuid()} {os.getresgid()} {os.getgroups()}"
        except ConfigurationError as error:
            said = str(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def test_the_daemon_of_root_goes_on_as_the_user_who_is_named_and_has_nothing_left_of_root() -> None:
    nobody = pwd.getpwnam("nobody")
    user, group = nobody.pw_uid, nobody.pw_gid
    if os.geteuid() == 0:
        assert ids_as(DaemonConfig(uname="nobody")) == f"{(user,) * 3} {(group,) * 3} [{group}]"
    else:
        assert "start it as root or as that user" in ids_as(DaemonConfig(uname="nobody"))
    myself = pwd.getpwuid(os.geteuid()).pw_name
    assert ids_as(DaemonConfig()) == f"{os.getresuid()} {os.getresgid()} {os.getgroups()}"
    assert ids_as(DaemonConfig(uname=myself)).startswith(f"{os.getresuid()} ")


# Every script of chapter 11's example, as (name, module).
_DOCUMENTED = {
    **{name: name for name in ("dummy_test", "add_main", "add_sub", "evpPD2P", "recover_lost_files_daemon")},
    **{name: name for name in ("process_workflow_files_daemon", "copyArchive", "datasetManager")},
    **{name: name for name in ("worker_synchronization", "metric_collector", "task_evaluator")},
    **dict.fromkeys(("configurator", "network_configurator", "schedconfig_json", "sw_tags"), "configurator"),
    "proxyCache": "panda_activeusers_query",
    "pilot_streaming": "pilotStreaming",
}
# What we do not have, and say so.
_ABSENT = {"dummy_test", "evpPD2P", "process_workflow_files_daemon"}


def test_every_script_of_the_documents_is_here_or_left_out_with_a_reason_of_its_own() -> None:
    missing = set()
    for name, module in _DOCUMENTED.items():
        try:
            assert callable(load(Script(name, module, 1)))
        except ImportError as error:
            assert "no module" not in str(error)
            missing.add(name)
    assert missing == _ABSENT


def evaluate(context: Context) -> None:
    """An experiment's own function."""
    context.bell.ring("evaluated")


def fail(_context: Context) -> None:
    """Another one."""
    raise RuntimeError


def test_the_task_evaluator_calls_what_it_is_told_to_call(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "ours", sys.modules[__name__])
    assert "it does nothing" in remark_on(Script("task_evaluator", "task_evaluator", 1))
    arguments = ("ours:fail", "ours:evaluate")
    assert remark_on(Script("task_evaluator", "task_evaluator", 1, arguments)) == ""
    for bad in ("ours", "ours:nothing", "nowhere:evaluate"):
        with pytest.raises(ImportError):
            remark_on(Script("task_evaluator", "task_evaluator", 1, (bad,)))
    assert task_evaluator.run(dispatcher.context, arguments) is False
    assert dispatcher.bell.rung == ["evaluated"]
    assert "the evaluator ours:fail failed" in caplog.text


def test_what_was_missed_is_made_up_for(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({})
    dispatcher.get_job()
    dispatcher.report(job, "finished", xml="{}")
    assert add_sub.run(dispatcher.context, ()) is False
    assert dispatcher.status(job) == "finished"
