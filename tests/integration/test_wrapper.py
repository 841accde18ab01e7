"""wrappers/runpilot.sh with a stand-in for the pilot: signals, exit codes and clean-up, seen from outside."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pilots import wait_until
from tests.servers import RunningServer
from tests.site import QUEUE, Site

WRAPPER = Path(__file__).resolve().parents[2] / "wrappers" / "runpilot.sh"
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]

# Says what it was given, makes files in its work directory, waits for as many signals as asked for and leaves.
STAND_IN = """
import os, signal, sys
waiting, signalled = os.pipe()
os.set_blocking(signalled, False)
signal.set_wakeup_fd(signalled)
for name in ("HUP", "INT", "QUIT", "USR1", "TERM", "XCPU"):
    signal.signal(getattr(signal, "SIG" + name), lambda number, frame: None)
workdir = sys.argv[sys.argv.index("-a") + 1] if "-a" in sys.argv else None
if workdir:
    os.makedirs(os.path.join(workdir, "locked"))
    open(os.path.join(workdir, "locked", "file"), "w").close()
    os.chmod(os.path.join(workdir, "locked"), 0)
print(repr({"arguments": sys.argv[1:], "workdir": workdir, "spool": os.environ.get("PILOTKIT_SPOOL_DIR"),
            "mode": workdir and oct(os.stat(workdir).st_mode & 0o777), "python": sys.executable}), flush=True)
for _ in range(int(os.environ.get("SIGNALS", "0"))):
    print("caught", os.read(waiting, 1)[0], flush=True)
sys.exit(int(os.environ.get("CODE", "0")))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with blanks in its name: the stand-in pilot in 'the pilot', room for scratch in 'the scratch'."""
    place = tmp_path / "a place"
    (place / "the pilot").mkdir(parents=True)
    (place / "the pilot" / "pilot.py").write_text(STAND_IN)
    (place / "the scratch").mkdir()
    return place


def environment(place: Path, **more: str) -> dict[str, str]:
    """What a batch system gives: nearly nothing, no HOME."""
    return {
        "PATH": "/usr/bin:/bin",
        "PILOT_DIR": str(place / "the pilot"),
        "PILOT_SCRATCH": str(place / "the scratch"),
        "PILOT_PYTHON": sys.executable,
        **more,
    }


def run(shell: str, place: Path, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shell, str(WRAPPER), *options], env=environment(place, **more), capture_output=True, text=True, timeout=60
    )


def left_in_scratch(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "the scratch").iterdir() if not path.name.startswith("pilotkit-spool"))


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def waiting(shell: str, place: Path) -> Iterator[subprocess.Popen[str]]:
    """A wrapper in a session of its own whose pilot waits for two signals and then leaves with 43."""
    with subprocess.Popen(
        [shell, str(WRAPPER), "-q", "Q"],
        env=environment(place, SIGNALS="2", CODE="43"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert "arguments" in process.stdout.readline()
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("code", [0, 1, 79, 126, 127, 143, 255])
def test_the_pilots_exit_code_is_the_wrappers(shell: str, place: Path, code: int) -> None:
    assert run(shell, place, "-q", "Q", CODE=str(code)).returncode == code


def test_options_go_to_the_pilot_unchanged(shell: str, place: Path) -> None:
    options = ["-q", "A QUEUE", "--url", "http://127.0.0.1:1", "--allow-same-user=False", "it's; $HOME *", ""]
    seen = eval(run(shell, place, *options).stdout)
    assert seen["arguments"] == ["-a", seen["workdir"], *options]


def test_the_scratch_directory_is_private_and_gone_afterwards(shell: str, place: Path) -> None:
    done = run(shell, place, "-q", "Q")
    seen = eval(done.stdout)
    assert seen["mode"] == "0o700"
    assert seen["workdir"].startswith(str(place / "the scratch" / "pilotkit-"))
    assert left_in_scratch(place) == [], done.stderr


@pytest.mark.parametrize("way", [["-a"], ["--workdir"], ["--workdir="], ["-a", "glued"]])
def test_a_work_directory_of_the_caller_is_used(shell: str, place: Path, way: list[str]) -> None:
    mine = str(place / "mine")
    given = {1: [way[0], mine], 2: [f"-a{mine}"]}[len(way)] if not way[0].endswith("=") else [f"--workdir={mine}"]
    if given[0] == "-a":
        (place / "mine").mkdir()
    seen = eval(run(shell, place, "-q", "Q", *given).stdout)
    assert seen["arguments"] == ["-q", "Q", *given]


@pytest.mark.parametrize("options", [["--cleanup=False"], ["--cleanup", "False"]])
def test_the_scratch_directory_is_kept_when_the_pilot_shall_not_clean_up(place: Path, options: list[str]) -> None:
    done = run("sh", place, "-q", "Q", *options)
    assert len(left_in_scratch(place)) == 1
    assert "is kept" in done.stderr


def test_the_spool_is_private_and_stays(shell: str, place: Path) -> None:
    seen = eval(run(shell, place, "-q", "Q").stdout)
    spool = Path(seen["spool"])
    assert spool == place / "the scratch" / f"pilotkit-spool-{os.getuid()}"
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700
    (spool / "update").touch()
    assert eval(run(shell, place, "-q", "Q").stdout)["spool"] == str(spool)
    assert (spool / "update").exists()


def test_a_spool_that_is_a_link_is_not_used(shell: str, place: Path) -> None:
    (place / "elsewhere").mkdir()
    (place / "link").symlink_to(place / "elsewhere")
    done = run(shell, place, "-q", "Q", PILOTKIT_SPOOL_DIR=str(place / "link"))
    assert done.returncode == 0
    assert eval(done.stdout)["spool"] is None
    assert "not a folder of ours" in done.stderr


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "USR1", "TERM", "XCPU"])
def test_signals_reach_the_pilot_and_the_wrapper_waits_for_it(
    waiting: subprocess.Popen[str], place: Path, name: str
) -> None:
    assert waiting.stdout is not None
    number = getattr(signal, f"SIG{name}")
    for _ in range(2):
        waiting.send_signal(number)
        assert waiting.stdout.readline() == f"caught {int(number)}\n"
    assert waiting.wait(60) == 43
    assert left_in_scratch(place) == []


def test_a_pilot_killed_by_a_signal_is_reported_as_128_plus_its_number(place: Path) -> None:
    (place / "the pilot" / "pilot.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert run("sh", place, "-q", "Q").returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize("attempt", [0, 1, 2, 3, None])
def test_a_signal_while_starting_leaves_nothing_behind(shell: str, place: Path, attempt: int | None) -> None:
    """After 4 ms each, or when there is something to leave behind."""
    (place / "the pilot" / "pilot.py").write_text("import time; time.sleep(60)")
    with subprocess.Popen(
        [shell, str(WRAPPER), "-q", "Q"],
        env=environment(place),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        if attempt is None:
            wait_until(lambda: left_in_scratch(place), "the wrapper's folder")
        else:
            time.sleep(0.004 * attempt)
        process.terminate()
        code = process.wait(60)
    # A shell that has not set its traps yet dies of the signal itself.
    assert code == 128 + signal.SIGTERM or (code == -signal.SIGTERM and attempt is not None)
    assert left_in_scratch(place) == []


def test_it_runs_with_closed_stdin(shell: str, place: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" <&-', shell, str(WRAPPER), "-q", "Q"],
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_a_missing_pilot_is_said(shell: str, place: Path) -> None:
    done = run(shell, place, PILOT_DIR=str(place))
    assert done.returncode == 67
    assert f"no pilot.py in '{place}'" in done.stderr


def test_the_pilot_is_found_above_the_wrapper(place: Path) -> None:
    (place / "the pilot" / "wrappers").mkdir()
    copy = shutil.copy(WRAPPER, place / "the pilot" / "wrappers")
    surroundings = environment(place)
    del surroundings["PILOT_DIR"]
    done = subprocess.run([copy, "-q", "Q"], env=surroundings, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def fake_python(folder: Path, says: str, code: int) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n[ {code} -eq 0 ] && echo '{says}' || {{ echo '{says}'; exit {code}; }}\n")
    path.chmod(0o755)
    return path


def test_an_unsuitable_python_is_named_with_what_it_lacks(shell: str, place: Path) -> None:
    bad = fake_python(place / "bin", "(Python 3.9.1) lacks requests", 1)
    done = run(shell, place, "-q", "Q", PILOT_PYTHON=str(bad))
    assert done.returncode == 76
    assert f"{bad} (Python 3.9.1) lacks requests" in done.stderr
    assert left_in_scratch(place) == []


def test_a_python_that_is_not_there_is_named(shell: str, place: Path) -> None:
    done = run(shell, place, "-q", "Q", PILOT_PYTHON="/no/such/python")
    assert done.returncode == 76
    assert "PILOT_PYTHON=/no/such/python is not there" in done.stderr


def test_the_first_suitable_python_in_the_path_is_taken(shell: str, place: Path) -> None:
    fake_python(place / "bad", "is Python 3.6.8", 1)
    (place / "good").mkdir()
    (place / "good" / "python3.12").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (place / "good" / "python3.12").chmod(0o755)
    done = run(shell, place, "-q", "Q", PILOT_PYTHON="", PATH=f"{place / 'bad'}:{place / 'good'}:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert str(place / "good" / "python3.12") in done.stderr


def test_a_scratch_place_that_cannot_be_used_is_said(shell: str, place: Path) -> None:
    done = run(shell, place, "-q", "Q", PILOT_SCRATCH="/proc/none")
    assert done.returncode == 66
    assert "no scratch directory can be made in '/proc/none'" in done.stderr


def test_a_wrong_tmpdir_is_not_the_end(shell: str, place: Path) -> None:
    spool = str(place / "spool")
    done = run(shell, place, "-q", "Q", PILOT_SCRATCH="", TMPDIR="/proc/none", PILOTKIT_SPOOL_DIR=spool)
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout)["workdir"].startswith("/tmp/pilotkit-")
    assert not Path(eval(done.stdout)["workdir"]).exists()


def test_shellcheck_has_nothing_to_say() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, str(WRAPPER)], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""


# ---- with the real pilot


def real(server: RunningServer, place: Path) -> subprocess.Popen[str]:
    """The wrapper as a batch system starts it: a pilot that leaves at the first empty answer."""
    return subprocess.Popen(
        ["sh", str(WRAPPER), "-q", QUEUE, "--url", server.url, "-j", "user", "-v", "1"],
        cwd=place,
        env=environment(place, PILOT_DIR=str(WRAPPER.parents[1])),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_real_job_runs_and_only_the_spool_is_left(server: RunningServer, site: Site, place: Path) -> None:
    (number,) = site.submit({"command": "echo hello > out.txt", "outputs": ["out.txt"]})
    with real(server, place) as process:
        output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    assert site.wait_for(number)["jobStatus"] == "finished"
    assert left_in_scratch(place) == []


def test_without_a_job_the_pilots_own_code_comes_back(server: RunningServer, site: Site, place: Path) -> None:
    with real(server, place) as process:
        output, _ = process.communicate(timeout=90)
    assert process.returncode == 82, output  # NOJOBSINPANDA


def test_a_real_job_is_ended_in_order_when_the_batch_system_says_so(
    server: RunningServer, site: Site, place: Path
) -> None:
    (number,) = site.submit({"command": "sleep 120"})
    with real(server, place) as process:
        wait_until(lambda: site.job(number)["jobStatus"] == "running", "the job runs")
        process.terminate()
        output, _ = process.communicate(timeout=90)
    assert process.returncode == 143, output  # SIGTERM, 1201
    assert site.wait_for(number)["pilotErrorCode"] == 1201
    assert left_in_scratch(place) == []
