"""Fixtures of the pilot's unit tests: a web server, a client for it, a small disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from pilot.util.https import Credentials, HttpClient
from tests.unit.pilot.webserver import WebServer
from tests.x509 import X509, make_x509

# A busy machine is no failure, and a run leaves no folder with examples behind.
settings.register_profile(
    "pilot", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("pilot")


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server on a free port, closed at the end."""
    server = WebServer()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def http(web: WebServer) -> Iterator[HttpClient]:
    """A client whose own server is `web`; it has a token for it, and little patience."""
    client = HttpClient(Credentials(token="sesame", origin="vo.pilot"), 2, 5, "pilotkit/test", web.url)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="session")
def x509(tmp_path_factory: pytest.TempPathFactory) -> X509:
    """A CA with certificates of a host and a user; a test must not change its files."""
    return make_x509(tmp_path_factory.mktemp("x509"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte, which only root can make."""
    if os.geteuid() != 0:
        pytest.skip("a disk of its own can only be mounted by root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no disk of its own can be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        # Lazily: what a failed test still has open on it must not keep it.
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Without root's right to read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
