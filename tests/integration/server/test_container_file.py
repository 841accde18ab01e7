"""The container file is built with buildah, and what it makes serves.

The base image is made here of this machine, nothing comes from a registry of images; so Python has another version than
the file says.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests

from tests.components import ROOT, free_port, logs, missing, require_programs
from tests.integration.server.clients import PATIENCE, wait_until
from tests.webservers import DEPLOY

#: s that building may take: pip installs some twenty packages.
_BUILDING = 300
_BASE = "docker.io/library/python:3.12-slim"
_IMAGE = "localhost/pilotkit"
#: What is no part of a Python that only runs things.
_LEFT_OUT = ("site-packages", "test", "idlelib", "tkinter", "turtledemo", "__pycache__", "config-*", "*.a")
#: What packages from PyPI count on wherever they are installed.
_MORE_LIBRARIES = ("libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "libgcc_s.so.1", "libstdc++.so.6")
_APPLETS = ("sh", "mkdir", "chmod", "chown", "rm", "ls", "env", "true")


@dataclass(frozen=True)
class Images:
    """buildah with a store of its own, which nobody else's images are in."""

    folder: Path

    def start(self, *words: str | Path, log: int | None = None) -> subprocess.Popen[str]:
        command: list[str | Path] = ["buildah", "--storage-driver", "vfs", "--root", self.folder / "images"]
        return subprocess.Popen(
            [*command, "--runroot", self.folder / "run", *words],
            stdin=subprocess.DEVNULL, stdout=log or subprocess.PIPE, stderr=log or subprocess.STDOUT, text=True,
            cwd=ROOT, env={**os.environ, "TMPDIR": str(self.folder)},
        )  # fmt: skip

    def call(self, *words: str | Path, code: int = 0) -> str:
        with self.start(*words) as process:
            said, _ = process.communicate(timeout=_BUILDING)
        assert process.returncode == code, said
        return said

    def build(self, name: str, file: Path, context: Path, *more: str) -> None:
        how = ("--isolation", "chroot", "--pull-never", "--format", "docker", *more)
        self.call("build-using-dockerfile", *how, "--tag", name, "--file", file, context)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """With the image of the container file in it."""
    require_programs(["buildah", "busybox", "useradd"], ["buildah", "busybox-static", "passwd"])
    if os.getuid() != 0:
        missing("the right to make containers is", "only root has it everywhere")
    folder = tmp_path_factory.mktemp("images")
    made = Images(folder)
    (folder / "base").mkdir()
    make_base(folder / "base" / "root")
    (folder / "base" / "Containerfile").write_text(
        "FROM scratch\nCOPY root /\nENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels\n"
    )
    made.build(_BASE, folder / "base" / "Containerfile", folder / "base")
    wheels = folder / "wheels"
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels), ".[server,postgres]", *packages]
    downloaded = subprocess.run(pip, cwd=ROOT, capture_output=True, text=True, timeout=_BUILDING, check=False)
    assert downloaded.returncode == 0, downloaded.stderr
    made.build(_IMAGE, DEPLOY / "Containerfile", ROOT, "--volume", f"{wheels}:/wheels:ro")
    yield made
    shutil.rmtree(folder)  # some hundred megabytes


def make_base(root: Path) -> None:
    """A file system with Python, a shell and useradd, as far as the container file needs one."""
    python = Path(sys.base_prefix)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = root / "usr" / "local" / "lib" / name
    shutil.copytree(python / "lib" / name, library, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    programs = root / "usr" / "local" / "bin"
    programs.mkdir(parents=True)
    shutil.copy(python / "bin" / name, programs / "python")
    for folder in ("bin", "usr/sbin", "etc", "tmp", "var/lib", "root", "dev", "proc", "sys"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(str(shutil.which("busybox")), root / "bin" / "busybox")
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    useradd = Path(str(shutil.which("useradd")))
    shutil.copy(useradd, root / "usr" / "sbin" / "useradd")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    needed = {
        one for file in (programs / "python", useradd, *library.glob("lib-dynload/*.so")) for one in libraries(file)
    }
    beside = next(one for one in needed if one.name == "libc.so.6").parent
    for one in needed | {beside / name for name in _MORE_LIBRARIES if (beside / name).exists()}:
        (root / one.parent.relative_to("/")).mkdir(parents=True, exist_ok=True)
        shutil.copy(one, root / one.relative_to("/"))


def libraries(binary: Path) -> Iterator[Path]:
    """The shared libraries that a program is started with."""
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True, timeout=PATIENCE, check=False).stdout
    for word in listed.split():
        if word.startswith("/"):
            yield Path(word)


def configuration(images: Images) -> Mapping[str, Sequence[str]]:
    """What a container of the image is started with."""
    inspected = json.loads(images.call("inspect", "--type", "image", _IMAGE))
    known: Mapping[str, Sequence[str]] = inspected["Docker"]["config"]
    return known


def test_a_container_serves_as_its_own_user_and_finds_itself_healthy(images: Images, tmp_path: Path) -> None:
    known = configuration(images)
    command = [*known["Entrypoint"], *known["Cmd"]]
    container = images.call("from", "--pull-never", _IMAGE).split()[-1]
    run = ("run", "--isolation", "chroot")
    alone = images.call(*run, container, "--", *command, code=1)
    assert "would be open to everybody" in alone, alone
    port = free_port()
    here = ["127.0.0.1" if word == "0.0.0.0" else word for word in command]
    settings = ("--env", f"PILOTKIT_PORT={port}", "--env", "PILOTKIT_WORKERS=1", "--env", "PILOTKIT_ACCESS_LOG=1")
    with (tmp_path / "server.log").open("w") as log:
        process = images.start(*run, *settings, container, "--", *here, log=log.fileno())
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: process.poll() is not None or answers(url), f"the container\n{logs(tmp_path)}")
        assert process.poll() is None, logs(tmp_path)
        added = requests.post(f"{url}/api/v1/queue/add", json={"queues": {"Q": {}}}, timeout=PATIENCE).json()
        assert added["success"], added
        server = serving(process, port)
        assert server.uids().effective == 10001
        healthy = [word.replace("25080", str(port)) for word in known["Healthcheck"]["Test"][1:]]  # type: ignore[call-overload]
        images.call(*run, container, "--", *healthy)
        server.terminate()
        assert process.wait(PATIENCE) == 0
        images.call(*run, container, "--", *healthy, code=1)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE)
    lines = [line for line in (tmp_path / "server.log").read_text().splitlines() if line.startswith("{")]
    assert "/api/v1/queue/add" in [json.loads(line).get("path") for line in lines], "the log is JSON, as the file says"


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=PATIENCE).ok
    except requests.ConnectionError:
        return False


def serving(process: subprocess.Popen[str], port: int) -> psutil.Process:
    """The first process in the container that listens on a port: the one a runtime would send signals to."""
    for below in psutil.Process(process.pid).children(recursive=True):
        if any(one.laddr.port == port for one in below.net_connections("tcp")):
            return below
    raise AssertionError(f"nobody below {process.pid} listens on {port}")
