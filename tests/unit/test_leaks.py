"""The fixtures that look for leaks are themselves tested: each kind is leaked on purpose in a pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LEAKY_TESTS = """
import os, socket, subprocess, sys, threading, time
import pytest

kept = []

def test_a_thread():
    thread = threading.Thread(target=time.sleep, args=(600,), name="forgotten-thread", daemon=True)
    thread.start()

def test_a_child_process():
    kept.append(subprocess.Popen(["sleep", "601"]))

def test_an_orphan_in_its_own_session():
    # It closes its output when it is on its own, which is what run() waits for.
    fork = "os.fork() and os._exit(0)"
    daemon = f"import os, time; {fork}; os.setsid(); {fork}; os.close(1); time.sleep(602)"
    subprocess.run([sys.executable, "-c", daemon], check=True, stdout=subprocess.PIPE)

def test_a_file():
    kept.append(open(__file__))

def test_a_listening_port():
    kept.append(socket.create_server(("127.0.0.1", 0)))

def test_a_port_of_a_child():
    server = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(1, flush=True); time.sleep(603)"
    process = subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    kept.append(process)

def test_a_connection():
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept.append(socket.create_connection(server.getsockname()))
        server.accept()[0].close()
"""

CLEAN_TESTS = """
import socket, subprocess, sys, threading, time
import pytest

@pytest.fixture(scope="module")
def server():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(604)"])
    with socket.create_server(("127.0.0.1", 0)):
        yield process
    process.kill()
    process.wait()

def test_what_is_ended_in_time_is_no_leak(tmp_path):
    threading.Thread(target=time.sleep, args=(0.2,)).start()
    with open(tmp_path / "file", "w"), socket.create_server(("127.0.0.1", 0)):
        subprocess.run(["true"], check=True)

def test_an_orphan_that_ends_soon_is_no_leak():
    subprocess.run(["sh", "-c", "sleep 0.3 &"], check=True)

def test_a_server_of_the_module_is_no_leak(server):
    assert server.poll() is None

def test_and_it_may_go_on_into_the_next_test(server):
    assert server.poll() is None
"""

LEAKY_FIXTURE = """
import pytest

kept = []

@pytest.fixture(scope="module")
def forgetful():
    kept.append(open(__file__))

def test_that_uses_it(forgetful):
    pass
"""

# What the fixture must say about each leak, by the name of the test in LEAKY_TESTS.
EXPECTED = {
    "test_a_thread": r"thread 'forgotten-thread' still runs \(sleep, daemon\)",
    "test_a_child_process": r"process \d+ still runs \(sleep 601\)",
    "test_an_orphan_in_its_own_session": r"process \d+ still runs \(.*sleep\(602\), an orphan\)",
    "test_a_file": r"file descriptor \d+ is still open on /.*/test_leaky.py",
    "test_a_listening_port": r"tcp port \d+ is still listened on by process \d+",
    "test_a_port_of_a_child": r"tcp port \d+ is still listened on by process \d+",
    "test_a_connection": r"file descriptor \d+ is still open on socket:\[\d+\] \(\w+ 127.0.0.1:\d+ -> 127.0.0.1:\d+\)",
}


# The fixtures as they are, but with less patience: what is leaked below stays.
IMPATIENT_CONFTEST = """
import tests.leaks
from tests.conftest import *

tests.leaks.GRACE = {grace}
"""


def run_pytest(directory: Path, *arguments: str, grace: float, **modules: str) -> str:
    """Run pytest in a folder of its own on test modules given as text; what it printed."""
    (directory / "conftest.py").write_text(IMPATIENT_CONFTEST.format(grace=grace))
    for name, text in modules.items():
        (directory / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", directory, "-p", "no:cacheprovider"]
    command += ["-p", "no:schemathesis"]  # as in pyproject.toml
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *arguments], cwd=directory, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    return done.stdout


@pytest.mark.parametrize("workers", ["0", "2"])
def test_every_kind_of_leak_is_found_and_named_and_processes_are_ended(tmp_path: Path, workers: str) -> None:
    output = run_pytest(tmp_path, "-n", workers, grace=0.2, test_leaky=LEAKY_TESTS)
    section = re.compile(r"^_+ ERROR at teardown of (\w+) _+\n(.*?)(?=^_+ ERROR|^=+ )", re.MULTILINE | re.DOTALL)
    sections = dict(section.findall(output))
    for test, leak in EXPECTED.items():
        assert re.search(leak, sections.get(test, "")), f"{test} leaked unnoticed:\n{output}"
    assert sections.keys() == EXPECTED.keys(), output
    # Named once or twice: pytest repeats the whole text in its summary when it runs in CI.
    leaked = set(re.findall(r"process (\d+) still runs", output))
    assert len(leaked) == 3, output
    assert not any(Path(f"/proc/{pid}").exists() for pid in leaked)


def test_what_ends_in_time_or_belongs_to_the_module_is_no_leak(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, grace=10, test_clean=CLEAN_TESTS)
    assert re.search(r"^=+ 4 passed in", output, re.MULTILINE), output


def test_what_a_fixture_of_the_module_forgets_is_found_at_its_end(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, grace=0.2, test_module=LEAKY_FIXTURE)
    assert "the fixtures of test_module.py left behind:" in output, output
    assert re.search(r"file descriptor \d+ is still open on /.*/test_module.py: close it", output), output
