"""nginx and Apache for tests, with the examples of docs/deploy: only paths of certificates and ports are others."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.components import PATIENCE, missing, running_daemon
from tests.x509 import X509

DEPLOY = Path(__file__).resolve().parent.parent / "docs" / "deploy"

#: What nginx keeps on disk, each in a folder of the system's unless it is told another.
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_APACHE_MODULES = Path("/usr/lib/apache2/modules")
#: What Debian's Apache loads without being asked, as far as the example needs it, and what its first lines ask for.
_APACHE_LOADS = ("mpm_event", "authn_core", "authz_core", "reqtimeout", "socache_shmcb")
_APACHE_ENABLED = ("ssl", "proxy", "proxy_http", "headers", "unique_id")


def example(name: str, grid: X509, changes: Mapping[str, str]) -> str:
    """An example with the certificates of a test; `changes` are made in its text, each of which must be needed."""
    text = (DEPLOY / name).read_text()
    certificates = {
        "/etc/grid-security/hostcert.pem": str(grid.host_cert),
        "/etc/grid-security/hostkey.pem": str(grid.host_key),
        "/etc/grid-security/pilotkit-ca-bundle.pem": str(grid.ca_file),
        "/etc/grid-security/certificates": str(grid.ca_dir),
    }
    for old, new in certificates.items():
        text = text.replace(old, new)
    for old, new in changes.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    return text


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        missing(f"{name} is", f"Debian: apt-get install {package}")
    return found


def _checked(command: Sequence[str], option: str) -> Sequence[str]:
    """The command of a web server, which itself finds no fault with its configuration."""
    done = subprocess.run([*command, option], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0 and "warn" not in done.stderr, done.stderr
    return command


@contextmanager
def running_nginx(folder: Path, grid: X509, port_of_server: int) -> Iterator[int]:
    """nginx with the example that speaks HTTPS itself, in front of a server; its port."""

    def command(port: int) -> Sequence[str]:
        ports = {"listen 25443": f"listen 127.0.0.1:{port}", "127.0.0.1:25080": f"127.0.0.1:{port_of_server}"}
        (folder / "pilotkit.conf").write_text(example("nginx.conf", grid, ports))
        own = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in _TEMPORARY)
        http = f"http {{\naccess_log off;\n{own}include {folder}/pilotkit.conf;\n}}\n"
        return _nginx(folder, f"events {{}}\n{http}")

    with running_daemon("nginx", command, folder) as port:
        yield port


@contextmanager
def running_passthrough(folder: Path, grid: X509, port_of_server: int) -> Iterator[int]:
    """nginx with the example that only passes connections on, in front of a server that speaks TLS; its port."""
    if not _STREAM_MODULE.exists():
        missing("nginx's stream module is", "Debian: apt-get install libnginx-mod-stream")
    servers = {"panda1.example.org:25443": f"127.0.0.1:{port_of_server}", "    server panda2.example.org:25443;\n": ""}

    def command(port: int) -> Sequence[str]:
        text = example("nginx-passthrough.conf", grid, {"listen 25443": f"listen 127.0.0.1:{port}", **servers})
        return _nginx(folder, f"load_module {_STREAM_MODULE};\nevents {{}}\n{text}")

    with running_daemon("nginx", command, folder) as port:
        yield port


def _nginx(folder: Path, text: str) -> Sequence[str]:
    """The command for a whole configuration."""
    own = f"pid {folder}/pid;\nerror_log {folder}/error.log;\nworker_processes 1;\ndaemon off;\n"
    (folder / "nginx.conf").write_text(own + text)
    program = _program("nginx", "nginx-light")
    return _checked([program, "-p", str(folder), "-c", str(folder / "nginx.conf")], "-t")


@contextmanager
def running_apache(folder: Path, grid: X509, port_of_server: int) -> Iterator[int]:
    """Apache with its example, in front of a server; its port."""
    program = _program("apache2", "apache2-bin")
    enabled = set(example("apache.conf", grid, {}).partition("a2enmod ")[2].partition(",")[0].split())
    assert enabled == set(_APACHE_ENABLED), "the example's first line does not tell what it needs"
    loaded = "".join(
        f"LoadModule {name}_module {_APACHE_MODULES}/mod_{name}.so\n" for name in (*_APACHE_LOADS, *_APACHE_ENABLED)
    )
    user = "User nobody\nGroup nogroup\n" if os.getuid() == 0 else ""
    own = (
        f"ServerRoot {folder}\nServerName localhost\nDefaultRuntimeDir {folder}\nPidFile {folder}/pid\n"
        f"ErrorLog {folder}/error.log\nServerLimit 1\nStartServers 1\nThreadsPerChild 25\nMaxRequestWorkers 25\n"
    )

    def command(port: int) -> Sequence[str]:
        ports = {"Listen 25443": f"Listen 127.0.0.1:{port}", ":25443": f":{port}"}
        ports["127.0.0.1:25080"] = f"127.0.0.1:{port_of_server}"
        (folder / "apache.conf").write_text(loaded + user + own + example("apache.conf", grid, ports))
        return [*_checked([program, "-f", str(folder / "apache.conf")], "-t"), "-D", "FOREGROUND"]

    with running_daemon("Apache", command, folder) as port:
        yield port
