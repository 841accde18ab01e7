"""The examples in docs/deploy: what reads such files reads them without a complaint, and nginx serves us as it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import requests
import yaml
from click.testing import CliRunner

from server.cli.main import pilotkit
from server.settings import Settings
from tests.components import missing
from tests.integration.server.clients import Client
from tests.servers import running_server
from tests.webservers import DEPLOY, running_nginx
from tests.x509 import make_x509

ROOT = Path(__file__).resolve().parents[3]
VARIABLES = {f"PILOTKIT_{field.name.upper()}" for field in fields(Settings)}
#: The oldest Kubernetes that is still looked after, as far as the schemas of kubernetes-validate go.
KUBERNETES = "1.31"


def objects() -> Iterator[tuple[str, dict[str, object]]]:
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for content in yaml.safe_load_all(path.read_text()):
            yield f"{path.name}:{content['kind']}", content


def test_every_setting_that_is_named_there_is_one() -> None:
    named = {
        (path.name, word)
        for path in DEPLOY.rglob("*")
        if path.is_file()
        for word in re.findall(r"PILOTKIT_[A-Z_]+", path.read_text())
    }
    assert named and not [(name, word) for name, word in named if word not in VARIABLES]


def test_whoever_is_kept_out_can_get_in() -> None:
    """An example that is closed, or open to the world, names a first operator: nobody else could make tokens."""
    for example in (DEPLOY / "systemd" / "pilotkit.env", DEPLOY / "kubernetes" / "settings.yaml"):
        assert re.search(r"^ *PILOTKIT_TOKENS[=:]", example.read_text(), re.MULTILINE), example


def test_kubernetes_takes_the_manifests() -> None:
    names = []
    for name, content in objects():
        names.append(name)
        if content["kind"] != "Kustomization":
            kubernetes_validate.validate(content, KUBERNETES, strict=True)
    assert len(names) >= 6
    resources = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    others = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(resources) == others


def test_what_the_container_file_copies_and_runs_is_there() -> None:
    """Where buildah may not build it this is all that is known of it (test_container_file.py)."""
    text = (DEPLOY / "Containerfile").read_text()
    instructions = [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] not in " #"]
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
    assert {word for word, _ in instructions} == known | {"ENTRYPOINT", "CMD"}
    for word, rest in instructions:
        if word == "COPY" and not rest.startswith("--from"):
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
    assert ["USER", "10001"] in instructions
    (command,) = (yaml.safe_load(rest) for word, rest in instructions if word == "CMD")
    assert CliRunner().invoke(pilotkit, [*command, "--help"]).exit_code == 0


@pytest.mark.parametrize("unit", ["pilotkit.service", "pilotkit-daemon.service"])
def test_systemd_takes_the_units(tmp_path: Path, unit: str) -> None:
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze is", "Debian: apt-get install systemd")
    text = (DEPLOY / "systemd" / unit).read_text().replace("/opt/pilotkit/.venv/bin/pilotkit", "/bin/true")
    (tmp_path / unit).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_nginx_passes_on_what_is_for_others_and_streams_events(tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir(mode=0o755)
    grid = make_x509(tmp_path / "x509")
    (tmp_path / "tokens.json").write_text('{"token-of-the-boss": {"name": "boss", "roles": ["operator"]}}')
    environment = {"PILOTKIT_TOKENS": str(tmp_path / "tokens.json")}
    with (
        running_server(tmp_path / "data", environment=environment) as server,
        Client(server.url, "token-of-the-boss") as boss,
        running_nginx(folder, grid, server.port) as port,
        requests.Session() as session,
    ):
        session.trust_env = False  # REQUESTS_CA_BUNDLE would win
        session.verify = str(grid.ca_file)
        session.headers["Authorization"] = "Bearer token-of-the-boss"
        url = f"https://localhost:{port}"
        boss.add_queue()
        assert session.get(f"{url}/api/v1/queue/list", timeout=30).json()["success"]
        assert [session.get(url + path, timeout=30).status_code for path in ("/metrics", "/readyz")] == [403, 403]
        with session.get(f"{url}/events", stream=True, timeout=30) as stream:
            lines = stream.iter_lines()
            assert next(lines) == b"retry: 2000"
            threading.Timer(0.1, lambda: boss.submit({"outputs": ["a"]})).start()
            assert any(line.startswith(b"data: ") and b"TEST_QUEUE" in line for line in lines)
