"""The payload: its command, its environment, and what its end means."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.common.errorcodes import Blame, ErrorCodes
from pilot.common.exception import CommunicationFailure, PilotException, TrfDownloadFailure
from pilot.common.lifecycle import Accepted, Event, PayloadEnded, PayloadStarted, StagedIn
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.oom import OomWatch
from pilot.control.payload import PayloadController
from pilot.control.payloadend import judge
from pilot.control.payloads.generic import payload_environment, shell
from pilot.user.generic.setup import is_below, prepare_transformation
from pilot.util.credentials import SECRET_VARIABLES
from pilot.util.filehandling import tail_bytes
from pilot.util.guarded import Outcome
from pilot.util.https import Json
from tests.unit.pilot.builders import context, job_run

C = ErrorCodes
SOON = 30.0


# ---- what an end means


@pytest.mark.parametrize(
    ("outcome", "stderr", "code", "exit_code"),
    [
        (Outcome(0), "", 0, 0),
        (Outcome(0), "FATAL: nothing really", 0, 0),
        (Outcome(1), "", C.PAYLOADEXECUTIONFAILURE, 1),
        (Outcome(2), "", C.PAYLOADEXECUTIONFAILURE, 2),
        (Outcome(3), "", C.PAYLOADEXECUTIONFAILURE, 3),
        (Outcome(255), "", C.PAYLOADEXECUTIONFAILURE, 255),
        (Outcome(139), "", C.PAYLOADSIGSEGV, 139),
        (Outcome(1), "terminate called after throwing an instance of 'std::bad_alloc'", C.BADALLOC, 1),
        (Outcome(None, signal=11), "", C.PAYLOADSIGSEGV, 139),
        (Outcome(None, signal=9), "", C.PAYLOADEXECUTIONFAILURE, 137),
        (Outcome(None, signal=9, guard_died=True), "", C.KILLSIGNAL, 137),
        (Outcome(1), "cp: error writing 'x': No space left on device", C.NOLOCALSPACE, 1),
        (Outcome(2), "OSError: [Errno 122] Disk quota exceeded: 'x'", C.NOLOCALSPACE, 2),
    ],
)
def test_an_end_has_its_code_and_its_exit_code(
    tmp_path: Path, outcome: Outcome, stderr: str, code: int, exit_code: int
) -> None:
    run = job_run(tmp_path)
    error = judge(run, outcome, stderr)
    assert ((error.code if error else 0), run.trans_exit_code) == (code, exit_code)


@pytest.mark.parametrize(("free", "code"), [(0, C.NOLOCALSPACE), (2**20 - 1, C.NOLOCALSPACE), (2**20, 1305)])
def test_a_failure_on_a_full_disk_needs_no_words(tmp_path: Path, free: int, code: int) -> None:
    error = judge(job_run(tmp_path), Outcome(1), "", free)
    assert error is not None and error.code == code
    assert (f"{free} bytes are free on the work disk, the job's directory holds" in error.diag) is (code == 1098)


class Killed(OomWatch):
    """What the kernel has done, as far as a test says so."""

    def evidence(self, killed: bool) -> str:
        return "2 process(es) killed for memory in control group /slot" if killed else ""


@pytest.mark.parametrize(
    ("outcome", "code", "exit_code"),
    [
        (Outcome(None, signal=9), C.PAYLOADOUTOFMEMORY, 137),
        (Outcome(137), C.PAYLOADOUTOFMEMORY, 137),
        (Outcome(1), C.PAYLOADEXECUTIONFAILURE, 1),
        (Outcome(None, signal=15), C.PAYLOADEXECUTIONFAILURE, 143),
        (Outcome(0), 0, 0),
    ],
)
def test_a_kill_by_the_kernel_for_memory_is_running_out_of_memory(
    tmp_path: Path, outcome: Outcome, code: int, exit_code: int
) -> None:
    run = job_run(tmp_path)
    run.oom, run.usage.evidence = Killed(), "10:00:00 95 MB"
    error = judge(run, outcome, "")
    assert ((error.code if error else 0), run.trans_exit_code) == (code, exit_code)
    if code == C.PAYLOADOUTOFMEMORY:
        assert error is not None and "killed for memory in control group /slot" in error.diag
        assert error.diag.endswith("; measured before: 10:00:00 95 MB")


def test_a_failure_shows_the_last_words_without_what_a_terminal_would_obey(tmp_path: Path) -> None:
    error = judge(job_run(tmp_path), Outcome(1), "first\n\x1b[31mcannot open events\x07\n\n  \n")
    assert error is not None
    assert error.diag == "exit code 1; its last words: cannot open events?"
    assert error.blame is Blame.PAYLOAD


# ---- the environment


def test_a_payload_never_sees_the_pilots_credentials(tmp_path: Path) -> None:
    environ = dict.fromkeys(SECRET_VARIABLES, "secret") | {"PILOTKIT_TOKEN": "secret", "HOME": "/home/x"}
    env = payload_environment(environ, job_run(tmp_path), "Q")
    assert "secret" not in env.values()
    assert env["HOME"] == "/home/x"


def test_a_payload_finds_its_job_in_the_environment(tmp_path: Path) -> None:
    run = job_run(tmp_path / "w" / "PanDA_Pilot-254", coreCount=8)
    env = payload_environment({"PandaID": "old", "PWD": "/"}, run, "Q")
    assert env == {
        "PandaID": "254",
        "PANDAID": "254",
        "PanDA_TaskID": "1000",
        "PanDA_AttemptNr": "1",
        "PANDA_RESOURCE": "Q",
        "PILOT_HOME": str(tmp_path / "w"),
        "PWD": str(run.workdir),
        "ATHENA_PROC_NUMBER": "8",
        "PILOT_SLOT_FILE": str(run.workdir / "pilot_slot.json"),
        "PATH": os.defpath,
    }


def test_the_shell_is_there() -> None:
    assert os.access(shell(), os.X_OK)


# ---- the transformation

BASES = ("http://server:25080/trf", "https://mirror/a/b/")


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://server:25080/trf/user/run", True),
        ("http://server:25080/trf/run?x=/../..", True),
        ("https://mirror/a/b/run", True),
        ("http://server:25080/trf", False),
        ("http://server:25080/trf/", False),
        ("http://server:25080/trf/.", False),
        ("http://server:25080/trfs/run", False),
        ("http://server:25080/run", False),
        ("https://server:25080/trf/run", False),
        ("http://server/trf/run", False),
        ("http://server:25081/trf/run", False),
        ("http://evil/trf/run", False),
        ("http://server:25080@evil/trf/run", False),
        ("http://server:25080/trf/../run", False),
        ("http://server:25080/trf/user/../../run", False),
        ("http://server:25080/trf/%2e%2e/run", False),
        ("http://server:25080/trf/user/%2E%2E/%2e./run", False),
        ("http://server:25080/trf/user/../run", True),
    ],
)
def test_only_what_lies_below_a_base_url_may_be_downloaded(url: str, wanted: bool) -> None:
    assert is_below(url, BASES) is wanted


def test_a_script_is_downloaded_and_made_executable(tmp_path: Path) -> None:
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return b"#!/bin/sh\n"

    called = prepare_transformation("https://mirror/a/b/runGen-00-00-02?v=1", tmp_path, BASES, fetch)
    assert (called, asked) == ("./runGen-00-00-02", ["https://mirror/a/b/runGen-00-00-02?v=1"])
    assert os.access(tmp_path / "runGen-00-00-02", os.X_OK)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://evil/trf/run", "http://evil/trf/run lies below none of the allowed base URLs"),
        ("https://mirror/a/b/.hidden", "'.hidden' is no valid name for a script"),
        ("https://mirror/a/b/a%20b", "'a%20b' is no valid name for a script"),
        ("https://mirror/a/b/dir/", "'' is no valid name for a script"),
        ("https://mirror/a/b/run", "https://mirror/a/b/run is empty"),
    ],
)
def test_a_script_that_may_not_be_had_is_named(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(TrfDownloadFailure) as raised:
        prepare_transformation(url, tmp_path, BASES, lambda address: b"")
    assert said in raised.value.diag
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_fails_says_why(tmp_path: Path) -> None:
    def fetch(url: str) -> bytes:
        raise CommunicationFailure("HTTP 404: no such page")

    with pytest.raises(TrfDownloadFailure, match="HTTP 404: no such page"):
        prepare_transformation("https://mirror/a/b/run", tmp_path, BASES, fetch)


@pytest.mark.parametrize("command", ["true", "/bin/sh"])
def test_a_command_of_the_node_is_called_as_it_is(tmp_path: Path, command: str) -> None:
    assert prepare_transformation(command, tmp_path, BASES, lambda url: b"") == command


def test_a_script_in_the_jobs_directory_is_called_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("")
    assert prepare_transformation("./run.sh", tmp_path, BASES, lambda url: b"") == "./run.sh"


@pytest.mark.parametrize("command", ["no-such-command-anywhere", "./none.sh", "/no/such/script"])
def test_a_command_that_is_not_there_is_named(tmp_path: Path, command: str) -> None:
    with pytest.raises(PilotException, match="is neither a URL nor a command on this node") as raised:
        prepare_transformation(command, tmp_path, BASES, lambda url: b"")
    assert raised.value.code == C.TRANSFORMNOTFOUND


# ---- a payload at work


class Stage:
    """A payload controller in its thread, and the events it brings."""

    def __init__(self, shared: Context) -> None:
        self.shared = shared
        self.events: list[Event] = []
        self.ended = threading.Event()
        self.controller = PayloadController(shared, self._handle)
        self._thread = threading.Thread(target=self.controller.run, name="payload")
        self._thread.start()

    def _handle(self, run: JobRun, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, PayloadEnded):
            self.ended.set()

    def play(self, command: str, **changes: Json) -> JobRun:
        """Run a shell command as a job; return the job when it is over."""
        run = job_run(
            self.shared.workdir / "PanDA_Pilot-254",
            transformation="/bin/sh",
            jobPars="-c 'exec 3<&-; . ./script'",
            **changes,
        )
        run.workdir.mkdir()
        (run.workdir / "script").write_text(command)
        for event in (Accepted(), StagedIn()):
            run.lifecycle.handle(event)
        self.controller.payloads.put(run)
        assert self.ended.wait(SOON)
        return run

    def close(self) -> None:
        self.controller.payloads.put(None)
        self._thread.join()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(context(tmp_path, environ={"PATH": os.environ["PATH"], "X509_USER_PROXY": "/tmp/x"}))
    yield made
    made.close()


@pytest.mark.parametrize(("code", "told"), [(137, ", which is how shells tell of SIGKILL"), (128, ""), (255, "")])
def test_an_exit_code_that_stands_for_a_signal_says_for_which(tmp_path: Path, code: int, told: str) -> None:
    error = judge(job_run(tmp_path), Outcome(code), "")
    assert error is not None and error.diag == f"exit code {code}{told}"


@pytest.mark.parametrize("code", [1, 2, 3])
def test_exit_codes_one_two_and_three_are_reported_just_the_same(stage: Stage, code: int) -> None:
    run = stage.play(f"echo events; echo sorry >&2; exit {code}")
    started, over = stage.events
    assert isinstance(started, PayloadStarted) and isinstance(over, PayloadEnded)
    assert over.error is not None
    assert (over.error.code, run.trans_exit_code) == (C.PAYLOADEXECUTIONFAILURE, code)
    assert over.error.diag == f"exit code {code}; its last words: sorry"
    assert (run.workdir / "payload.stdout").read_text() == "events\n"
    assert (run.workdir / "payload.stderr").read_text() == "sorry\n"


def test_a_good_payload_ends_without_an_error_and_is_measured(stage: Stage) -> None:
    run = stage.play("env > environment; pwd")
    assert isinstance(stage.events[-1], PayloadEnded) and stage.events[-1].error is None
    assert run.trans_exit_code == 0 and run.ended > 0
    assert run.timing["payload"] > 0 and run.outcome is not None
    environment = (run.workdir / "environment").read_text()
    assert "PandaID=254\n" in environment and "X509_USER_PROXY" not in environment
    assert (run.workdir / "payload.stdout").read_text().strip() == str(run.workdir)


def test_a_transformation_that_cannot_be_had_ends_a_payload_that_never_started(stage: Stage) -> None:
    run = job_run(stage.shared.workdir / "job", transformation="http://server:25080/trf/user/run")
    run.workdir.mkdir()
    stage.controller.payloads.put(run)
    assert stage.ended.wait(SOON)
    (over,) = stage.events
    assert isinstance(over, PayloadEnded) and over.error is not None
    assert over.error.code == C.TRFDOWNLOADFAILURE


@pytest.mark.parametrize("change", [{"container_name": "docker://x"}, {"jobPars": "--containerImage=docker://x"}])
def test_a_job_that_wants_a_container_is_not_run_without_one(stage: Stage, change: dict[str, Json]) -> None:
    run = job_run(stage.shared.workdir / "job", **{"transformation": "true", **change})
    run.workdir.mkdir()
    stage.controller.payloads.put(run)
    assert stage.ended.wait(SOON)
    (over,) = stage.events
    assert isinstance(over, PayloadEnded) and over.error is not None
    assert over.error.code == C.QUEUENOTSETUPFORCONTAINERS and "docker://x" in over.error.diag


def test_a_machines_commands_come_before_the_payload_in_its_shell(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilot.resource.generic.get_setup", lambda job=None: ["export SITE=here", f"JOB={job.jobid}"])
    run = stage.play('echo "$SITE"')
    assert (run.workdir / "payload.stdout").read_text() == "here\n"


# ---- the job report, which the payload writes


def play_report(stage: Stage, report: bytes) -> JobRun:
    (stage.shared.workdir / "report").write_bytes(report)
    return stage.play("cp ../report jobReport.json")


def test_the_job_report_is_sent_and_gives_the_transformations_own_error(stage: Stage) -> None:
    report = {
        "exitCode": 8,
        "exitMsg": "bad event",
        "files": {"output": [{"subFiles": [{"name": "out.txt", "file_guid": "ABC"}, {"name": "x", "file_guid": "D"}]}]},
    }
    run = play_report(stage, json.dumps(report).encode())
    assert (run.exe_error_code, run.exe_error_diag, run.report) == (8, "bad event", report)
    assert json.loads(run.metadata) == report


def test_events_and_database_figures_of_a_job_report_become_metrics(stage: Stage) -> None:
    steps = {"first": {"nevents": 90, "dbTime": 1.5, "dbData": 10}, "second": {"nevents": 100, "dbTime": 2}}
    run = play_report(stage, json.dumps({"resource": {"executor": steps, "dbDataTotal": 77}}).encode())
    assert run.figures == {"nEvents": "100", "dbTime": "3", "dbData": "77"}


def test_totals_of_a_job_report_win_over_its_steps_and_events_written_are_counted(stage: Stage) -> None:
    outputs = [
        {"subFiles": [{"name": "a", "nentries": 40}, {"name": "b", "nentries": 50}]},
        {"subFiles": [{"name": "c", "nentries": 7}]},
        {"subFiles": 7},
        7,
    ]
    resource = {"executor": {"a": {"nevents": 100}}, "transform": {"processedEvents": 95}}
    run = play_report(stage, json.dumps({"resource": resource, "files": {"output": outputs}}).encode())
    assert run.figures == {"nEvents": "95", "nEventsW": "90"}


@pytest.mark.parametrize("form", [{"maxPSS": 900, "maxRSS": 800}, {"pss": 900, "rss": 800}])
def test_a_payload_too_short_to_be_measured_tells_its_memory_itself(stage: Stage, form: Json) -> None:
    steps = {"a": {"memory": {"Max": form, "Avg": {"avgPSS": 500}}}, "b": {"memory": {"Max": {"pss": 100}}}}
    run = play_report(stage, json.dumps({"resource": {"executor": steps}}).encode())
    assert (run.usage.maximum["pss"], run.usage.maximum["rss"], run.usage.average("pss")) == (900, 800, 500)


def test_the_message_of_a_report_has_its_supplement(stage: Stage) -> None:
    report = {"exitCode": 65, "exitMsg": "bad event", "exitMsgExtra": "in run 3 "}
    assert play_report(stage, json.dumps(report).encode()).exe_error_diag == "bad event; in run 3"


@pytest.mark.parametrize(
    ("report", "users", "wanted"),
    [
        ("", '{"a": 1}', {"a": 1}),
        ("", "[1, 2]", {"userJobMetadata": [1, 2]}),
        ('{"exitCode": 0}\n', '{"a": 1}', {"exitCode": 0, "userJobMetadata": {"a": 1}}),
        ("{ }", '{"a": 1}', {"userJobMetadata": {"a": 1}}),
        ('{"userJobMetadata": 7}', '{"a": 1}', {"userJobMetadata": 7}),
        ('{"exitCode": 0}', "no json", {"exitCode": 0}),
        ('{"exitCode": 0}', f'"{"x" * 1048576}"', {"exitCode": 0}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_users_want_with_their_job_goes_with_the_report_or_alone(
    stage: Stage, report: str, users: str, wanted: Json
) -> None:
    (stage.shared.workdir / "report").write_text(report)
    (stage.shared.workdir / "users").write_text(users)
    made = "cp ../users userJobMetadata.json" + ("; cp ../report jobReport.json" if report else "")
    assert json.loads(stage.play(made).metadata) == wanted


@pytest.mark.parametrize("name", ["jobReport.json", "userJobMetadata.json", "payload.stderr", "payload.stdout"])
@pytest.mark.parametrize("how", ["ln -s $PWD/../secret.json {}", "mkfifo {}", "mkdir {}", "ln -s {} {}"])
def test_nothing_that_takes_the_name_of_a_file_is_followed_or_waited_for(stage: Stage, name: str, how: str) -> None:
    (stage.shared.workdir / "secret.json").write_text('{"exitCode": 5, "exitMsg": "c4na7y"}')
    run = stage.play(f"rm -f {name}; {how.format(name, name)}; exit 3")
    over = stage.events[-1]
    assert isinstance(over, PayloadEnded) and over.error is not None
    assert (over.error.code, run.metadata, run.exe_error_diag) == (C.PAYLOADEXECUTIONFAILURE, "", "")
    assert "c4na7y" not in over.error.diag
    assert tail_bytes(run.workdir / name, 100) == b""


@pytest.mark.parametrize(
    "resource",
    [
        5,
        {},
        {"executor": 5},
        {"executor": {"a": 5}},
        {"executor": {"a": {"nevents": "many", "dbTime": [1]}}},
        {"executor": {"a": {"nevents": -1}}},
        {"executor": {"a": {"nevents": 1e300, "dbData": True}}},
        {"dbTimeTotal": {}},
    ],
)
def test_figures_that_make_no_sense_are_none(stage: Stage, resource: Json) -> None:
    assert play_report(stage, json.dumps({"resource": resource}).encode()).figures == {}


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b"x" * 2_000_000,
    ],
    ids=lambda report: repr(report[:20]),
)
def test_a_report_that_is_none_is_not_sent_and_harms_nobody(stage: Stage, report: bytes) -> None:
    run = play_report(stage, report)
    assert run.metadata == ""
    assert isinstance(stage.events[-1], PayloadEnded) and stage.events[-1].error is None


@pytest.mark.parametrize(
    "report",
    [
        b'{"exitCode": 1e999}',
        b'{"exitCode": "many"}',
        b'{"exitCode": [1]}',
        b'{"exitCode": 99999999999999999999}',
        b'{"exitCode": NaN}',
        b'{"files": 5}',
        b'{"files": {"output": 5}}',
        b'{"files": {"output": [5, null]}}',
        b'{"files": {"output": [{"subFiles": 5}]}}',
        b'{"files": {"output": [{"subFiles": [5, {"name": ["out.txt"], "file_guid": "A"}]}]}}',
        b'{"files": {"output": [{"subFiles": [{"name": "out.txt", "file_guid": {"a": 1}}]}]}}',
        b'{"files": {"output": [{"subFiles": [{"file_guid": "A"}]}]}, "exitMsg": {"a": 1}}',
    ],
)
def test_a_report_with_odd_contents_harms_nobody(stage: Stage, report: bytes) -> None:
    run = play_report(stage, report)
    assert (run.exe_error_code, run.data.outdata[0].guid) == (0, "")
    assert isinstance(stage.events[-1], PayloadEnded) and stage.events[-1].error is None


def test_a_report_that_is_no_file_harms_nobody(stage: Stage) -> None:
    assert stage.play("mkdir jobReport.json").metadata == ""


def test_a_payload_that_removes_its_own_directory_still_ends(stage: Stage) -> None:
    run = stage.play("rm -rf $PWD; exit 5")
    assert run.trans_exit_code == 5
