"""A payload with what is around it: in which order, with whose exit code, and that nothing of it stays."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import pilot.user
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.common.lifecycle import Abort, Accepted, Event, PayloadEnded, PayloadStarted, StagedIn
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.payload import PayloadController
from pilot.control.rules.slot import Deadline
from pilot.control.slot import Slot
from pilot.util.https import Json
from pilot.util.plugins import Plugins
from tests.pilots import wait_until
from tests.unit.pilot.builders import SETTINGS, context, job_run

C = ErrorCodes
SOON = 30.0


class Stage:
    """A payload controller in its thread, and the events it brings."""

    def __init__(self, shared: Context) -> None:
        self.shared = shared
        self.events: list[Event] = []
        self.started, self.ended = threading.Event(), threading.Event()
        self.controller = PayloadController(shared, self._handle)
        self._thread = threading.Thread(target=self.controller.run, name="payload")
        self._thread.start()

    def _handle(self, run: JobRun, event: Event) -> None:
        self.events.append(event)
        with run.lock:
            run.lifecycle.handle(event)
        (self.ended if isinstance(event, PayloadEnded) else self.started).set()

    def begin(self, command: str, **changes: Json) -> JobRun:
        """Start a job whose payload is a shell command. steps: those of pre, co and post that are given."""
        steps = {
            name: step if isinstance(step := changes.pop(name), dict) else shell(str(step))
            for name in ("preprocess", "coprocess", "postprocess")
            if name in changes
        }
        run = job_run(self.shared.workdir / "job", transformation="/bin/sh", jobPars="script", **{**steps, **changes})
        run.workdir.mkdir()
        (run.workdir / "script").write_text(command)
        for event in (Accepted(), StagedIn()):
            run.lifecycle.handle(event)
        self.controller.payloads.put(run)
        return run

    def play(self, command: str, **changes: Json) -> JobRun:
        """Run it to its end."""
        run = self.begin(command, **changes)
        assert self.ended.wait(SOON)
        assert run.commands == run.utilities == []
        return run

    def abort(self, run: JobRun, code: int = C.PANDAKILL) -> None:
        """Somebody ends the job, as the workflow does it."""
        with run.lock:
            run.grace = 0.2
            run.lifecycle.handle(Abort(PilotException("it is ended", code=code)))
            run.cancel_payload.set()
            run.stop_commands()

    @property
    def error(self) -> PilotException | None:
        """What was wrong with the end."""
        over = self.events[-1]
        assert isinstance(over, PayloadEnded)
        return over.error

    def close(self) -> None:
        self.controller.payloads.put(None)
        self._thread.join()


def shell(text: str) -> dict[str, Json]:
    return {"command": "/bin/sh", "args": f"-c '{text}'"}


def content(run: JobRun, name: str) -> str:
    return (run.workdir / name).read_text()


def made(tmp_path: Path, plugins: Plugins | None = None, slot: float = 1e6, **changes: object) -> Context:
    """What controllers share, with changes to [Payload]."""
    settings = replace(SETTINGS, payload=replace(SETTINGS.payload, **{"utility_grace": 5.0, **changes}))  # type: ignore[arg-type]
    shared = context(tmp_path, environ={"PATH": os.environ["PATH"]}, settings=settings)
    ends = Slot(shared.started, [Deadline(shared.started + slot, "the test")], {})
    return replace(shared, slot=ends, plugins=plugins or shared.plugins)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    playing = Stage(made(tmp_path))
    yield playing
    playing.close()


# ---- commands of the job


def test_pre_payload_and_post_run_one_after_the_other_in_the_jobs_directory_with_its_environment(stage: Stage) -> None:
    run = stage.play(
        "echo payload $PandaID >> order",
        preprocess="echo pre $PandaID >> order; echo said; echo wrong >&2",
        postprocess="echo post $PandaID >> order; pwd",
    )
    assert stage.error is None and run.trans_exit_code == 0
    assert content(run, "order") == "pre 254\npayload 254\npost 254\n"
    assert (content(run, "preprocess_stdout.txt"), content(run, "preprocess_stderr.txt")) == ("said\n", "wrong\n")
    assert content(run, "postprocess_stdout.txt") == f"{run.workdir}\n"
    assert [type(event) for event in stage.events] == [PayloadStarted, PayloadEnded]


def test_a_pre_process_that_fails_ends_the_job_with_its_own_code_before_the_payload(stage: Stage) -> None:
    run = stage.play("touch ran", preprocess="echo no points >&2; exit 7", postprocess="touch ran")
    assert stage.error is not None and stage.error.code == C.PREPROCESSFAILURE
    assert stage.error.diag == "preprocess: exit code 7; its last words: no points"
    assert run.trans_exit_code == 7 and not (run.workdir / "ran").exists()


def test_a_post_process_that_fails_has_its_own_code(stage: Stage) -> None:
    stage.play("true", postprocess="exit 3")
    assert stage.error is not None and stage.error.code == C.POSTPROCESSFAILURE


def test_a_post_process_runs_after_a_payload_that_failed_and_the_payloads_failure_counts(stage: Stage) -> None:
    run = stage.play("exit 9", postprocess="touch ran; exit 3")
    assert stage.error is not None and stage.error.code == C.PAYLOADEXECUTIONFAILURE
    assert (run.workdir / "ran").exists()
    assert "exit code 9" in stage.error.diag


def test_the_special_exit_code_means_nothing_to_a_job_that_is_for_no_points(stage: Stage) -> None:
    stage.play("true", preprocess="exit 160")
    assert stage.error is not None and stage.error.code == C.PREPROCESSFAILURE


def test_a_command_that_cannot_be_had_is_named(stage: Stage) -> None:
    run = stage.begin("true", preprocess="true")
    assert stage.ended.wait(SOON)
    other = Stage(replace(stage.shared, workdir=run.workdir))
    again = job_run(run.workdir / "again", preprocess={"command": "http://evil/x", "args": ""})
    again.workdir.mkdir()
    for event in (Accepted(), StagedIn()):
        again.lifecycle.handle(event)
    other.controller.payloads.put(again)
    assert other.ended.wait(SOON)
    other.close()
    assert other.error is not None and other.error.code == C.TRFDOWNLOADFAILURE and "http://evil/x" in other.error.diag


@pytest.mark.parametrize("label", ["preprocess", "coprocess", "postprocess"])
def test_a_step_that_is_not_there_is_told_from_the_payload(stage: Stage, label: str) -> None:
    stage.play("true", **{label: {"command": "no-such-program", "args": ""}})
    assert stage.error is not None and stage.error.code == C.TRANSFORMNOTFOUND
    assert stage.error.diag.startswith(f"{label}: ") and "no-such-program" in stage.error.diag


def test_a_co_process_runs_beside_the_payload_and_ends_with_it(stage: Stage) -> None:
    run = stage.play(
        "while [ ! -e here ]; do sleep 0.02; done; echo payload >> order",
        coprocess='trap "echo told >> order; exit 0" TERM; touch here; while :; do sleep 0.05; done',
        postprocess="echo post >> order",
    )
    assert stage.error is None
    assert content(run, "order") == "payload\ntold\npost\n"


def test_a_co_process_that_ends_before_the_payload_costs_nothing(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        run = stage.begin("while [ ! -e done ]; do sleep 0.02; done", coprocess="exit 4")
        told = "coprocess ended with exit code 4 while the payload runs"
        wait_until(lambda: told in caplog.text, "its end is told")
        (run.workdir / "done").touch()
        assert stage.ended.wait(SOON)
    assert stage.error is None


@pytest.mark.parametrize("phase", ["preprocess", "postprocess"])
def test_a_job_that_is_ended_while_a_step_runs_runs_nothing_more(stage: Stage, phase: str) -> None:
    run = stage.begin("true; touch ran", **{phase: "touch here; exec sleep 300"}, coprocess="exec sleep 300")
    deadline = threading.Event()
    while not (run.workdir / "here").exists():
        assert not deadline.wait(0.02)
    stage.abort(run)
    assert stage.ended.wait(SOON)
    assert stage.error is None and run.error is not None and run.error.code == C.PANDAKILL
    assert (run.workdir / "ran").exists() is (phase == "postprocess")
    assert run.commands == run.utilities == []


def test_what_all_commands_have_used_is_counted(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "burner").write_text("import time\nwhile time.process_time() < 0.3:\n    pass\n")
    busy = f"exec {sys.executable} {tmp_path}/burner"
    alone = stage.play(busy)
    stage.ended.clear()
    other = Stage(replace(stage.shared, workdir=alone.workdir))
    both = other.play(busy, preprocess=busy, postprocess=busy)
    other.close()
    assert alone.cpu_time > 0.25 and both.cpu_time > 0.75


def test_a_link_or_pipe_where_a_command_writes_is_not_followed(stage: Stage, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    stage.play(f"ln -s {target} postprocess_stdout.txt", postprocess="echo yours")
    assert target.read_text() == "mine"
    assert stage.error is not None and stage.error.code == C.FILEHANDLINGFAILURE


def test_a_pipe_where_a_command_writes_is_not_waited_for(stage: Stage) -> None:
    stage.play("mkfifo postprocess_stdout.txt", postprocess="echo yours")
    assert stage.error is not None and stage.error.code == C.FILEHANDLINGFAILURE


# ---- secrets and lists


def test_secrets_are_there_for_the_payload_and_its_steps_alone_and_gone_afterwards(stage: Stage) -> None:
    look = "cat panda_secrets.json >> seen; stat -c %a panda_secrets.json >> seen"
    run = stage.play(look, preprocess=look, postprocess=look, secrets='{"KEY": "hunter2"}')
    assert stage.error is None
    assert content(run, "seen") == '{"KEY": "hunter2"}600\n' * 3
    assert not (run.workdir / "panda_secrets.json").exists()


def test_a_job_without_secrets_has_no_file_for_them_and_keeps_its_own(stage: Stage) -> None:
    run = stage.play("[ ! -e panda_secrets.json ] && echo mine > panda_secrets.json")
    assert stage.error is None and content(run, "panda_secrets.json") == "mine\n"


def test_lists_of_names_are_files_for_the_payload(stage: Stage) -> None:
    run = stage.play("cat inputFor_a inputFor_b > seen", writeToFile="inputFor_a:x.1,x.2^inputFor_b:y")
    assert stage.error is None and content(run, "seen") == "x.1\nx.2\ny\n"


def test_a_list_takes_no_other_files_place(stage: Stage) -> None:
    stage.play("true", writeToFile="script:x")
    assert stage.error is not None and stage.error.code == C.FILEEXISTS


# ---- hyperparameter points

POINTS = "[ $PILOT_EXEC_ITERATION_COUNT -lt 3 ] || exit 160; echo point $PILOT_EXEC_ITERATION_COUNT > point"


def names(run: JobRun) -> list[str]:
    return [spec.lfn for spec in run.data.outdata]


def test_points_are_tried_until_the_pre_process_ends_it_and_each_has_its_outputs(stage: Stage) -> None:
    run = stage.play("cat point; cp point out.txt", preprocess=POINTS, isHPO="True", postprocess="echo done")
    assert stage.error is None and run.trans_exit_code == 0
    assert names(run) == ["out.txt_0", "out.txt_1", "out.txt_2"]
    assert [content(run, name) for name in names(run)] == ["point 0\n", "point 1\n", "point 2\n"]
    assert run.data.outdata[0].scope == run.data.outdata[2].scope == "vo"
    assert [content(run, f"payload.stdout{end}") for end in ("_0", "_1", "")] == [f"point {n}\n" for n in range(3)]
    assert content(run, "postprocess_stdout.txt") == "done\n" * 3
    assert [type(event) for event in stage.events] == [PayloadStarted, PayloadEnded]


def test_a_payload_may_number_its_outputs_itself(stage: Stage) -> None:
    run = stage.play("touch out.txt_0 out.txt_00 out.txt_x; cp point out.txt_1", preprocess=POINTS, isHPO="True")
    assert names(run) == ["out.txt_0", "out.txt_1"]


def test_without_a_point_there_is_no_output_and_no_error(stage: Stage) -> None:
    run = stage.play("touch ran", preprocess="exit 160", isHPO="True")
    assert stage.error is None and names(run) == [] and not (run.workdir / "ran").exists()


def test_a_job_that_has_nobody_to_ask_for_points_tries_one(tmp_path: Path) -> None:
    stage = Stage(made(tmp_path, hpo_rounds=3))
    run = stage.play("echo ran >> rounds; touch out.txt", isHPO="True")
    stage.close()
    assert stage.error is None and names(run) == ["out.txt_0"] and content(run, "rounds") == "ran\n"


def test_the_log_tells_how_long_each_payload_of_a_job_took(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run = stage.play("sleep 1", preprocess=POINTS, isHPO="True")
    took = [float(one) for one in re.findall(r"payload ended with exit code 0 after ([0-9.]+) s", caplog.text)]
    assert len(took) == 3 and sum(took) == pytest.approx(run.timing["payload"], abs=0.5)


def test_a_point_that_fails_ends_the_job(stage: Stage) -> None:
    run = stage.play("cp point out.txt; exit $PILOT_EXEC_ITERATION_COUNT", preprocess=POINTS, isHPO="True")
    assert stage.error is not None and run.trans_exit_code == 1
    assert names(run) == ["out.txt_0", "out.txt_1"]


def test_points_that_make_no_output_leave_its_name_to_be_missed(stage: Stage) -> None:
    assert names(stage.play("true", preprocess=POINTS, isHPO="True")) == ["out.txt"]


def test_no_point_is_begun_for_which_there_is_no_time(tmp_path: Path) -> None:
    # In a slot of 8 s the payload is told to stop after half of it.
    stage = Stage(made(tmp_path, slot=8.0))
    run = stage.play("sleep 2.5; touch out.txt", preprocess="true", isHPO="True")
    stage.close()
    assert stage.error is None
    assert names(run) == ["out.txt_0"]


def test_a_pre_process_that_never_ends_it_is_stopped_by_the_limit(tmp_path: Path) -> None:
    stage = Stage(made(tmp_path, hpo_rounds=2))
    run = stage.play("echo x > out.txt", preprocess="true", isHPO="True")
    stage.close()
    assert stage.error is None and names(run) == ["out.txt_0", "out.txt_1"]


# ---- utilities of an experiment

PLUGIN = """
from pilot.common import orders

NAMES = {getattr(orders, name): name[8:].lower() for name in dir(orders) if name.startswith("UTILITY_")}
ENDED = []

def get_utility_commands(order=None, job=None):
    if order == orders.UTILITY_WITH_PAYLOAD:
        return {"command": "test", "args": "-d . && export SET_BY=utility", "label": "with"}
    if order is None or order in (orders.UTILITY_AFTER_PAYLOAD_STARTED,):
        label = "beside" if order is None else "started"
        end = "trap \\"echo end " + label + " >> order; exit 0\\" TERM; touch " + label
        run = "-c '" + end + "; while :; do sleep 0.05; done'"
        return [{"command": "sh", "args": run, "label": label}]
    if order == orders.UTILITY_WITH_STAGEIN:
        return None
    return {"command": "sh", "args": "-c 'echo " + NAMES[order] + " >> order'", "label": NAMES[order]}

def get_utility_command_execution_order(name):
    return orders.UTILITY_BEFORE_PAYLOAD

def post_utility_command_action(name, job):
    ENDED.append((name, job.jobid))
"""


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The module common.py of an experiment "zoo"."""
    folder = tmp_path / "user" / "zoo"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    monkeypatch.setattr(pilot.user, "__path__", [*pilot.user.__path__, str(tmp_path / "user")])
    yield folder / "common.py"
    for name in [name for name in sys.modules if name.startswith("pilot.user.zoo")]:
        del sys.modules[name]
    if hasattr(pilot.user, "zoo"):
        delattr(pilot.user, "zoo")


def staged(tmp_path: Path, zoo: Path, text: str, **changes: object) -> Stage:
    zoo.write_text(text)
    return Stage(made(tmp_path, Plugins("zoo"), **changes))


def test_utilities_run_in_the_documented_order(tmp_path: Path, zoo: Path) -> None:
    stage = staged(tmp_path, zoo, PLUGIN)
    run = stage.play(
        "while [ ! -e started ] || [ ! -e beside ]; do sleep 0.02; done; echo payload $SET_BY >> order",
        preprocess="[ ! -e beside ] && echo pre >> order",
        postprocess="echo post >> order",
    )
    stage.close()
    assert stage.error is None
    lines = content(run, "order").splitlines()
    assert lines[:3] == ["before_payload", "pre", "payload utility"]
    assert sorted(lines[3:5]) == ["end beside", "end started"]
    assert lines[5:] == ["post", "after_payload_finished", "after_payload_finished2"]
    ended = sys.modules["pilot.user.zoo.common"].ENDED
    assert {name for name, _ in ended} == {
        "before_payload", "beside", "started", "after_payload_finished", "after_payload_finished2",
    }  # fmt: skip


def test_a_utility_that_dies_is_started_again_within_the_limit(tmp_path: Path, zoo: Path) -> None:
    stage = staged(
        tmp_path,
        zoo,
        "def get_utility_commands(order=None, job=None):\n"
        "    return None if order else {'command': 'sh', 'args': '-c \"echo x >> starts; exit 1\"', 'label': 'mon'}\n",
        utility_restarts=2,
    )
    run = stage.play("while [ $(wc -l < starts 2>/dev/null || echo 0) -lt 3 ]; do sleep 0.05; done; sleep 0.3")
    stage.close()
    assert stage.error is None and content(run, "starts") == "x\n" * 3


def test_a_utility_is_ended_by_its_own_signal(tmp_path: Path, zoo: Path) -> None:
    body = "trap 'echo usr1 > how; exit 0' USR1; touch here; while :; do sleep 0.05; done"
    stage = staged(
        tmp_path,
        zoo,
        "import signal\n"
        "def get_utility_commands(order=None, job=None):\n"
        "    return None if order else {'command': 'unused', 'label': 'mon'}\n"
        f"def get_utility_command_setup(name, job=None, setup=None):\n    return {body!r}\n"
        "def get_utility_command_kill_signal(name):\n    return signal.SIGUSR1\n"
        "def get_utility_command_output_filename(name, selector=None):\n    return 'mon.log'\n",
    )
    run = stage.play("while [ ! -e here ]; do sleep 0.02; done")
    stage.close()
    assert stage.error is None and content(run, "how") == "usr1\n"
    assert (run.workdir / "mon.log").exists() and run.aside == {"mon.log", "mon_stderr.txt"}


@pytest.mark.parametrize(("ignored", "code"), [(True, 0), (False, C.PREPROCESSFAILURE)])
def test_a_utility_before_the_payload_may_fail_if_it_says_so(
    tmp_path: Path, zoo: Path, ignored: bool, code: int
) -> None:
    stage = staged(
        tmp_path,
        zoo,
        "from pilot.common.orders import UTILITY_BEFORE_PAYLOAD\n"
        "def get_utility_commands(order=None, job=None):\n"
        "    if order == UTILITY_BEFORE_PAYLOAD:\n"
        f"        return {{'command': 'false', 'label': 'cache', 'ignore_failure': {ignored}}}\n",
    )
    run = stage.play("true")
    stage.close()
    assert (stage.error.code if stage.error else 0) == code
    assert run.trans_exit_code == 0


def test_a_plugins_pre_process_takes_the_place_of_the_jobs(tmp_path: Path, zoo: Path) -> None:
    stage = staged(
        tmp_path,
        zoo,
        "from pilot.common.orders import UTILITY_BEFORE_PAYLOAD\n"
        "def get_utility_commands(order=None, job=None):\n"
        "    if order == UTILITY_BEFORE_PAYLOAD:\n"
        "        return {**job.preprocess, 'label': 'preprocess'}\n",
    )
    run = stage.play("true", preprocess="echo once >> ran")
    stage.close()
    assert content(run, "ran") == "once\n"


def test_a_description_that_is_none_ends_the_job_with_what_is_wrong(tmp_path: Path, zoo: Path) -> None:
    stage = staged(
        tmp_path, zoo, "def get_utility_commands(order=None, job=None):\n    return {'args': 'x', 'label': '../x'}\n"
    )
    stage.play("true")
    stage.close()
    assert stage.error is not None and "a utility is described without a command" in stage.error.diag
