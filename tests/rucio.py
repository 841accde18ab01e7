"""A real Rucio server for tests: SQLite, one account, and storages for file://, root:// and http://.

The server runs in an environment of its own, .venvs/rucio-server, which .ci/suite.py makes. The clients are in the
extra `dev`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import requests

from tests.components import PATIENCE, environment_of_the_suite, logs, running_daemon
from tests.xrootd import XRootD

# The only account that may add replicas without being an administrator, whom no limit binds. Its names are all "root".
ACCOUNT = "root"
SCOPES = ("test", "mc")
_USERNAME, _PASSWORD = "tester", "secret"
# Bytes a limit of the account has to be to be none.
UNLIMITED = -1

_COMMON = """
[common]
logdir = {folder}/log
loglevel = INFO
mailtemplatedir = {folder}
[policy]
permission = generic
schema = generic
lfn2pfn_algorithm_default = hash
support = nobody
support_rucio = nobody
"""

# Without brokers a trace is checked against its schema, written to tracedir/trace and sent nowhere. The endpoint dirac
# wants an extra library.
_SERVER = (
    _COMMON
    + """
[database]
default = sqlite:///{folder}/rucio.db
[bootstrap]
userpass_identity = {username}
userpass_pwd = {password}
userpass_email = tester@localhost
[cache]
url = 127.0.0.1:1
[webui]
[api]
endpoints_add = traces
endpoints_remove = dirac
[trace]
tracedir = {folder}/log
brokers =
port = 1
topic = none
username = none
password = none
"""
)

# No [database] here, else the client takes itself for a server. Its tokens must not survive the server in /tmp.
_CLIENT = (
    _COMMON
    + """
[client]
rucio_host = {url}
auth_host = {url}
auth_type = userpass
username = {username}
password = {password}
account = {account}
auth_token_file_path = {folder}/client/token
request_retries = 3
protocol_stat_retries = 2
"""
)

# What gunicorn loads: makes the database (Rucio's own build_database trips on SQLite), then is the server.
_APPLICATION = """
import pathlib
pathlib.Path("rucio.db").unlink(missing_ok=True)
from rucio.db.sqla import models, util
from rucio.db.sqla.session import get_engine
models.register_models(get_engine())
util.create_base_vo()
util.create_root_account()
from rucio.web.rest.flaskapi.v1.main import application
"""

# Every protocol may do everything, near and far.
_RIGHTS = {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1}


class Storage(NamedTuple):
    """An RSE. url: what its files' URLs begin with. directory: where the files lie. server: that serves them."""

    url: str
    directory: Path
    server: XRootD | None = None


@dataclass
class Rucio:
    """A server that answers.

    Attributes:
        config: the clients' rucio.cfg.
        environ: what a client needs in its environment, RUCIO_CONFIG among it.
        storages: name of an RSE -> storage.
    """

    url: str
    folder: Path
    token: str
    storages: dict[str, Storage] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "client" / "etc" / "rucio.cfg"

    @property
    def environ(self) -> dict[str, str]:
        home = self.config.parent.parent
        return {
            "RUCIO_CONFIG": str(self.config),
            "RUCIO_HOME": str(home),
            "RUCIO_CLIENT_MODE": "1",
            "RUCIO_ACCOUNT": ACCOUNT,
        }

    def ask(self, method: str, path: str, body: object = None) -> requests.Response:
        """An answer of Rucio's REST interface; it must be a good one."""
        headers = {"X-Rucio-Auth-Token": self.token}
        with requests.Session() as session:  # one for each call: a connection that stays open would be a leak of a test
            session.trust_env = False
            answer = session.request(method, f"{self.url}/{path}", headers=headers, json=body, timeout=PATIENCE)
        if not answer.ok:
            raise RuntimeError(f"Rucio: {method} /{path}: {answer.status_code} {answer.text}\n{logs(self.folder)}")
        return answer

    def add_storage(self, name: str, storage: Storage) -> None:
        """A deterministic RSE with one protocol and without limit."""
        scheme, _, rest = storage.url.partition("://")
        host, _, prefix = rest.partition("/")
        hostname, _, port = host.partition(":")
        kind = {"file": "posix", "root": "xrootd"}.get(scheme, "webdav")
        self.ask("POST", f"rses/{name}", {"deterministic": True})
        self.ask("POST", f"rses/{name}/attr/verify_checksum", {"value": True})
        protocol = {
            "hostname": hostname or "localhost",
            "port": int(port or 0),
            "prefix": f"/{prefix}/",
            "impl": f"rucio.rse.protocols.{kind}.Default",
            "domains": {"lan": _RIGHTS, "wan": _RIGHTS},
            "extended_attributes": None,
        }
        self.ask("POST", f"rses/{name}/protocols/{scheme}", {"scheme": scheme, **protocol})
        self.storages[name] = storage
        self.set_limit(name, UNLIMITED)

    def set_limit(self, rse: str, size: int) -> None:
        """Bytes that the account may have on an RSE. With 0 an upload fails; usage is counted by a daemon, not here."""
        self.ask("POST", f"accounts/{ACCOUNT}/limits/local/{rse}", {"bytes": size})

    def path(self, rse: str, name: str, scope: str = "test") -> Path:
        """Where a file of an RSE lies: to look at it, damage it or remove it."""
        return self.storages[rse].directory / _place(scope, name)

    def pfn(self, rse: str, name: str, scope: str = "test") -> str:
        """The URL of a file of an RSE."""
        return f"{self.storages[rse].url}/{_place(scope, name)}"

    def put(self, name: str, contents: bytes, rses: Sequence[str], scope: str = "test", **known: object) -> None:
        """A file in every one of these RSEs and in the catalogue.

        known: what the catalogue has instead of the truth: bytes, adler32, md5.
        """
        for rse in rses:
            storage = self.storages[rse]
            path = self.path(rse, name, scope)
            if storage.server is not None:
                storage.server.put(str(path.relative_to(storage.server.data)), contents)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(contents)
            true: Mapping[str, object] = {
                "bytes": len(contents),
                "adler32": f"{zlib.adler32(contents):08x}",
                "md5": hashlib.md5(contents).hexdigest(),
            }
            self.ask("POST", "replicas", {"rse": rse, "files": [{"scope": scope, "name": name, **true, **known}]})

    def put_dataset(self, name: str, files: Sequence[str], scope: str = "test") -> None:
        """A dataset of files that are in the catalogue."""
        self.ask("POST", f"dids/{scope}/{name}", {"type": "DATASET"})
        self.ask("POST", f"dids/{scope}/{name}/dids", {"dids": [{"scope": scope, "name": file} for file in files]})

    def replicas(self, name: str, scope: str = "test") -> dict[str, list[str]]:
        """What the catalogue has of a file: RSE -> URLs."""
        answer = self.ask("POST", "replicas/list", {"dids": [{"scope": scope, "name": name}]})
        found: dict[str, list[str]] = {}
        for line in answer.text.splitlines():
            found |= json.loads(line)["rses"]
        return found

    def traces(self) -> list[dict[str, object]]:
        """What came to /traces/ so far, with the fields that the server adds (traceIp, traceTimeentry, traceId)."""
        return [json.loads(line) for line in self._trace_lines() if line.startswith("{")]

    def bad_traces(self) -> list[str]:
        """Why traces did not fit the server's schema, a sentence for each that did not."""
        return [line for line in self._trace_lines() if line.startswith("Details: ")]

    def _trace_lines(self) -> list[str]:
        path = self.folder / "log" / "trace"
        return path.read_text().splitlines() if path.exists() else []


def require_rucio() -> None:
    """Skip where the server's environment is not there, and fail where CI=true promises that it is."""
    environment_of_the_suite("rucio-server")


@contextmanager
def running_rucio(xrootd: XRootD | None = None, secure: XRootD | None = None) -> Iterator[Rucio]:
    """A server for the time of a block, in about two seconds, with the account ACCOUNT, SCOPES and these RSEs.

    FILE1 and FILE2: file://. XRD1 and DAV1: root:// and http:// on `xrootd`. DAVS1: https:// on `secure`, with X.509;
    clients need a proxy for it. Rucio's own clients cannot use DAV1: they take every URL that is not https for a path.
    """
    python = environment_of_the_suite("rucio-server") / "bin" / "python"
    with tempfile.TemporaryDirectory(prefix="pilotkit-rucio-", dir="/tmp") as name:
        folder = Path(name)
        for part in ("log", "client/etc"):
            (folder / part).mkdir(parents=True)
        (folder / "server.cfg").write_text(_SERVER.format(folder=folder, username=_USERNAME, password=_PASSWORD))
        (folder / "application.py").write_text(_APPLICATION)

        def command(port: int) -> list[str]:
            # One process: two would make the database at the same time. The control socket would be in the user's home.
            return [
                str(python), "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", "1", "--threads", "4",
                "--no-control-socket", "--access-logfile", "log/access.log", "application:application",
            ]  # fmt: skip

        environ = {name: value for name, value in os.environ.items() if not name.startswith(("RUCIO_", "PYTHON"))}
        environ |= {"RUCIO_CONFIG": str(folder / "server.cfg"), "PYTHONDONTWRITEBYTECODE": "1"}
        with running_daemon("Rucio", command, folder, environment=environ) as port:
            url = f"http://127.0.0.1:{port}"
            rucio = Rucio(url, folder, _log_in(url, folder))
            known = {"url": url, "username": _USERNAME, "password": _PASSWORD, "account": ACCOUNT}
            rucio.config.write_text(_CLIENT.format(folder=folder, **known))
            for scope in SCOPES:
                rucio.ask("POST", f"accounts/{ACCOUNT}/scopes/{scope}")
            for rse, storage in _storages(folder, xrootd, secure).items():
                rucio.add_storage(rse, storage)
            yield rucio


def _log_in(url: str, folder: Path) -> str:
    """A token, which the server gives as soon as it is ready."""
    headers = {"X-Rucio-Account": ACCOUNT, "X-Rucio-Username": _USERNAME, "X-Rucio-Password": _PASSWORD}
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(f"{url}/auth/userpass", headers=headers, timeout=PATIENCE)
        return answer.headers["X-Rucio-Auth-Token"]
    except (requests.RequestException, KeyError) as error:
        raise RuntimeError(f"the Rucio server did not start: {error}\n{logs(folder)}") from error


def _storages(folder: Path, xrootd: XRootD | None, secure: XRootD | None) -> dict[str, Storage]:
    storages = {name: Storage(f"file://localhost{folder}/{name}", folder / name) for name in ("FILE1", "FILE2")}
    for storage in storages.values():
        storage.directory.mkdir()
    if xrootd is not None:
        storages["XRD1"] = _storage_on(xrootd, "xrd1", xrootd.root("xrd1"))
        storages["DAV1"] = _storage_on(xrootd, "dav1", xrootd.http("dav1").replace("dav://", "http://"))
    if secure is not None:
        storages["DAVS1"] = _storage_on(secure, "davs1", secure.davs("davs1").replace("davs://", "https://"))
    return storages


def _storage_on(server: XRootD, name: str, url: str) -> Storage:
    directory = server.data / name
    directory.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        shutil.chown(directory, "daemon")
    return Storage(url, directory, server)


def _place(scope: str, name: str) -> str:
    """The path of a file by Rucio's algorithm "hash", which spreads files over directories."""
    hashed = hashlib.md5(f"{scope}:{name}".encode()).hexdigest()
    return f"{scope.replace('.', '/')}/{hashed[:2]}/{hashed[2:4]}/{name}"
