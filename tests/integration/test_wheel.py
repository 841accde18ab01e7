"""The wheel: what is installed from it is whole, and works without a checkout around it."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pilot

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pilotkit was installed from its wheel; its dependencies come from this environment."""
    scratch = tmp_path_factory.mktemp("wheel")
    source, site = scratch / "source", scratch / "site"
    # A copy, because a build leaves its traces in the folder it is run in.
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "tests", "build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", scratch, source], check=True)
    (wheel,) = scratch.glob("pilotkit-*.whl")
    subprocess.run([*pip, "install", *options, "--target", site, wheel], check=True)
    return site


def run(installed: Path, *command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command so that it sees the installed pilotkit, and the checkout nowhere."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_installed_pilot_starts_and_knows_its_settings(installed: Path, tmp_path: Path) -> None:
    said = run(installed, sys.executable, installed / "pilot.py", "--version", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert pilot.__version__ in said.stdout
    settings = configparser.ConfigParser(interpolation=None)
    assert settings.read(installed / "pilot" / "launch" / "default.cfg")
    code = "import pilot.util.config as c; print(c.__file__); print(c.read())"
    loaded = run(installed, sys.executable, "-c", code, cwd=tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.startswith(str(installed))


def test_the_wrappers_and_everything_the_server_hands_out_are_installed(installed: Path) -> None:
    for wrapper in (ROOT / "wrappers").iterdir():
        assert (installed / "pilot" / "launch" / "wrappers" / wrapper.name).read_bytes() == wrapper.read_bytes()
    for folder in ("trf", "db", "demo", "monitor"):
        for file in (ROOT / "server" / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert (installed / file.relative_to(ROOT)).exists(), f"{file} is missing in the wheel"


def test_the_wrapper_starts_the_installed_pilot(installed: Path, tmp_path: Path) -> None:
    wrapper = installed / "pilot" / "launch" / "wrappers" / "runpilot.sh"
    command = ["env", f"PILOT_DIR={installed}", f"PILOT_PYTHON={sys.executable}", "sh", wrapper, "--version"]
    said = run(installed, *command, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert pilot.__version__ in said.stdout


def test_the_installed_command_runs(installed: Path, tmp_path: Path) -> None:
    code = "from server.cli.main import main; main()"
    said = run(installed, sys.executable, "-c", code, "--version", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert pilot.__version__ in said.stdout
