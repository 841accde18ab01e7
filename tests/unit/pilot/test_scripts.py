"""The stand-alone scripts, run as a user runs them: a request in JSON, a result in JSON, and an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.info.filespec import FileSpec
from pilot.info.replica import Replica
from pilot.scripts.request import read_request, request_json
from pilot.util.https import Json
from tests.unit.pilot.builders import storage

C = ErrorCodes
ROOT = Path(__file__).parents[3]
CONTENTS = b"events" * 100
# s that a script may take on a busy machine.
PATIENCE = 60


def run(script: str, *arguments: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"pilot.scripts.{script}", *arguments],
        input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def written(path: Path, data: Json) -> str:
    path.write_text(json.dumps(data), encoding="utf-8")
    return str(path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A directory with a file f.root, and one for the job."""
    for name in ("store", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "store" / "f.root").write_bytes(CONTENTS)
    return tmp_path / "store"


def test_files_come_in_and_the_result_tells_all_of_them(tmp_path: Path, store: Path) -> None:
    request: Json = {"files": [{"lfn": "g.root", "surl": f"file://{store}/f.root", "filesize": len(CONTENTS)}]}
    ended = run("stagein", "-", "--workdir", str(tmp_path / "work"), stdin=json.dumps(request))
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    (one,) = result["files"]
    assert (one["lfn"], one["status"], one["error"]) == ("g.root", "transferred", None)
    assert one["filesize"] == len(CONTENTS) and one["checksum"]["adler32"]
    assert result["error"] is None and [row["kind"] for row in result["attempts"]] == ["ok"]
    assert (tmp_path / "work" / "g.root").read_bytes() == CONTENTS
    assert "transfers:" in ended.stderr


def test_a_file_that_fails_is_told_with_its_code_and_the_exit_code_is_not_0(tmp_path: Path, store: Path) -> None:
    files: Json = [{"lfn": name, "surl": str(store / name)} for name in ("f.root", "none.root")]
    request, result = written(tmp_path / "r.json", {"files": files}), tmp_path / "result.json"
    ended = run("stagein", request, "--workdir", str(tmp_path / "work"), "--result", str(result), "--quiet")
    assert ended.returncode == 1 and ended.stdout == ""
    found = {one["lfn"]: one for one in json.loads(result.read_text())["files"]}
    assert found["f.root"]["status"] == "transferred"
    assert found["none.root"]["error"]["code"] == C.MISSINGINPUTFILE
    assert "none.root is not at" in ended.stderr


def test_a_queue_and_its_storages_decide_where_files_are(tmp_path: Path) -> None:
    described: Json = {"A": storage(tmp_path / "A"), "B": storage(tmp_path / "B")}
    queue: Json = {"name": "Q", "acopytools": {"default": ["mv"]}, "astorages": {"default": ["A"], "pl": ["B"]}}
    (tmp_path / "out.root").write_bytes(CONTENTS)
    files: Json = [{"lfn": "out.root", "scope": "mc"}]
    options = [
        "--queuedata", written(tmp_path / "q.json", queue), "--storagedata", written(tmp_path / "s.json", described),
    ]  # fmt: skip
    request = written(tmp_path / "r.json", {"files": files})
    for activity, endpoint in (("", "A"), ("pl", "B")):
        ended = run("stageout", request, *options, "--activity", activity, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        (one,) = json.loads(ended.stdout)["files"]
        assert one["ddmendpoint"] == endpoint
        assert Path(one["surl"].replace("file://localhost", "")).read_bytes() == CONTENTS


def test_outputs_go_where_their_surl_says_and_overwrite_nothing_unless_told_to(tmp_path: Path, store: Path) -> None:
    (tmp_path / "f.root").write_bytes(b"new")
    request = written(tmp_path / "r.json", {"files": [{"lfn": "f.root", "surl": str(store / "f.root")}]})
    refused = run("stageout", request, cwd=tmp_path)
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["error"]["code"] == C.FILEEXISTS
    assert (store / "f.root").read_bytes() == CONTENTS
    assert run("stageout", request, "--may-replace", cwd=tmp_path).returncode == 0
    assert (store / "f.root").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("request_text", "said"),
    [
        ("", "no JSON could be read"),
        ("[]", "a JSON object is needed"),
        ("{}", "field files: a list of files is needed"),
        ('{"files": [], "file": []}', "unknown field 'file'"),
        ('{"files": [1]}', "field files[0]: an object is needed"),
        ('{"files": [{"lfn": "a", "checksumm": ""}]}', "files[0]: unknown field 'checksumm'"),
        ('{"files": [{"lfn": "../a"}]}', "files[0].lfn"),
        ('{"files": [{"surl": "/a"}]}', "files[0].lfn"),
        ('{"files": [{"lfn": "a"}, {"lfn": "a"}]}', "a name is there twice"),
        ('{"files": [{"lfn": "a", "filesize": -1}]}', "files[0].filesize: a number of bytes is needed"),
        ('{"files": [{"lfn": "a", "filesize": "1"}]}', "files[0].filesize"),
        ('{"files": [{"lfn": "a", "checksum": "zz"}]}', "files[0].checksum"),
        ('{"files": [{"lfn": "a", "scope": 1}]}', "files[0].scope: a text is needed"),
        ('{"files": [{"lfn": "a", "replicas": [{}]}]}', "files[0].replicas"),
        ('{"files": [{"lfn": "a", "replicas": 1}]}', "files[0].replicas"),
        ('{"files": [], "queue": 1}', "field queue: an object is needed"),
        ('{"files": [], "queue": {"name": "Q", "maxrss": "x"}}', "maxrss"),
    ],
)
def test_a_bad_request_is_refused_by_the_name_of_the_field(tmp_path: Path, request_text: str, said: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(request_text)
    with pytest.raises(PilotException) as raised:
        read_request(str(path), "", "", "input")
    assert said in raised.value.diag


@pytest.mark.parametrize("arguments", [["/none.json"], ["-", "--config", "/none.cfg"]])
def test_what_cannot_be_read_ends_a_script_with_2_and_a_sentence(arguments: list[str]) -> None:
    ended = run("stagein", *arguments, stdin='{"files": []}')
    assert ended.returncode == 2 and "/none." in ended.stderr and "Traceback" not in ended.stderr


def test_a_request_carries_all_that_is_known_of_a_file(tmp_path: Path) -> None:
    spec = FileSpec(
        "f.root", "input", "mc", "guid", "mc.ds", "A", 5, {"adler32": "00000001"},
        [Replica("A", "root://a//f", "lan", 2)], accessmode="direct", storage_token="local",
    )  # fmt: skip
    path = written(tmp_path / "r.json", request_json([spec], {"name": "Q"}, {}, {("a", "b"): ("id", "secret")}))
    read = read_request(path, "", "", "output")
    assert read.files == [spec] and read.infosys.queuedata.name == "Q"
    assert read.key_pair("a", "b") == ("id", "secret")
    with pytest.raises(PilotException, match="did not come with the request") as raised:
        read.key_pair("a", "c")
    assert raised.value.code == C.MISSINGCREDENTIALS


def test_a_script_that_is_told_to_stop_writes_what_it_has(tmp_path: Path, store: Path) -> None:
    # A pipe that nobody writes to: reading it would wait for ever, so a site's own script does, and is ended.
    for name, text in (("lsm-get", "#!/bin/sh\ntouch started; exec sleep 60\n"), ("lsm-put", "#!/bin/sh\n")):
        (store / name).write_text(text)
        (store / name).chmod(0o755)
    queue: Json = {"name": "Q", "acopytools": {"default": ["lsm"]}, "copytools": {"lsm": {"setup": str(store)}}}
    request = written(tmp_path / "r.json", {"files": [{"lfn": "f", "surl": "srm://x/f"}], "queue": queue})
    process = subprocess.Popen(
        [sys.executable, "-m", "pilot.scripts.stagein", request, "--result", str(tmp_path / "result.json")],
        cwd=tmp_path / "work", env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(PATIENCE * 10):
            if (tmp_path / "work" / "started").exists() or process.poll() is not None:
                break
            signal.sigtimedwait([], 0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 1
    finally:
        process.kill()
        process.wait()
    result = json.loads((tmp_path / "result.json").read_text())
    assert "cancelled" in result["error"]["text"] and result["files"][0]["status"] == "failed"


def test_a_configuration_says_how_rucio_is_used_too(tmp_path: Path, store: Path) -> None:
    traces = tmp_path / "traces.json"
    (tmp_path / "own.cfg").write_text(f"[Rucio]\ntrace_file = {traces}\n")
    request = written(tmp_path / "r.json", {"files": [{"lfn": "f.root", "surl": str(store / "f.root")}]})
    ended = run("stagein", request, "--workdir", str(tmp_path / "work"), "--config", str(tmp_path / "own.cfg"))
    assert ended.returncode == 0, ended.stderr
    assert [json.loads(line)["clientState"] for line in traces.read_text().splitlines()] == ["DONE"]


def test_a_signature_is_in_no_line_of_the_log(tmp_path: Path) -> None:
    surl = "http://127.0.0.1:9/f.root?X-Amz-Signature=0123456789abcdef"
    request = written(tmp_path / "r.json", {"files": [{"lfn": "f.root", "surl": surl}]})
    options = ("--copytools", "https", "--workdir", str(tmp_path), "--debug")
    (tmp_path / "quick.cfg").write_text("[File]\nstagein_attempts = 1\n")
    ended = run("stagein", request, *options, "--config", str(tmp_path / "quick.cfg"))
    assert ended.returncode == 1 and "127.0.0.1:9/f.root" in ended.stderr
    assert "0123456789abcdef" not in ended.stderr


@pytest.mark.parametrize("program", ["pilot.scripts.stagein", "pilot.scripts.stageout", "pilot"])
def test_a_python_without_requests_says_what_is_missing(tmp_path: Path, program: str) -> None:
    bare = tmp_path / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    given = [str(ROOT / "pilot.py"), "-q", "Q"] if program == "pilot" else ["-m", program, "-"]
    ended = subprocess.run(
        [bare / "bin" / "python", *given], cwd=ROOT, env={}, input="{}", capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    name = "pilot.py" if program == "pilot" else program.rpartition(".")[2]
    assert ended.stderr.startswith(f"{name}: {bare}/bin/python has no module requests: install it"), ended.stderr
    assert ended.returncode == 76
