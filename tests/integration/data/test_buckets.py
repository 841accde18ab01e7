"""The copytools for object stores against real servers: S3 with keys, S3 by signed URLs, Google's storage."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from pilot.api.data import StageInClient, StageOutClient, Tools
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import CommunicationFailure, PilotException
from pilot.copytool import gs, objects, objectstore, s3
from pilot.copytool.common import Transfer
from pilot.copytool.helper import Program
from pilot.info.filespec import FileSpec
from pilot.info.replica import Replica
from pilot.info.storagedata import StorageData
from pilot.util.guarded import GuardedProcess, Launcher
from pilot.util.watch import Limits
from tests.disks import fill, small_disk
from tests.gs import GS
from tests.integration.data.conftest import Proxy
from tests.integration.data.tools import damaged
from tests.s3 import S3, require_s3, running_s3
from tests.signed import Gate
from tests.unit.pilot import builders
from tests.x509 import make_x509

C = ErrorCodes
CONTENTS = os.urandom(5_000_000)
ADLER = {"adler32": f"{zlib.adler32(CONTENTS):08x}"}


@dataclass
class Store:
    """One kind of object store as a copytool sees it: read(name, port), write(name, port) name a file."""

    tool: str
    module: ModuleType
    port: int
    read: Callable[[str, int], str]
    write: Callable[[str, int], str]
    put: Callable[[str, bytes], None]
    get: Callable[[str], bytes]
    files: Callable[[], list[str]]
    keys: Mapping[str, str] = field(default_factory=dict)
    emulator: bool = False

    def environ(self, port: int = 0) -> dict[str, str]:
        """What a pilot for it is started with; port: of a proxy in front of it."""
        host = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port or self.port}"} if self.emulator else {}
        return {**os.environ, **self.keys, **host}

    def source(self, name: str, port: int = 0, **known: object) -> FileSpec:
        return FileSpec(name.rpartition("/")[2], surl=self.read(name, port or self.port), **known)  # type: ignore[arg-type]

    def sink(self, work: Path, name: str, port: int = 0, size: int = 0) -> FileSpec:
        lfn = name.rpartition("/")[2]
        (work / lfn).write_bytes(os.urandom(size) if size else CONTENTS)
        return FileSpec(lfn, "output", surl=self.write(name, port or self.port))


@pytest.fixture(autouse=True)
def the_gate_has_come_to_rest(request: pytest.FixtureRequest) -> Iterator[None]:
    """A server notices a client's leave a moment later, and only then ends the thread that it had for it."""
    used = "gate" in request.fixturenames or "[signed" in request.node.name
    gate: Gate | None = request.getfixturevalue("gate") if used else None
    yield
    if gate is not None:
        gate.settle()


def _with_keys(server: S3) -> Store:
    def url(name: str, port: int) -> str:
        return f"s3://127.0.0.1:{port}/{server.bucket}/{name}"

    keys = {name: value for name, value in server.environ.items() if name != "AWS_ENDPOINT_URL"}
    return Store("s3", s3, server.port, url, url, server.put, server.get, server.files, keys)


def _signed(gate: Gate) -> Store:
    def read(name: str, port: int) -> str:
        return gate.signed("GET", name, port=port)

    def write(name: str, port: int) -> str:
        return gate.signed("PUT", name, port=port)

    server = gate.s3
    return Store("objectstore", objectstore, gate.port, read, write, server.put, server.get, server.files)


def _google(server: GS) -> Store:
    def url(name: str, port: int) -> str:
        return server.gs(name)

    def run(call: str, name: str, work: Path) -> None:
        spec = FileSpec("f", surl=server.gs(name))
        getattr(gs, call)([spec], builders.transfer(work, environ={**os.environ, **server.environ}))

    def put(name: str, contents: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="pilotkit-put-") as folder:
            Path(folder, "f").write_bytes(contents)
            run("copy_out", name, Path(folder))

    def files() -> list[str]:
        root = server.path("")
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    return Store("gs", gs, server.port, url, url, put, lambda name: server.path(name).read_bytes(), files, {}, True)


@pytest.fixture(scope="module", params=["s3", "signed", "gs"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "gs":
        return _google(request.getfixturevalue("emulator"))
    if request.param == "signed":
        return _signed(request.getfixturevalue("gate"))
    return _with_keys(request.getfixturevalue("buckets"))


def transfer(work: Path, store: Store, port: int = 0, **changes: object) -> Transfer:
    return builders.transfer(work, **{"environ": store.environ(port), **changes})


def fails(call: Callable[[], None], *codes: int) -> str:
    with pytest.raises(PilotException) as raised:
        call()
    assert raised.value.code in codes, raised.value
    assert "Signature=" not in raised.value.diag.replace("Signature=***", ""), raised.value.diag
    return raised.value.diag


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """What the pilot has logged, and not the server, which is in this process too."""
    return "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("pilot"))


def left(work: Path) -> list[str]:
    return sorted(path.name for path in work.iterdir())


def test_a_file_comes_in_verified(store: Store, work: Path) -> None:
    store.put("f.root", CONTENTS)
    spec = store.source("f.root", filesize=len(CONTENTS), checksum=ADLER)
    store.module.copy_in([spec], transfer(work, store))
    assert (work / "f.root").read_bytes() == CONTENTS and left(work) == ["f.root"]
    assert (spec.status, spec.checksum) == ("transferred", ADLER) and "Signature" not in spec.turl


@pytest.mark.parametrize("name", ["a.b_c+d=e@f:g~h-i", "hash#sign", "per%20cent"])
def test_names_with_every_character_that_is_allowed_arrive_both_ways(store: Store, work: Path, name: str) -> None:
    store.module.copy_out([store.sink(work, f"names/{name}")], transfer(work, store))
    (work / name).unlink()
    store.module.copy_in([store.source(f"names/{name}")], transfer(work, store))
    assert (work / name).read_bytes() == CONTENTS and store.get(f"names/{name}") == CONTENTS


@pytest.mark.parametrize("algorithm", ["adler32", "md5"])
def test_a_file_goes_out_and_is_verified_at_the_other_end(store: Store, work: Path, algorithm: str) -> None:
    name = f"new/dir/{algorithm}.root"
    spec = store.sink(work, name)
    store.module.copy_out([spec], transfer(work, store, checksum_type=algorithm))
    assert store.get(name) == CONTENTS and spec.status == "transferred" and spec.filesize == len(CONTENTS)
    again = store.source(name, checksum=spec.checksum, filesize=spec.filesize)
    (work / again.lfn).unlink()
    store.module.copy_in([again], transfer(work, store))
    assert (work / again.lfn).read_bytes() == CONTENTS


def test_an_empty_file_goes_both_ways(store: Store, work: Path) -> None:
    spec = store.sink(work, "empty")
    (work / "empty").write_bytes(b"")
    store.module.copy_out([spec], transfer(work, store))
    (work / "empty").unlink()
    store.module.copy_in([store.source("empty", checksum={"adler32": "00000001"})], transfer(work, store))
    assert (work / "empty").read_bytes() == b"" and spec.checksum == {"adler32": "00000001"}


def test_an_object_that_is_none_of_the_jobs_is_left_alone(store: Store, work: Path) -> None:
    store.put("precious", b"precious")
    spec = store.sink(work, "precious")
    said = fails(lambda: store.module.copy_out([spec], transfer(work, store, may_replace=False)), C.FILEEXISTS)
    assert store.get("precious") == b"precious" and "precious" in said
    store.module.copy_out([spec], transfer(work, store, may_replace=True))
    assert store.get("precious") == CONTENTS


def test_a_service_that_does_not_say_what_is_there_does_not_have_it_overwritten(store: Store, work: Path) -> None:
    """Neither look nor clean-up come through; the tries after that must not take what is there for their own."""
    if store.tool == "objectstore":
        pytest.skip("a signed URL is for one request")
    store.put("precious", b"precious")
    proxy = Proxy(store.port, 1 << 30, refused=2)
    service = builders.infosys({"acopytools": {"default": [store.tool]}}, {})
    spec = store.sink(work, "precious", proxy.port)
    spec.replicas = [Replica("", spec.surl)]
    client = StageOutClient(
        service, logger=builders.LOG, settings=builders.file_settings(), workdir=work,
        tools=Tools(Launcher(), store.environ(proxy.port)),
    )  # fmt: skip
    try:
        fails(lambda: client.transfer([spec], attempts=4), C.STAGEOUTFAILED)
    finally:
        proxy.close()
    assert client.attempts[-1].kind == "exists" and store.get("precious") == b"precious"


class _Busy(BaseHTTPRequestHandler):
    """Takes an object, and has too much to do when it is asked for it the first time. asked: what came."""

    asked: ClassVar[list[str]] = []
    kept: ClassVar[dict[str, str]] = {}

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.asked.append(self.command)
        busy = self.asked.count("PUT") == 1 and self.asked[-2] == "PUT"
        self._answer(503 if busy else 200 if self.kept else 404, **self.kept)

    def do_PUT(self) -> None:
        self.asked.append(self.command)
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        tag = {"ETag": hashlib.md5(sent).hexdigest()}
        self.kept.update({name: text for name, text in self.headers.items() if name.startswith("x-amz-meta")}, **tag)
        self._answer(200, **tag)

    def do_DELETE(self) -> None:
        self.asked.append(self.command)
        self.kept.clear()
        self._answer(204)

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, text in {"Content-Length": "5" if self.kept and status == 200 else "0", **headers}.items():
            self.send_header(name, text)
        self.end_headers()


def test_what_a_busy_service_has_kept_unverified_does_not_stop_the_next_try(work: Path) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Busy)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    (work / "f.root").write_bytes(b"12345")
    spec = FileSpec("f.root", "output", surl=f"s3://127.0.0.1:{server.server_address[1]}/bucket/f.root")
    spec.replicas = [Replica("", spec.surl)]
    environ = {**os.environ, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    client = StageOutClient(
        builders.infosys({"acopytools": {"default": ["s3"]}}, {}), logger=builders.LOG,
        settings=builders.file_settings(), workdir=work, tools=Tools(Launcher(), environ),
    )  # fmt: skip
    try:
        client.transfer([spec], attempts=2)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert [one.kind for one in client.attempts] == ["unreachable", "ok"]
    assert _Busy.asked == ["HEAD", "PUT", "HEAD", "HEAD", "DELETE", "HEAD", "PUT", "HEAD"]


def test_a_missing_object_is_missing(store: Store, work: Path) -> None:
    said = fails(lambda: store.module.copy_in([store.source("none")], transfer(work, store)), C.MISSINGINPUTFILE)
    assert "none" in said and left(work) == []


def test_a_wrong_checksum_is_named_with_both_values(store: Store, work: Path) -> None:
    store.put("f.root", CONTENTS)
    spec = store.source("f.root", checksum={"adler32": "00000001"})
    said = fails(lambda: store.module.copy_in([spec], transfer(work, store)), C.GETADMISMATCH)
    assert ADLER["adler32"] in said and "00000001" in said and left(work) == []


def test_a_wrong_size_is_named_with_both_values(store: Store, work: Path) -> None:
    store.put("f.root", CONTENTS)
    said = fails(
        lambda: store.module.copy_in([store.source("f.root", filesize=7)], transfer(work, store)), C.STAGEINFAILED
    )
    assert "has 5000000 bytes, the catalogue says 7" in said and left(work) == []


def test_a_server_that_is_gone_cannot_be_reached(store: Store, work: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = listener.getsockname()[1]
    source, sink = store.source("f", gone), store.sink(work, "out", gone)
    said = fails(lambda: store.module.copy_in([source], transfer(work, store, gone)), C.STAGEINFAILED)
    assert "the server cannot be reached" in said
    said = fails(lambda: store.module.copy_out([sink], transfer(work, store, gone)), C.STAGEOUTFAILED)
    assert "the server cannot be reached" in said and left(work) == ["out"]


@pytest.fixture(params=["cut", "hang"])
def broken(store: Store, request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """How it breaks, and the port of a proxy in front of the store that does so after 1 MB."""
    proxy = Proxy(store.port, 1_000_000, hang=request.param == "hang")
    yield request.param, proxy.port
    proxy.close()


SLOW, PATIENT = Limits(4.0, 1000.0, 1e6), Limits(30.0, 1000.0, 1e6)


def test_a_download_that_breaks_off_leaves_no_half_file(store: Store, broken: tuple[str, int], work: Path) -> None:
    how, port = broken
    store.put("f.root", CONTENTS)
    begun = time.monotonic()
    # What is cut must not be taken for a stall on a busy machine.
    code, limits = (C.STAGEINFAILED, PATIENT) if how == "cut" else (C.STAGEINTIMEOUT, SLOW)
    spec = store.source("f.root", port)
    said = fails(lambda: store.module.copy_in([spec], transfer(work, store, port, limits=limits)), code)
    assert left(work) == [] and time.monotonic() - begun < 60
    assert ("the connection was cut" if how == "cut" else "stopped, no byte moved for") in said


@pytest.mark.parametrize("size", [5_000_000, 70_000_000])
def test_an_upload_that_breaks_off_leaves_nothing_behind(
    store: Store, broken: tuple[str, int], work: Path, size: int
) -> None:
    how, port = broken
    name = f"broken/{how}{size}.root"
    begun = time.monotonic()
    spec = store.sink(work, name, port, size)
    # Who only sends may not notice that nobody reads any more.
    codes = (C.STAGEOUTTIMEOUT, *([C.STAGEOUTFAILED] if how == "cut" else []))
    fails(lambda: store.module.copy_out([spec], transfer(work, store, port, limits=SLOW)), *codes)
    assert time.monotonic() - begun < 60 and spec.status != "transferred" and name not in store.files()


@pytest.mark.parametrize("how", ["in", "out"])
def test_a_byte_that_changes_on_the_way_is_found(store: Store, work: Path, how: str) -> None:
    store.put("f.root", CONTENTS)
    proxy = Proxy(store.port, 2_000_000, spoil="down" if how == "in" else "up")
    try:
        if how == "in":
            spec = store.source("f.root", proxy.port, checksum=ADLER)
            said = fails(lambda: store.module.copy_in([spec], transfer(work, store, proxy.port)), C.GETADMISMATCH)
            assert left(work) == [] and "f.root" in said
        else:
            spec = store.sink(work, "spoilt", proxy.port)
            said = fails(lambda: store.module.copy_out([spec], transfer(work, store, proxy.port)), C.PUTADMISMATCH)
            assert "spoilt" in said and "spoilt" not in store.files()
    finally:
        proxy.close()


def test_a_full_disk_of_the_job_is_told(store: Store) -> None:
    store.put("f.root", CONTENTS)
    with small_disk(4) as disk:
        fill(disk, leave=1_000_000)
        fails(lambda: store.module.copy_in([store.source("f.root")], transfer(disk, store)), C.NOLOCALSPACE)
        assert left(disk) == ["filler"]


class Counting(Launcher):
    """Counts what it starts."""

    def __init__(self) -> None:
        super().__init__()
        self.started = 0

    def start(self, *args: object, **options: object) -> GuardedProcess:
        self.started += 1
        return super().start(*args, **options)  # type: ignore[arg-type]


def test_many_small_files_share_one_helper_a_slot(store: Store, work: Path) -> None:
    files = []
    for number in range(12):
        store.put(f"many/{number}", b"%d" % number * 1000)
        files.append(FileSpec(f"f{number}", replicas=[Replica("A", store.read(f"many/{number}", store.port))]))
    launcher = Counting()
    service = builders.infosys({"acopytools": {"default": [store.tool]}, "catchall": "ntransfers=2"}, {})
    client = StageInClient(
        service, logger=builders.LOG, settings=builders.file_settings(), workdir=work,
        tools=Tools(launcher, store.environ()),
    )  # fmt: skip
    client.transfer(files)
    assert all((work / f"f{number}").read_bytes() == b"%d" % number * 1000 for number in range(12))
    assert {one.kind for one in client.attempts} == {"ok"}
    assert launcher.started <= (0 if store.tool == "objectstore" else 2)


# ---- denied, and keys


def test_wrong_keys_are_denied_in_words_that_say_so(buckets: S3, work: Path) -> None:
    store = _with_keys(buckets)
    store.put("f.root", CONTENTS)
    spec = store.source("f.root")
    for name, word in (("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"), ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch")):
        wrong = {**store.environ(), name: "c4na7y"}
        said = fails(
            lambda wrong=wrong: s3.copy_in([spec], transfer(work, store, environ=wrong)),  # type: ignore[misc]
            C.STAGEINAUTHENTICATIONFAILURE,
        )
        assert "the keys are not accepted" in said and word in said and "c4na7y" not in said
        fails(
            lambda wrong=wrong: s3.copy_out([store.sink(work, "out")], transfer(work, store, environ=wrong)),  # type: ignore[misc]
            C.STAGEOUTAUTHENTICATIONFAILURE,
        )
    assert left(work) == ["out"]


def test_what_a_policy_forbids_is_denied(buckets: S3, work: Path) -> None:
    store = _with_keys(buckets)
    spec = FileSpec("f", surl=buckets.s3("f", buckets.locked))
    said = fails(lambda: s3.copy_in([spec], transfer(work, store)), C.STAGEINAUTHENTICATIONFAILURE)
    assert "access is denied" in said and "AccessDenied" in said
    (work / "f").write_bytes(b"x")
    fails(lambda: s3.copy_out([spec], transfer(work, store)), C.STAGEOUTAUTHENTICATIONFAILURE)


def test_without_keys_the_error_says_that_there_are_none(buckets: S3, work: Path) -> None:
    spec = FileSpec("f", surl=buckets.s3("f"))
    bare = {"PATH": os.environ["PATH"], "HOME": str(work)}
    said = fails(lambda: s3.copy_in([spec], builders.transfer(work, environ=bare)), C.STAGEINAUTHENTICATIONFAILURE)
    assert "there are no keys for the object store" in said


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_signature_that_is_wrong_or_has_expired_is_denied_and_told_nowhere(
    gate: Gate, work: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gate.s3.put("f.root", CONTENTS)
    (work / "f.root").write_bytes(CONTENTS)
    call = objectstore.copy_in if method == "GET" else objectstore.copy_out
    code = C.STAGEINAUTHENTICATIONFAILURE if method == "GET" else C.STAGEOUTAUTHENTICATIONFAILURE
    wrong = gate.signed(method, "f.root").replace("Signature=", "Signature=c4na7y")
    said = fails(lambda: call([FileSpec("f.root", surl=wrong)], builders.transfer(work)), code)
    assert "SignatureDoesNotMatch" in said and "c4na7y" not in said + logged(caplog)
    expired = gate.signed(method, "f.root", -10)
    said = fails(lambda: call([FileSpec("f.root", surl=expired)], builders.transfer(work)), code)
    assert "Request has expired" in said


def test_who_takes_a_signed_url_is_shown_no_token(gate: Gate, work: Path) -> None:
    gate.s3.put("f.root", CONTENTS)
    given = builders.transfer(work, environ={"BEARER_TOKEN": "c4na7y.c4na7y.c4na7y"})
    objectstore.copy_in([FileSpec("f.root", surl=gate.signed("GET", "f.root"), checksum=ADLER)], given)
    objectstore.copy_out([FileSpec("f.root", surl=gate.signed("PUT", "g.root"))], given)
    assert gate.s3.get("g.root") == CONTENTS
    # The same server does see it where nothing is signed.
    bare = FileSpec("g", surl=f"http://127.0.0.1:{gate.port}/bucket/f.root")
    assert "Only one auth mechanism" in fails(lambda: objectstore.copy_in([bare], given), C.STAGEINFAILED)


class _Refusing(BaseHTTPRequestHandler):
    """Google's service to somebody without rights; recorded from storage.googleapis.com's documentation."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = (
            b'{"error": {"code": 403, "message": "pilot@x.iam.gserviceaccount.com does not have storage.objects access '
            b"to the Google Cloud Storage object. Permission 'storage.objects.get' denied on resource "
            b'(or it may not exist)."}}'
        )
        self.send_response(403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


def test_what_google_denies_is_denied(work: Path) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        environ = {**os.environ, "STORAGE_EMULATOR_HOST": f"127.0.0.1:{server.server_address[1]}"}
        (work / "f").write_bytes(b"x")
        spec, given = FileSpec("f", surl="gs://bucket/f"), builders.transfer(work, environ=environ)
        said = fails(lambda: gs.copy_in([spec], given), C.STAGEINAUTHENTICATIONFAILURE)
        assert "access is denied" in said
        fails(lambda: gs.copy_out([spec], given), C.STAGEOUTAUTHENTICATIONFAILURE)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_google_without_keys_says_that_there_are_none(work: Path) -> None:
    bare = {"PATH": os.environ["PATH"], "HOME": str(work), "GOOGLE_APPLICATION_CREDENTIALS": str(work / "none.json")}
    spec = FileSpec("f", surl="gs://bucket/f")
    said = fails(lambda: gs.copy_in([spec], builders.transfer(work, environ=bare)), C.STAGEINAUTHENTICATIONFAILURE)
    assert "there are no keys for the object store" in said and "none.json" in said


def test_a_bucket_that_is_not_there_is_named_so(buckets: S3, emulator: GS, work: Path) -> None:
    store, google = _with_keys(buckets), _google(emulator)
    (work / "f").write_bytes(b"x")
    spec = FileSpec("f", surl=buckets.s3("f", "nowhere"))
    said = fails(lambda: s3.copy_in([spec], transfer(work, store)), C.MISSINGINPUTFILE)
    assert "the bucket is not there" in said
    said = fails(lambda: s3.copy_out([spec], transfer(work, store)), C.STAGEOUTFAILED)
    assert "the bucket is not there" in said
    there = FileSpec("f", surl="gs://nowhere/f")
    fails(lambda: gs.copy_in([there], transfer(work, google)), C.MISSINGINPUTFILE)
    fails(lambda: gs.copy_out([there], transfer(work, google)), C.STAGEOUTFAILED)


def test_keys_come_from_the_queues_file_by_the_name_of_the_storage(buckets: S3, work: Path, tmp_path: Path) -> None:
    buckets.put("f.root", CONTENTS)
    secrets = tmp_path / "secrets"
    secrets.write_text(
        "[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n"
        f"[STORE]\naws_access_key_id = {buckets.access_key}\naws_secret_access_key = {buckets.secret_key}\n"
    )
    # The file comes before what is in the environment.
    environ = {**os.environ, "AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "other"}
    given = builders.transfer(work, environ=environ, options={"secrets": str(secrets)})
    s3.copy_in([FileSpec("f.root", ddmendpoint="STORE", surl=buckets.s3("f.root"))], given)
    assert (work / "f.root").read_bytes() == CONTENTS
    other = FileSpec("f.root", ddmendpoint="OTHER", surl=buckets.s3("f.root"))
    said = fails(lambda: s3.copy_in([other], given), C.STAGEINAUTHENTICATIONFAILURE)
    assert "InvalidAccessKeyId" in said
    secrets.unlink()
    said = fails(lambda: s3.copy_in([other], given), C.MISSINGCREDENTIALS)
    assert str(secrets) in said


def test_keys_come_from_the_dispatcher_by_the_names_that_the_storage_has(buckets: S3, work: Path) -> None:
    buckets.put("f.root", CONTENTS)
    settings = {"access_key": "store.pub", "secret_key": "store.key"}
    described = StorageData(
        {"name": "STORE", "rprotocols": {"1": {"endpoint": f"s3://127.0.0.1:{buckets.port}/", "path": "bucket",
                                               "settings": settings}}}
    )  # fmt: skip
    asked = []

    def keys(public: str, private: str) -> tuple[str, str]:
        asked.append((public, private))
        return buckets.access_key, buckets.secret_key

    def none(public: str, private: str) -> tuple[str, str]:
        raise CommunicationFailure("the server has no such keys")

    bare = {"PATH": os.environ["PATH"], "HOME": str(work)}
    given = builders.transfer(work, environ=bare, storage_of={"STORE": described}.get, key_pair=keys)
    spec = FileSpec("f.root", ddmendpoint="STORE", surl=f"{buckets.s3('f.root')}")
    objectstore.copy_in([spec], given)
    assert (work / "f.root").read_bytes() == CONTENTS and asked == [("store.pub", "store.key")]
    said = fails(lambda: s3.copy_in([spec], replace(given, key_pair=none)), C.MISSINGCREDENTIALS)
    assert "store.pub" in said and "the server has no such keys" in said


def test_no_key_is_in_the_arguments_or_environment_of_the_helper(buckets: S3, work: Path, tmp_path: Path) -> None:
    """With keys from the dispatcher, which no other process of the node may see."""
    seen: list[str] = []

    class Looking(Launcher):
        def start(self, command: object, **options: object) -> GuardedProcess:  # type: ignore[override]
            seen.append(f"{command} {options.get('env')}")
            return super().start(command, **options)  # type: ignore[arg-type]

    buckets.put("f.root", CONTENTS)
    settings = {"access_key": "a", "secret_key": "b"}
    described = StorageData({"name": "S", "rprotocols": {"1": {"endpoint": "s3://h/", "settings": settings}}})
    given = builders.transfer(
        work, environ={"PATH": os.environ["PATH"]}, launcher=Looking(), storage_of=lambda name: described,
        key_pair=lambda a, b: (buckets.access_key, buckets.secret_key),
    )  # fmt: skip
    s3.copy_in([FileSpec("f.root", surl=buckets.s3("f.root"))], given)
    assert seen and buckets.secret_key not in str(seen) and buckets.access_key not in str(seen)


# ---- verification


def test_an_upload_in_parts_is_verified_and_one_that_breaks_off_is_ended(buckets: S3, work: Path) -> None:
    store = _with_keys(buckets)
    spec = store.sink(work, "large.root", size=150_000_000)
    s3.copy_out([spec], transfer(work, store))
    with buckets.client() as client:
        head = client.head_object(Bucket=buckets.bucket, Key="large.root")
    assert head["ETag"].strip('"').endswith("-3") and head["ContentLength"] == 150_000_000
    assert (
        head["Metadata"]["adler32"] == spec.checksum["adler32"] == f"{zlib.adler32((work / spec.lfn).read_bytes()):08x}"
    )
    proxy = Proxy(buckets.port, 30_000_000)
    try:
        again = store.sink(work, "ended.root", proxy.port, size=150_000_000)
        given = transfer(work, store, limits=SLOW)
        fails(lambda: s3.copy_out([again], given), C.STAGEOUTFAILED, C.STAGEOUTTIMEOUT)
    finally:
        proxy.close()
    with buckets.client() as client:
        assert client.list_multipart_uploads(Bucket=buckets.bucket).get("Uploads", []) == []
    assert "ended.root" not in store.files()


def test_a_file_that_no_catalogue_knows_is_compared_with_what_was_written_with_it(buckets: S3, work: Path) -> None:
    with buckets.client() as client:
        client.put_object(Bucket=buckets.bucket, Key="noted", Body=b"x", Metadata={"adler32": "00000001"})
    store = _with_keys(buckets)
    said = fails(lambda: s3.copy_in([store.source("noted")], transfer(work, store)), C.GETADMISMATCH)
    assert "00000001" in said and left(work) == []


def test_a_file_that_was_damaged_in_googles_storage_is_found_without_a_catalogue(emulator: GS, work: Path) -> None:
    store = _google(emulator)
    store.put("rotten", CONTENTS)
    emulator.path("rotten").write_bytes(damaged(CONTENTS))
    said = fails(lambda: gs.copy_in([store.source("rotten")], transfer(work, store)), C.GETADMISMATCH)
    assert "crc32c" in said and left(work) == []


# ---- TLS


def test_tls_is_verified_with_the_grids_certificates(work: Path, tmp_path: Path) -> None:
    require_s3()
    (tmp_path / "x509").mkdir()
    x509 = make_x509(tmp_path / "x509")
    with running_s3(checks_keys=False, x509=x509) as server:
        server.put("f.root", CONTENTS)
        described = StorageData({"name": "S", "resource": {"endpoint": server.url, "bucket_id": "bucket"}})
        environ = {**os.environ, **server.environ}
        given = builders.transfer(work, environ=environ, storage_of=lambda name: described, ca=str(x509.ca_dir))
        spec = FileSpec("f.root", surl="s3://bucket/f.root")
        s3.copy_in([spec], given)
        assert (work / "f.root").read_bytes() == CONTENTS
        s3.copy_out([replace(spec, surl="s3://bucket/out")], given)
        said = fails(lambda: s3.copy_in([spec], replace(given, ca="")), C.STAGEINAUTHENTICATIONFAILURE)
        assert "the server's certificate is not trusted" in said


def test_a_service_without_tls_on_another_machine_gets_nothing(work: Path) -> None:
    spec = FileSpec("f", surl="s3://bucket/f")
    given = builders.transfer(work, environ={**os.environ, "AWS_ENDPOINT_URL": "http://store.example.org"})
    said = fails(lambda: s3.copy_in([spec], given), C.STAGEINAUTHENTICATIONFAILURE)
    assert "http://store.example.org is not encrypted" in said


# ---- storages and their descriptions


@pytest.mark.parametrize("tool", ["s3", "objectstore"])
def test_a_bucket_is_found_from_the_resource_of_the_storage_alone(buckets: S3, work: Path, tool: str) -> None:
    described = {"state": "ACTIVE", "id": 77, "resource": {"endpoint": buckets.url, "bucket_id": buckets.bucket}}
    service = builders.infosys(
        {"acopytools": {"default": [tool]}, "astorages": {"default": ["STORE"]}}, {"STORE": described}  # type: ignore[dict-item]
    )  # fmt: skip
    (work / "out.root").write_bytes(CONTENTS)
    environ = {name: value for name, value in _with_keys(buckets).environ().items() if not name.startswith("GOOGLE")}
    spec = FileSpec("out.root", "output", scope=f"mc.{tool}")
    given = {"logger": builders.LOG, "settings": builders.file_settings(), "workdir": work}
    StageOutClient(service, **given, tools=Tools(Launcher(), environ)).transfer([spec])  # type: ignore[arg-type]
    name = StageOutClient.get_path(f"mc.{tool}", "out.root")
    assert buckets.get(name) == CONTENTS and spec.surl == f"s3://127.0.0.1:{buckets.port}/bucket/{name}"
    assert service.get_ddmendpoint(77) == "STORE" and service.get_storage_id("STORE") == 77
    (work / "out.root").unlink()
    again = FileSpec("out.root", scope=f"mc.{tool}", checksum=spec.checksum)
    StageInClient(service, **given, tools=Tools(Launcher(), environ)).transfer([again])  # type: ignore[arg-type]
    assert (work / "out.root").read_bytes() == CONTENTS


def test_urls_that_the_storage_has_for_its_files_are_used_and_never_shown(
    gate: Gate, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    urls = {"get": gate.signed("GET", "given.root"), "put": gate.signed("PUT", "given.root")}
    described = {"state": "ACTIVE", "resource": {"signed": {"given.root": urls}}}
    service = builders.infosys(
        {"acopytools": {"default": ["objectstore"]}, "astorages": {"default": ["STORE"]}}, {"STORE": described}  # type: ignore[dict-item]
    )  # fmt: skip
    (work / "given.root").write_bytes(CONTENTS)
    spec = FileSpec("given.root", "output", scope="mc")
    given = {"logger": builders.LOG, "settings": builders.file_settings(), "workdir": work}
    out = StageOutClient(service, **given, tools=Tools(Launcher(), {}))  # type: ignore[arg-type]
    out.transfer([spec])
    assert gate.s3.get("given.root") == CONTENTS and spec.turl == f"http://127.0.0.1:{gate.port}/bucket/given.root"
    (work / "given.root").unlink()
    source = StageInClient(service, **given, tools=Tools(Launcher(), {}))  # type: ignore[arg-type]
    source.transfer([FileSpec("given.root", scope="mc", checksum=spec.checksum)])
    secrets = [part.partition("&")[0] for url in urls.values() for part in url.split("Signature=")[1:]]
    said = logged(caplog) + str([one.as_json() for one in (*out.attempts, *source.attempts)])
    assert len(secrets) == 2 and not any(secret in said for secret in secrets) and "Signature=***" in said


# ---- what is missing


@pytest.mark.parametrize(("tool", "words"), [(s3, "pip install boto3"), (gs, "pip install google-cloud-storage")])
def test_a_missing_library_is_named_with_what_to_install(
    tool: ModuleType, words: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True, timeout=60)
    service: objects.Service = tool._SERVICE
    bare = replace(service, program=Program(service.program.name, str(tmp_path / "bare/bin/python")))
    monkeypatch.setattr(tool, "_SERVICE", bare)
    spec = FileSpec("f", surl="s3://127.0.0.1:1/b/f" if tool is s3 else "gs://b/f")
    said = fails(lambda: tool.copy_in([spec], builders.transfer(work)), C.MIDDLEWAREIMPORTFAILURE)
    assert words in said and "No module named" in said
