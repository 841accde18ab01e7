"""The examples in docs/deploy: what reads such files reads them without a complaint, and nginx serves us as it says."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import requests
import yaml
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server.cli.main import pilotkit
from server.settings import Settings
from tests.components import missing
from tests.integration.server.clients import Client, wait_until
from tests.servers import running_server

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "docs" / "deploy"
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
    """It is not built here: that needs a registry, and a daemon that may start containers."""
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


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    certificate = made.sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def example(name: str, folder: Path, ports: dict[str, int]) -> str:
    """An example with the certificates and ports of a test."""
    certificate, key = make_certificate(folder)
    text = (DEPLOY / name).read_text()
    for old, new in (
        ("/etc/grid-security/hostcert.pem", str(certificate)),
        ("/etc/grid-security/hostkey.pem", str(key)),
        ("/etc/grid-security/pilotkit-ca-bundle.pem", str(certificate)),
        ("/etc/grid-security/certificates", str(folder)),
        *((old, str(new)) for old, new in ports.items()),
    ):
        assert old in text or old.startswith("/etc")
        text = text.replace(old, new)
    return text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


#: What nginx keeps on disk, each in a folder of the system's unless it is told another.
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@contextmanager
def running_nginx(folder: Path, port_of_server: int) -> Iterator[int]:
    """nginx with the example's configuration; its port."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        missing("nginx is", "Debian: apt-get install nginx-light")
    port = free_port()
    (folder / "pilotkit.conf").write_text(example("nginx.conf", folder, {"25443": port, "25080": port_of_server}))
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n"
        + "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in _TEMPORARY)
        + f"include {folder}/pilotkit.conf;\n}}\n"
    )
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen([*command, "-g", "daemon off;"], stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(port), "nginx")
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_nginx_passes_on_what_is_for_others_and_streams_events(tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir(mode=0o755)
    (tmp_path / "tokens.json").write_text('{"token-of-the-boss": {"name": "boss", "roles": ["operator"]}}')
    environment = {"PILOTKIT_TOKENS": str(tmp_path / "tokens.json")}
    with (
        running_server(tmp_path / "data", environment=environment) as server,
        Client(server.url, "token-of-the-boss") as boss,
        running_nginx(folder, server.port) as port,
        requests.Session() as session,
    ):
        session.trust_env = False  # REQUESTS_CA_BUNDLE would win
        session.verify = str(folder / "cert.pem")
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


def test_apache_takes_its_example(tmp_path: Path) -> None:
    program = shutil.which("apache2", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        missing("Apache is", "Debian: apt-get install apache2-bin")
    modules = ("mpm_event", "authn_core", "authz_core", "unique_id", "headers", "reqtimeout", "socache_shmcb")
    modules = (*modules, "ssl", "proxy", "proxy_http")
    loaded = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in modules)
    own = f"ServerRoot {tmp_path}\nServerName localhost\nPidFile {tmp_path}/pid\nErrorLog {tmp_path}/error.log\n"
    path = tmp_path / "apache.conf"
    path.write_text(loaded + own + example("apache.conf", tmp_path, {"25443": free_port(), "25080": 25080}))
    done = subprocess.run([program, "-t", "-f", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "Syntax OK\n")
