"""runGen from the outside: the script is run as a pilot runs it, in a job's directory of its own."""

from __future__ import annotations

import functools
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

RUNGEN = Path(__file__).resolve().parents[3] / "server" / "trf" / "user" / "runGen-00-00-02"


LIST = ["--writeInputToTxt", "IN:in.txt"]


def command_line(command: str, *options: str) -> list[str]:
    return [sys.executable, str(RUNGEN), "-j", "", "-r", ".", *options, "-p", quote(command)]


def run(folder: Path, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command_line(command, *options), cwd=folder, capture_output=True, text=True, timeout=60)


def add(
    tar: tarfile.TarFile,
    name: str,
    content: bytes = b"x",
    type: bytes = tarfile.REGTYPE,
    linkname: str = "",
    mode: int = 0o644,
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = type, linkname, mode
    member.size = len(content) if member.isreg() else 0
    tar.addfile(member, io.BytesIO(content) if member.isreg() else None)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """An empty job directory with a neighbour that must stay as it is."""
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "job"
    folder.mkdir()
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server with a /cache folder: its address and that folder."""
    cache = tmp_path / "www" / "cache"
    cache.mkdir(parents=True)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            """Nothing: the log would mix with pytest's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(cache.parent))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", cache
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("code", [0, 1, 2, 3, 77, 255])
def test_the_exit_code_of_the_command_passes_through(job: Path, code: int) -> None:
    assert run(job, f"exit {code}").returncode == code


def test_a_command_killed_by_a_signal_gives_128_plus_its_number(job: Path) -> None:
    assert run(job, "kill -SEGV $$").returncode == 128 + signal.SIGSEGV


def test_what_the_command_prints_arrives_unaltered(job: Path) -> None:
    done = subprocess.run(
        command_line(r"printf 'a\0b\377\r\n'; printf err >&2"), cwd=job, capture_output=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (b"a\0b\xff\r\n", b"err")


def test_the_output_of_the_command_is_not_held_back(job: Path) -> None:
    with subprocess.Popen(
        command_line("echo first; read line; echo got $line"),
        cwd=job,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "first\n"
        process.stdin.write("it\n")
        process.stdin.flush()
        assert process.stdout.readline() == "got it\n"


def test_an_output_gets_its_lfn(job: Path) -> None:
    done = run(job, "echo hi > out.txt", "-o", "{'out.txt': 'user.x.1._000001.out.txt'}")
    assert done.returncode == 0, done.stderr
    assert (job / "user.x.1._000001.out.txt").read_text() == "hi\n"
    assert not (job / "out.txt").exists()


def test_an_output_that_is_a_link_is_staged_as_the_file_itself(job: Path) -> None:
    run(job, "mkdir data; echo hi > data/real; ln -s data/real out.txt", "-o", "{'out.txt': 'lfn.txt'}")
    assert (job / "lfn.txt").read_text() == "hi\n"
    assert not (job / "lfn.txt").is_symlink()


def test_a_wildcard_output_is_packed_into_one_file(job: Path) -> None:
    done = run(job, "echo 1 > y1.root; echo 2 > y2.root; echo 3 > other", "-o", "{'y*.root': 'user.x.yXYZ.root.tgz'}")
    assert done.returncode == 0, done.stderr
    with tarfile.open(job / "user.x.yXYZ.root.tgz") as tar:
        assert tar.getnames() == ["y1.root", "y2.root"]


def test_a_missing_output_is_said_and_left_to_the_pilot(job: Path) -> None:
    done = run(job, "true", "-o", "{'out.txt': 'lfn.txt'}")
    assert done.returncode == 0
    assert "runGen: the command left no output out.txt (LFN lfn.txt)" in done.stderr


def test_a_command_that_fails_has_the_last_word(job: Path) -> None:
    done = run(job, "echo this went wrong >&2; exit 5", "-o", "{'out.txt': 'lfn.txt'}")
    assert (done.returncode, done.stderr) == (5, "this went wrong\n")


def test_outputs_are_kept_when_the_command_fails(job: Path) -> None:
    done = run(job, "echo hi > out.txt; exit 3", "-o", "{'out.txt': 'lfn.txt'}")
    assert done.returncode == 3
    assert (job / "lfn.txt").exists()


def test_real_file_names_go_into_the_command_when_asked_for(job: Path) -> None:
    done = run(job, "echo hi > out.txt; echo n > out.txt.not", "-o", "{'out.txt': 'lfn.7'}", "--execWithRealFileNames")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in job.iterdir()) == ["lfn.7", "out.txt.not"]


def test_inputs_are_given_as_a_comma_list(job: Path) -> None:
    for name in ("a", "b"):
        (job / name).touch()
    done = run(job, "echo %IN %INPUT '%IN'", "-i", "['a', 'b']")
    assert done.stdout == "a,b %INPUT a,b\n"


def test_every_stream_has_its_own_list(job: Path) -> None:
    for name in ("a", "b", "c"):
        (job / name).touch()
    done = run(job, "echo %IN %IN2; cat in.txt", "-i", "['a','b']", "--inMap", "{'IN': ['a','b'], 'IN2': ['c']}", *LIST)
    assert done.stdout == "a,b c\na\nb\n", done.stderr


def test_an_input_name_is_no_shell_text(job: Path) -> None:
    (job / "a;touch hacked").touch()
    done = run(job, "echo %IN", "-i", "['a;touch hacked']")
    assert done.stdout == "a;touch hacked\n"
    assert not (job / "hacked").exists()


def test_a_missing_input_is_named(job: Path) -> None:
    done = run(job, "true", "-i", "['gone.root']")
    assert done.returncode == 66
    assert "gone.root" in done.stderr


def test_given_pfns_need_not_be_here(job: Path) -> None:
    assert run(job, "echo %IN", "-i", "['root://se//f']", "--givenPFN").stdout == "root://se//f\n"


def test_an_input_may_be_a_link_to_storage(job: Path) -> None:
    (job.parent / "outside" / "a.root").write_text("data")
    (job / "a.root").symlink_to(job.parent / "outside" / "a.root")
    assert run(job, "cat %IN", "-i", "['a.root']").stdout == "data"


def test_an_input_read_in_place_comes_from_the_catalogue(job: Path) -> None:
    (job / "PoolFileCatalog.xml").write_text(
        '<POOLFILECATALOG><File ID="G"><physical><pfn filetype="ROOT_All" name="root://se//x/a.root"/></physical>'
        '<logical><lfn name="a.root"/></logical></File></POOLFILECATALOG>'
    )
    assert run(job, "echo %IN", "-i", "['a.root']").stdout == "root://se//x/a.root\n"


def test_the_sandbox_is_fetched_unpacked_and_taken_away_again(job: Path, source: tuple[str, Path]) -> None:
    url, cache = source
    with tarfile.open(cache / "jobO.1.tar.gz", "w:gz") as tar:
        add(tar, "./sub/run.sh", b"#!/bin/sh\ncat ../data.txt\necho made > out.txt\n", mode=0o755)
        add(tar, "data.txt", b"from the sandbox\n")
    done = run(job, "./run.sh", "-a", "jobO.1.tar.gz", "--sourceURL", url, "-r", "sub", "-o", "{'out.txt': 'lfn'}")
    assert (done.returncode, done.stdout) == (0, "from the sandbox\n"), done.stderr
    assert sorted(path.name for path in job.iterdir()) == ["lfn"]


def test_what_python_compiles_of_the_sandbox_goes_with_it(job: Path) -> None:
    with tarfile.open(job / "lib.tgz", "w:gz") as tar:
        add(tar, "package/__init__.py", b"")
        add(tar, "package/module.py", b"open('package/result', 'w').close()")
        add(tar, "other/__init__.py", b"import package.module")
    assert run(job, f"{sys.executable} -c 'import other'", "-l", "lib.tgz").returncode == 0
    assert sorted(str(path.relative_to(job)) for path in job.rglob("*")) == ["lib.tgz", "package", "package/result"]


def test_a_run_directory_sees_inputs_and_gives_back_reports(job: Path) -> None:
    (job / "in.root").write_text("in")
    done = run(
        job,
        "cat %IN; cp %IN o; echo '{}' > jobReport.json; exit 4",
        "-i",
        "['in.root']",
        "-r",
        "sub/dir",
        "-o",
        "{'o': 'lfn'}",
    )
    assert (done.returncode, done.stdout) == (4, "in"), done.stderr
    assert sorted(path.name for path in job.iterdir()) == ["in.root", "jobReport.json", "lfn", "sub"]
    assert list((job / "sub" / "dir").iterdir()) == []


def test_a_staged_library_is_unpacked(job: Path) -> None:
    with tarfile.open(job / "lib.tgz", "w:gz") as tar:
        add(tar, "a.py", b"print('lib')")
    assert run(job, f"{sys.executable} a.py", "-l", "lib.tgz").stdout == "lib\n"


def test_a_sandbox_file_never_replaces_one_of_the_job(job: Path) -> None:
    (job / "in.root").write_text("staged in")
    with tarfile.open(job / "lib.tgz", "w:gz") as tar:
        add(tar, "in.root", b"evil")
    done = run(job, "cat in.root", "-l", "lib.tgz")
    assert done.stdout == "staged in"
    assert (job / "in.root").read_text() == "staged in"


# name, type and link target of each member
HOSTILE = {
    "a path upwards": [("../outside/x", tarfile.REGTYPE, "")],
    "a hidden path upwards": [("a/../../outside/x", tarfile.REGTYPE, "")],
    "an absolute path": [("/tmp/pilotkit-hostile-member", tarfile.REGTYPE, "")],
    "a link out": [("l", tarfile.SYMTYPE, "../outside"), ("l/x", tarfile.REGTYPE, "")],
    "an absolute link": [("l", tarfile.SYMTYPE, "/etc/passwd")],
    "a hard link out": [("l", tarfile.LNKTYPE, "../outside/secret")],
    "a device": [("d", tarfile.CHRTYPE, "")],
    "a pipe": [("p", tarfile.FIFOTYPE, "")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_sandbox_is_refused(job: Path, members: list[tuple[str, bytes, str]]) -> None:
    (job.parent / "outside" / "secret").write_text("secret")
    with tarfile.open(job / "lib.tgz", "w:gz") as tar:
        for name, kind, link in members:
            add(tar, name, type=kind, linkname=link)
    done = run(job, "echo ran", "-l", "lib.tgz")
    assert done.returncode == 65
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (job.parent / "outside").iterdir()) == ["secret"]
    assert not Path("/tmp/pilotkit-hostile-member").exists()


def test_links_inside_the_sandbox_are_fine(job: Path) -> None:
    with tarfile.open(job / "lib.tgz", "w:gz") as tar:
        add(tar, "lib/real", b"text")
        add(tar, "bin/link", type=tarfile.SYMTYPE, linkname="../lib/real")
        add(tar, "bin/hard", type=tarfile.LNKTYPE, linkname="lib/real")
    assert run(job, "cat bin/link bin/hard", "-l", "lib.tgz").stdout == "texttext"


def test_set_uid_bits_are_dropped(job: Path) -> None:
    with tarfile.open(job / "lib.tgz", "w:gz") as tar:
        add(tar, "tool", b"#!/bin/sh\n", mode=0o6777)
    assert run(job, "stat -c %a tool", "-l", "lib.tgz").stdout == "755\n"


def test_a_damaged_sandbox_is_said(job: Path) -> None:
    with tarfile.open(job / "whole.tgz", "w:gz") as tar:
        add(tar, "a", os.urandom(5000))
    (job / "lib.tgz").write_bytes((job / "whole.tgz").read_bytes()[:3000])
    done = run(job, "true", "-l", "lib.tgz")
    assert done.returncode == 65
    assert "lib.tgz cannot be unpacked" in done.stderr


def test_a_sandbox_that_is_not_on_the_server_is_said(job: Path, source: tuple[str, Path]) -> None:
    done = run(job, "true", "-a", "jobO.none.tar.gz", "--sourceURL", source[0])
    assert done.returncode == 69
    assert "the server answered 404" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["-i", "__import__('os').system('touch hacked')"],
        ["-i", "[1, 2]"],
        ["-i", "['a\\0b']"],
        ["-i", "["],
        ["-o", "['x']"],
        ["-o", "{'../x': 'lfn'}"],
        ["-o", "{'x': '../lfn'}"],
        ["-o", "{'x': 5}"],
        ["-r", "../outside"],
        ["-a", "../x.tar.gz", "--sourceURL", "http://127.0.0.1:1"],
        ["-a", "x.tar.gz"],
        ["-a", "x.tar.gz", "--sourceURL", "file:///etc"],
        ["--writeInputToTxt", "IN:../x"],
        ["--writeInputToTxt", "OTHER:x"],
        ["--inMap", "{'IN': 7}"],
        ["--unheard-of"],
        ["--preprocess"],
        ["-o"],
    ],
)
def test_wrong_options_are_refused_in_one_line(job: Path, options: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(RUNGEN), "-p", "touch%20ran", *options],
        cwd=job,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 64, done.stderr
    assert done.stderr.startswith("runGen: ")
    assert done.stderr.count("\n") == 1
    assert list(job.iterdir()) == []


@pytest.fixture
def started(job: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts commands in sessions of their own; whatever the test finds, nothing of them is left."""
    processes: list[subprocess.Popen[str]] = []

    def start(command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command_line(command), cwd=job, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("attempt", range(5))
def test_a_signal_to_rungen_alone_reaches_the_command(
    started: Callable[[str], subprocess.Popen[str]], attempt: int
) -> None:
    process = started("trap 'echo caught; kill $!; exit 9' TERM; sleep 60 & echo ready; wait")
    process.terminate()
    assert process.stdout is not None
    assert process.stdout.readline() == "caught\n"
    assert process.wait(30) == 9


def test_a_signal_to_the_group_ends_the_command_and_its_children(
    started: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = started("sleep 60 & echo ready; wait")
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert process.stdout is not None
    assert process.stdout.read() == ""  # end of file: nobody holds the pipe any more


def test_signals_are_as_they_would_be_without_rungen(job: Path) -> None:
    """None blocked, none ignored but what the caller ignores: signal masks from /proc, as proc(5) has them."""
    masks = "grep -E '^Sig(Blk|Ign):' /proc/self/status"
    without = subprocess.run(["/bin/sh", "-c", masks], cwd=job, capture_output=True, text=True, timeout=60)
    assert run(job, masks).stdout == without.stdout
    ignoring = subprocess.run(
        ["/bin/sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", *command_line(masks)],
        cwd=job,
        capture_output=True,
        text=True,
        timeout=60,
    )
    ignored = int(ignoring.stdout.split()[-1], 16) & ~int(without.stdout.split()[-1], 16)
    assert ignored == 1 << (signal.SIGINT - 1) | 1 << (signal.SIGHUP - 1)


def test_a_closed_pipe_ends_the_command_as_it_would_without_rungen(job: Path) -> None:
    assert run(job, "yes | head -1; exit ${PIPESTATUS[0]}").returncode == 128 + signal.SIGPIPE
