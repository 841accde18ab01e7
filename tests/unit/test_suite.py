"""`make test` fails when anything fails, and says what took how long."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite>
  <testcase classname="tests.integration.test_demo" name="test_a" time="2.5"/>
  <testcase classname="tests.integration.test_demo.TestClass" name="test_b" time="0.5"><failure>x</failure></testcase>
  <testcase classname="tests.integration.data.test_xrootd" name="test_c" time="1"><skipped>none</skipped></testcase>
  <testcase classname="tests.integration.data.test_xrootd" name="test_d" time="1"><error>teardown</error></testcase>
</testsuite></testsuites>
"""


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module .ci/suite.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("pilotkit_suite", ROOT / ".ci" / "suite.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "pilotkit_suite", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def pretend_no_python_is_installed(suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / ".ci" / "environment"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(suite, "ROOT", tmp_path)


def test_a_step_that_fails_fails_the_whole_and_the_others_still_run(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "check", lambda: iter([suite.run("first", "false"), suite.run("second", "true")]))
    assert suite.main("check") == 1
    table = capfd.readouterr().out
    assert "FAILED (exit code 1)" in table and "FAILED: first" in table
    assert [line.split()[-1] for line in table.splitlines() if line.startswith("second")] == ["ok"]


def test_all_is_well_when_every_step_is(suite: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "check", lambda: iter([suite.run("only", "true")]))
    assert suite.main("check") == 0


def test_a_missing_python_is_named_and_skipped_on_a_users_machine(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_no_python_is_installed(suite, monkeypatch, tmp_path)
    monkeypatch.delenv("CI", raising=False)
    rows = list(suite.other_pythons())
    assert [row.name.split()[-1] for row in rows] == [v for v in suite.PILOT_PYTHONS if v != suite.this_python()]
    assert not any(row.failed for row in rows)
    assert {row.result for row in rows} == {"skipped: not installed"}


def test_a_missing_python_fails_continuous_integration(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_no_python_is_installed(suite, monkeypatch, tmp_path)
    monkeypatch.setenv("CI", "true")
    assert all(row.failed for row in suite.other_pythons())


def pretend_packages_are_missing(suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> None:
    script = tmp_path / ".ci" / "environment"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/asked"\nexit {code}\n')
    script.chmod(0o755)
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    packages = {"there": "sh", "here": "/bin/s*", "this-one": "no-such-command", "that-one": "/no/such/*.so"}
    monkeypatch.setattr(suite, "DEBIAN_PACKAGES", packages)


@pytest.mark.parametrize(("ci", "code", "failed"), [("", 1, False), ("true", 1, True), ("true", 0, False)])
def test_missing_debian_packages_are_installed_and_only_continuous_integration_fails_without_them(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ci: str, code: int, failed: bool
) -> None:
    pretend_packages_are_missing(suite, monkeypatch, tmp_path, code)
    monkeypatch.setenv("CI", ci)
    (row,) = suite.debian_packages()
    assert row.failed is failed
    assert (tmp_path / "asked").read_text() == "debian this-one that-one\n"


def pretend_to_install(suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> None:
    """Scripts that only write down what they are asked for, and end with a code."""
    (tmp_path / ".ci").mkdir()
    for name in ("environment", "apptainer"):
        script = tmp_path / ".ci" / name
        made = 'mkdir -p "$d"; ' if code == 0 else ""
        script.write_text(
            f'#!/bin/sh\nd=$1; [ "$1" = make ] && d=$2\n{made}echo {name} "$(basename "$d")" >> "{tmp_path}/asked"\n'
            f"exit {code}\n"
        )
        script.chmod(0o755)
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    monkeypatch.setattr(suite, "DEBIAN_PACKAGES", {"there": "sh", "this-one": "no-such-command"})
    monkeypatch.setattr(suite, "SERVER_ENVIRONMENTS", {"one": ("a==1",), "two": ("b==2",)})


def test_what_is_missing_is_installed_and_only_once(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_to_install(suite, monkeypatch, tmp_path, 0)
    rows = list(suite.installations())
    assert [(row.name, row.result) for row in rows] == [
        (name, "ok") for name in ("Debian packages", "Apptainer", "one", "two")
    ]
    asked = (tmp_path / "asked").read_text().splitlines()
    assert sorted(asked) == ["apptainer apptainer", "environment debian", "environment one", "environment two"]
    assert asked.index("environment debian") < asked.index("apptainer apptainer")
    monkeypatch.setattr(suite, "DEBIAN_PACKAGES", {"there": "sh"})
    assert list(suite.installations()) == []
    monkeypatch.setattr(suite, "SERVER_ENVIRONMENTS", {"one": ("a==1",), "two": ("b==3",)})
    assert [row.name for row in suite.installations()] == ["two"]


@pytest.mark.parametrize(("ci", "failed"), [("", False), ("true", True)])
def test_what_cannot_be_installed_fails_continuous_integration_only(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ci: str, failed: bool
) -> None:
    pretend_to_install(suite, monkeypatch, tmp_path, 1)
    monkeypatch.setenv("CI", ci)
    rows = list(suite.installations())
    assert len(rows) == 4 and all(row.failed is failed for row in rows)


def test_the_suite_installs_what_the_real_servers_need(suite: ModuleType) -> None:
    from tests import activemq, containers, gfal, registry, slurm, x509, xrootd

    wanted = {
        *activemq.PACKAGES,
        *containers.PACKAGES,
        *gfal.PACKAGES,
        *registry.PACKAGES,
        *slurm.PACKAGES,
        *x509.PACKAGES,
        *xrootd.PACKAGES,
    }
    assert wanted <= set(suite.DEBIAN_PACKAGES)


def test_the_areas_are_the_folders_of_the_integration_tests(suite: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    areas = suite.read_areas(report)
    assert {name: (area.seconds, dict(area.counts)) for name, area in areas.items()} == {
        "skeleton": (3.0, {"passed": 1, "failed": 1}),
        "data": (2.0, {"skipped": 1, "failed": 1}),
    }


def find(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    """What .ci/environment finds when only these folders have programs."""
    environment = {"PATH": path, "PYENV_ROOT": "/nonexistent"}
    command = ["/bin/sh", ROOT / ".ci" / "environment", "find", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_name_on_the_path_that_starts_no_python_is_passed_over(tmp_path: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shims, real = tmp_path / "shims", tmp_path / "real"
    for folder, target in ((shims, "/bin/false"), (real, sys.executable)):
        folder.mkdir()
        (folder / "python3").symlink_to(target)
        (folder / f"python{version}").symlink_to(target)
    path = f"{shims}:{real}:/usr/bin:/bin"
    found = find(version, path=path).stdout.strip()
    said = subprocess.run(
        [found, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], stdout=subprocess.PIPE, text=True
    )
    assert said.stdout.strip() == version
    assert find("3.2", path=path).returncode == 1


def test_without_a_python_the_message_says_what_to_do(tmp_path: Path) -> None:
    done = find("3.11+", path=str(tmp_path))
    assert done.returncode == 1
    assert "No Python 3.11+ was found" in done.stderr and "make PYTHON=" in done.stderr


def test_make_help_names_every_target() -> None:
    helped = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "check", "bench", "clean"):
        assert f"make {target} " in helped


def test_continuous_integration_runs_make_test_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert commands == ["set -eu", 'cd "$(dirname "$0")/.."', "exec make test"]
    assert os.access(script, os.X_OK)
