"""The command line against a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import termios
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from tests.servers import RunningServer, running_server

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-m", "server.cli.main"]
ANY_TIME = 60  # s; nothing here takes as long, a hang shall not block the suite


class Shell:
    """Runs `pilotkit` against one server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*RUN, *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PILOTKIT_URL": self.url},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=ANY_TIME,
        )

    def json(self, *arguments: str, stdin: str = "") -> list[dict[str, object]]:
        done = self(*arguments, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        value = json.loads(done.stdout)
        return value if isinstance(value, list) else [value]

    def submit(self, **fields: object) -> int:
        """Submit a job to the queue Q; returns its id."""
        taken = self.json("submit", "-", stdin=json.dumps({"queue": "Q", "command": "true", **fields}))
        return int(str(taken[0]["PandaID"]))

    def call(self, method: str, **arguments: object) -> dict[str, object]:
        """A call of a pilot."""
        answer = requests.post(f"{self.url}/api/v1/{method}", json=arguments, timeout=ANY_TIME).json()
        assert answer["success"], answer
        data = answer["data"]
        assert isinstance(data, dict)
        return data

    def fail_next(self) -> int:
        """Be a pilot: take the next job of queue Q, and report that its payload failed. Returns its id."""
        jobs = self.call("pilot/acquire_jobs", site_name="Q", prod_source_label="user")["jobs"]
        assert isinstance(jobs, list)
        number = int(jobs[0]["PandaID"])
        self.call(
            "pilot/update_job",
            job_id=number,
            job_status="failed",
            trans_exit_code="3",
            pilot_error_code=1305,
            pilot_error_diag="the payload ended with exit code 3",
        )
        return number


def serve(data: Path) -> AbstractContextManager[RunningServer]:
    """`pilotkit serve` as a person starts it."""
    return running_server(data, program=[*RUN, "serve", "--port", "0", "--data", str(data), "--workers", "1"])


@pytest.fixture(scope="module")
def pilotkit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with serve(tmp_path_factory.mktemp("data")) as server:
        shell = Shell(server.url)
        added = shell("queue", "add", "-", stdin='{"Q": {"maxrss": 4000}}')
        assert (added.returncode, added.stdout) == (0, "added: Q\n"), added.stderr
        yield shell


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_stops_cleanly_on_a_signal(tmp_path: Path, number: int) -> None:
    with serve(tmp_path / "data") as server:
        assert Shell(server.url)("jobs").returncode == 0
        assert server.stop(number) == 0
        assert Shell(server.url)("jobs").returncode == 3
        assert (tmp_path / "data").is_dir()
        assert "".join(server.output) == f"pilotkit: serving {server.url}\n"


def test_serve_refuses_an_open_address_without_credentials(tmp_path: Path) -> None:
    done = subprocess.run(
        [*RUN, "serve", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=ANY_TIME,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("pilotkit: ")
    assert "tokens" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_refuses_a_folder_in_use_and_a_database_it_cannot_use(pilotkit: Shell, tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        done = pilotkit("serve", "--port", "0", "--data", str(server.data))
        assert done.returncode == 1
        assert f"{server.data} is in use by pid {server.pid}" in done.stderr
    (tmp_path / "junk.db").write_text("no database\n" * 1000)
    for url in (f"sqlite:///{tmp_path}/junk.db", "postgresql+nosuch://u:secret@127.0.0.1/x"):
        done = pilotkit("serve", "--port", "0", "--data", str(tmp_path / "other"), "--database", url)
        assert done.returncode == 1
        assert done.stderr.startswith("pilotkit: The database ")
        assert done.stderr.count("\n") == 1
        assert "secret" not in done.stderr


def test_a_queue_is_added_listed_shown_and_changed(pilotkit: Shell, tmp_path: Path) -> None:
    file = tmp_path / "queues.json"
    file.write_text('{"OTHER": {"corecount": 8}}')
    assert pilotkit("queue", "add", str(file)).stdout == "added: OTHER\n"
    assert "OTHER" in pilotkit("queue", "list").stdout
    assert {queue["name"] for queue in pilotkit.json("queue", "list")} >= {"Q", "OTHER"}
    changed = pilotkit("queue", "set", "OTHER", "status=offline", "maxrss=3000", 'params={"a": 1}')
    assert changed.stdout == 'OTHER: status = "offline", maxrss = 3000, params = {"a": 1}\n', changed.stderr
    shown = json.loads(pilotkit("queue", "show", "OTHER").stdout)
    assert (shown["status"], shown["maxrss"], shown["params"], shown["corecount"]) == ("offline", 3000, {"a": 1}, 8)


def test_an_unknown_queue_is_refused_with_its_name(pilotkit: Shell) -> None:
    for arguments in (["queue", "show", "NOWHERE"], ["queue", "set", "NOWHERE", "status=online"]):
        done = pilotkit(*arguments)
        assert done.returncode == 1
        assert "NOWHERE" in done.stderr
        assert done.stdout == ""


def test_a_storage_is_added_and_listed(pilotkit: Shell) -> None:
    offer = [{"endpoint": "file://localhost", "flavour": "local", "id": 1, "path": "/data/"}]
    description = {"DISK": {"state": "ACTIVE", "is_deterministic": True, "arprotocols": {"default": offer}}}
    assert pilotkit("storage", "add", "-", stdin=json.dumps(description)).stdout == "added: DISK\n"
    assert "file://localhost/data/" in pilotkit("storage", "list").stdout
    assert pilotkit.json("storage", "list")[0]["DISK"]


def test_a_job_is_submitted_listed_and_shown(pilotkit: Shell) -> None:
    number = pilotkit.submit(name="hello", outputs=["out.txt"])
    listed = next(job for job in pilotkit.json("jobs", "--queue", "Q") if job["PandaID"] == number)
    assert (listed["jobStatus"], listed["computingSite"], listed["attemptNr"]) == ("activated", "Q", 1)
    assert str(number) in pilotkit("jobs").stdout
    shown = pilotkit("job", str(number))
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"job {number}: activated\n")
    assert "hello" in shown.stdout
    assert "out.txt" in shown.stdout


def test_a_list_of_jobs_is_taken_together_or_not_at_all(pilotkit: Shell) -> None:
    before = len(pilotkit.json("jobs"))
    two = [{"queue": "Q", "command": "true"}, {"queue": "Q", "command": "true", "cores": "many"}]
    done = pilotkit("submit", "-", stdin=json.dumps(two))
    assert done.returncode == 1
    assert "job 1" in done.stderr
    assert "cores" in done.stderr
    assert len(pilotkit.json("jobs")) == before


def test_a_sandbox_is_uploaded_with_the_job(pilotkit: Shell, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("echo hi\n")
    with tarfile.open(tmp_path / "box.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "run.sh", arcname="run.sh")
    taken = pilotkit.json(
        "submit", "-", "--sandbox", str(tmp_path / "box.tar.gz"), stdin='{"queue": "Q", "command": "sh run.sh"}'
    )
    parameters = str(pilotkit.json("job", str(taken[0]["PandaID"]))[0]["jobPars"])
    name = parameters.partition(" -a ")[2].split()[0]
    fetched = requests.get(f"{pilotkit.url}/cache/{name}", timeout=ANY_TIME)
    assert fetched.content == (tmp_path / "box.tar.gz").read_bytes()


def test_a_job_that_waits_names_what_it_waits_for(pilotkit: Shell) -> None:
    first = pilotkit.submit(outputs=["step1.root"], user="chain")
    second = pilotkit.submit(inputs=["step1.root"], user="chain")
    shown = pilotkit("job", str(second)).stdout
    assert shown.startswith(f"job {second}: assigned\n")
    assert f"step1.root, an output of job {first}" in shown


def test_a_state_or_queue_that_does_not_exist_is_said_to_be_none(pilotkit: Shell) -> None:
    done = pilotkit("jobs", "--status", "weird")
    assert done.returncode == 1
    assert "'weird' is no state of a job" in done.stderr
    assert "activated, sent, starting" in done.stderr
    done = pilotkit("jobs", "--queue", "NOWHERE")
    assert done.returncode == 1
    assert "no queue 'NOWHERE'" in done.stderr
    assert pilotkit("jobs", "--status", "failed", "--queue", "Q").returncode == 0


def test_a_sandbox_that_is_no_archive_is_refused_and_no_job_is_stored(pilotkit: Shell, tmp_path: Path) -> None:
    before = len(pilotkit.json("jobs"))
    (tmp_path / "run.sh").write_text("echo hi\n")
    job = '{"queue": "Q", "command": "sh run.sh"}'
    done = pilotkit("submit", "-", "--sandbox", str(tmp_path / "run.sh"), stdin=job)
    assert done.returncode == 1
    assert "no gzip'd tar archive" in done.stderr
    assert len(pilotkit.json("jobs")) == before


def test_a_queue_without_its_storage_is_accepted_with_a_note(pilotkit: Shell) -> None:
    done = pilotkit("queue", "add", "-", stdin='{"LONELY": {"astorages": {"default": ["NOT_THERE"]}}}')
    assert (done.returncode, done.stdout) == (0, "added: LONELY\n")
    assert "note: queue LONELY uses the storage NOT_THERE" in done.stderr
    changed = pilotkit("queue", "set", "LONELY", "astorages={}", "state=DISABLED")
    assert changed.returncode == 0
    assert "note: queue LONELY is in state DISABLED" in changed.stderr
    renamed = pilotkit("queue", "set", "LONELY", "name=OTHER")
    assert renamed.returncode == 1
    assert "name cannot be changed" in renamed.stderr


def test_kill_says_what_happened_to_each_job(pilotkit: Shell) -> None:
    number = pilotkit.submit()
    done = pilotkit("kill", str(number))
    assert done.returncode == 0, done.stderr
    assert f"job {number}" in done.stdout
    assert pilotkit.json("job", str(number))[0]["jobStatus"] == "cancelled"
    again = pilotkit("kill", str(number), "999999999")
    assert again.returncode == 1
    assert "999999999" in again.stdout


def test_kill_in_json_has_an_answer_for_each_job(pilotkit: Shell) -> None:
    number = pilotkit.submit()
    done = pilotkit("kill", "--json", str(number), "999999999")
    assert json.loads(done.stdout) == [
        {"PandaID": number, "accepted": True},
        {"PandaID": 999999999, "accepted": False},
    ]
    assert done.returncode == 1


def test_an_unknown_job_is_refused(pilotkit: Shell) -> None:
    done = pilotkit("job", "999999999")
    assert done.returncode == 1
    assert "999999999" in done.stderr
    assert done.stdout == ""


def test_waiting_for_a_job_that_does_not_end_times_out_with_5(pilotkit: Shell) -> None:
    done = pilotkit("job", str(pilotkit.submit()), "--wait", "--timeout", "0.3")
    assert done.returncode == 5
    assert "is still activated after 0.3 s" in done.stderr


def test_a_failed_job_is_shown_with_blame_and_advice_and_waiting_for_it_gives_4(pilotkit: Shell) -> None:
    pilotkit("queue", "add", "-", stdin='{"Q": {}}')
    for job in pilotkit.json("jobs", "--status", "activated"):
        pilotkit("kill", str(job["PandaID"]))
    number = pilotkit.submit()
    assert pilotkit.fail_next() == number
    done = pilotkit("job", str(number), "--wait", "--timeout", "30")
    assert done.returncode == 4
    assert done.stderr == f"pilotkit: job {number} is failed\n"
    assert "1305" in done.stdout
    assert "the payload ended with exit code 3" in done.stdout
    assert "to blame           payload" in done.stdout
    assert "what to do" in done.stdout
    assert "pilot 1305: the payload ended with exit code 3" in pilotkit("jobs", "--status", "failed").stdout
    assert pilotkit.json("jobs", "--status", "failed")[0]["pilotErrorCode"] == 1305


def test_output_is_plain_text_when_it_is_no_terminal(pilotkit: Shell) -> None:
    pilotkit.submit()
    shown = pilotkit("jobs").stdout + pilotkit("queue", "list").stdout
    assert "\x1b" not in shown
    assert not set(shown) & set("│─┃━╭")


def on_terminal(url: str, *arguments: str, **more: str) -> str:
    """What a command shows on a terminal of 120 columns."""
    leader, terminal = os.openpty()
    try:
        termios.tcsetwinsize(terminal, (40, 120))
        environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "PILOTKIT_URL": url, **more}
        process = subprocess.Popen([*RUN, *arguments], cwd=ROOT, env=environment, stdin=terminal, stdout=terminal)
    finally:
        os.close(terminal)
    shown = b""
    with open(leader, "rb", buffering=0) as screen:
        try:
            while chunk := screen.read(65536):
                shown += chunk
        except OSError:  # EIO: how a terminal says that nobody writes to it any more
            pass
    assert process.wait(ANY_TIME) == 0
    return shown.decode()


def test_a_terminal_gets_colours_unless_they_are_not_wanted(pilotkit: Shell) -> None:
    number = pilotkit.submit()
    pilotkit("kill", str(number))
    magenta = "\x1b[35m"
    for arguments in (["jobs", "--status", "cancelled"], ["job", str(number)]):
        assert magenta in on_terminal(pilotkit.url, *arguments)
        plain = on_terminal(pilotkit.url, *arguments, NO_COLOR="1")
        assert "cancelled" in plain
        assert magenta not in plain


def test_a_reader_that_leaves_is_no_error(pilotkit: Shell) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$0" -m server.cli.main jobs --json | head -1; exit ${PIPESTATUS[0]}', sys.executable],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PILOTKIT_URL": pilotkit.url},
        capture_output=True,
        text=True,
        timeout=ANY_TIME,
    )
    assert done.stderr == ""


@pytest.fixture
def stranger() -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    """Some other web server: its address, and the answers it will give."""
    answers: list[tuple[int, bytes]] = []

    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Nothing: the log would mix with pytest's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}", answers
        http.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, b"<html>not found</html>", 3),
        (200, b"<html>welcome</html>", 3),
        (200, b'{"hello": "world"}', 3),
        (200, b'{"success": true, "message": "", "data": 5}', 3),
        (302, b"", 3),
        (401, b"no token", 1),
        (403, b"not yours", 1),
        (403, b'{"success": false, "message": "This token is not known here.", "data": null}', 1),
        (200, b'{"success": false, "message": "no such thing"}', 1),
    ],
)
def test_a_server_that_is_not_ours_or_says_no_is_told_apart(
    stranger: tuple[str, list[tuple[int, bytes]]], status: int, body: bytes, code: int
) -> None:
    url, answers = stranger
    answers.append((status, body))
    done = Shell(url)("jobs")
    assert done.returncode == code
    assert done.stderr.startswith("pilotkit: ")
    assert "Traceback" not in done.stderr
    assert '"success"' not in done.stderr
    assert done.stdout == ""


def test_jobs_are_listed_by_task_and_user(pilotkit: Shell) -> None:
    number = pilotkit.submit(taskID=4711, user="alice")
    pilotkit.submit(taskID=4712, user="alice")
    pilotkit.submit(taskID=4711, user="bob")
    found = pilotkit.json("jobs", "--task", "4711", "--user", "alice")
    assert [job["PandaID"] for job in found] == [number]
    assert len(pilotkit.json("jobs", "--task", "4711")) == len(pilotkit.json("jobs", "--user", "alice")) == 2
    assert pilotkit("jobs", "--task", "0").returncode == 2


def test_a_queue_is_removed_when_it_is_empty_or_by_force(pilotkit: Shell) -> None:
    assert pilotkit("queue", "add", "-", stdin='{"OLD": {}}').returncode == 0
    number = pilotkit.submit(queue="OLD")
    refused = pilotkit("queue", "remove", "OLD")
    assert refused.returncode == 1
    assert f"The queue 'OLD' has jobs that are not over (1, the newest is {number})." in refused.stderr
    assert pilotkit("queue", "remove", "OLD", "--force").stdout == "removed: OLD (jobs killed: 1)\n"
    assert "OLD" not in pilotkit("queue", "list").stdout
    assert pilotkit.json("job", str(number))[0]["jobStatus"] == "cancelled"
    assert pilotkit("queue", "remove", "OLD").returncode == 1


def test_a_storage_is_removed_unless_a_queue_names_it(pilotkit: Shell) -> None:
    pilotkit("storage", "add", "-", stdin='{"FREE": {}, "USED": {}}')
    pilotkit("queue", "add", "-", stdin='{"USER": {"astorages": {"default": ["USED"]}}}')
    assert pilotkit.json("storage", "remove", "FREE") == [{"name": "FREE"}]
    refused = pilotkit("storage", "remove", "USED")
    assert refused.returncode == 1 and "is named by the queues USER (astorages)" in refused.stderr
    assert pilotkit("storage", "remove", "USED", "--force").stdout == "removed: USED\n"


def test_numbers_over_time_are_shown_as_the_daemon_noted_them(pilotkit: Shell) -> None:
    assert pilotkit("metrics").stdout.split("\n")[0].split() == ["TIME", "OF", "STATE", "JOBS"]
    assert isinstance(pilotkit.json("metrics", "--shares", "--hours", "24"), list)
    assert pilotkit("metrics", "--queue", "Q", "--shares").returncode == 2
    assert pilotkit("metrics", "--hours", "0").returncode == 2


def test_a_dataset_is_shown_with_its_files(pilotkit: Shell) -> None:
    outputs = [{"lfn": f"set.{name}.txt", "scope": "user.jane", "dataset": "user.jane.set"} for name in "ab"]
    number = pilotkit.submit(outputs=outputs, user="jane")
    (found,) = pilotkit.json("datasets", "user.jane.s*", "--state", "open")
    assert (found["scope"], found["name"], found["prodUserName"]) == ("user.jane", "user.jane.set", "jane")
    assert pilotkit("datasets", "--user", "jane").stdout.split("\n")[1].startswith("user.jane:user.jane.set  open")
    shown = pilotkit("datasets", "user.jane:user.jane.set").stdout.split("\n")
    assert shown[0] == "user.jane:user.jane.set of jane is open: 0 files with 0 bytes, 2 to come, 0 lost"
    assert [line.split()[:3] for line in shown[2:4]] == [[f"set.{name}.txt", "promised", str(number)] for name in "ab"]
    unknown = pilotkit("datasets", "user.jane:none")
    assert unknown.returncode == 1 and "There is no dataset 'user.jane:none'" in unknown.stderr
    assert pilotkit("datasets", "--state", "frozen").returncode == 2


def test_a_lost_file_is_made_again(pilotkit: Shell) -> None:
    number = pilotkit.submit(outputs=["lost.txt"], priority=5000)
    pilotkit.call("pilot/acquire_jobs", site_name="Q", prod_source_label="user")
    files = pilotkit.json("job", str(number))[0]["files"]
    assert isinstance(files, list)
    there = {"guid": "BCC1C31E-2C0C-4E2B-9F0C-0A5D5D5E5F5A", "fsize": 1, "adler32": "00000001"}
    report = json.dumps({str(file["lfn"]): there for file in files})
    pilotkit.call("pilot/update_job", job_id=number, job_status="finished", job_output_report=report)
    assert pilotkit("job", str(number), "--wait").returncode == 0
    (scope,) = {str(file["scope"]) for file in files if file["type"] == "output"}
    would = pilotkit("recover", "--dry-run", f"{scope}:lost.txt")
    assert (would.returncode, would.stdout) == (0, f"job {number}: would run again\n"), would.stderr
    assert pilotkit("recover", f"{scope}:lost.txt").stdout.startswith(f"job {number}: runs again as job ")
    unknown = pilotkit("recover", f"{scope}:never.txt")
    assert unknown.returncode == 1 and f"{scope}:never.txt" in unknown.stderr
