"""The copytool for HTTP storage against a real server that works, refuses, lies, hangs, and cuts connections."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from pilot.api.data import StageOutClient, Tools
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool import https
from pilot.copytool.errors import Kind, kind_of
from pilot.info.filespec import FileSpec
from pilot.util.guarded import Launcher
from pilot.util.https import Json
from pilot.util.watch import Limits
from tests.unit.pilot import builders
from tests.unit.pilot.davserver import DavServer, Handler
from tests.x509 import X509

C = ErrorCodes
CONTENTS = bytes(range(256)) * 8192  # 2 MiB
ADLER = f"{zlib.adler32(CONTENTS):08x}"
SUMS = {"adler32": ADLER, "md5": hashlib.md5(CONTENTS).hexdigest()}


@pytest.fixture
def dav(tmp_path: Path) -> Iterator[DavServer]:
    (tmp_path / "store").mkdir()
    server = DavServer(tmp_path / "store")
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def stored(dav: DavServer, name: str = "f.root", **changes: Any) -> FileSpec:
    (dav.root / name).write_bytes(CONTENTS)
    return FileSpec(name, surl=f"{dav.url}/{name}", **changes)


def made(dav: DavServer, work: Path, name: str = "f.root", contents: bytes = CONTENTS) -> FileSpec:
    (work / name).write_bytes(contents)
    return FileSpec(name, "output", surl=f"{dav.url}/vo/3d/b9/{name}")


def fails(code: int, call: Callable[[], None], *said: str) -> PilotException:
    with pytest.raises(PilotException) as raised:
        call()
    assert raised.value.code == code, raised.value
    assert all(text in raised.value.diag for text in said), raised.value.diag
    return raised.value


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# ---- in


@pytest.mark.parametrize("algorithm", ["adler32", "md5"])
def test_a_file_comes_in_with_its_checksum_computed_on_the_way(dav: DavServer, work: Path, algorithm: str) -> None:
    spec = stored(dav, filesize=len(CONTENTS), checksum={algorithm: SUMS[algorithm]})
    https.copy_in([spec], builders.transfer(work))
    assert (work / "f.root").read_bytes() == CONTENTS and left(work) == ["f.root"]
    assert (spec.status, spec.turl) == ("transferred", spec.surl)


def test_names_with_every_character_that_is_allowed_arrive(dav: DavServer, work: Path) -> None:
    name = "a.b_c+d=e@f:g~h#i%20j-k"
    https.copy_in([stored(dav, name)], builders.transfer(work))
    assert (work / name).read_bytes() == CONTENTS


def test_several_files_share_one_connection(dav: DavServer, work: Path) -> None:
    https.copy_in([stored(dav, f"f{n}") for n in range(5)], builders.transfer(work))
    assert left(work) == [f"f{n}" for n in range(5)] and len(dav.connections) == 1


@pytest.mark.parametrize(
    ("known", "code", "said"),
    [
        ({"filesize": 5}, C.STAGEINFAILED, ("has 2097152 bytes, the catalogue says 5",)),
        ({"checksum": {"adler32": "00000001"}}, C.GETADMISMATCH, (ADLER, "the catalogue says 00000001")),
        ({"checksum": {"md5": "0" * 32}}, C.GETMD5MISMATCH, (SUMS["md5"], "the catalogue says 000")),
    ],
)
def test_a_wrong_file_is_named_with_both_values_and_not_kept(
    dav: DavServer, work: Path, known: dict[str, Any], code: int, said: tuple[str, ...]
) -> None:
    fails(code, lambda: https.copy_in([stored(dav, **known)], builders.transfer(work)), *said)
    assert left(work) == []


def test_without_a_catalogue_the_servers_own_checksum_counts(dav: DavServer, work: Path) -> None:
    def lie(handler: Handler) -> bool:
        if handler.command == "HEAD":
            handler.send(200, Digest="adler32=00000001")
        return handler.command == "HEAD"

    dav.fault = lie
    fails(C.GETADMISMATCH, lambda: https.copy_in([stored(dav)], builders.transfer(work)), ADLER, "00000001")
    assert left(work) == []


@pytest.mark.parametrize(
    ("status", "inward", "outward", "kind"),
    [
        (404, 1331, 1137, Kind.MISSING),
        (401, 1338, 1383, Kind.DENIED),
        (403, 1338, 1383, Kind.DENIED),
        (507, 1098, 1333, Kind.FULL),
        (503, 1099, 1137, Kind.UNREACHABLE),
        (418, 1099, 1137, Kind.OTHER),
    ],
)
def test_a_refusal_has_its_code_and_the_servers_words(
    dav: DavServer, work: Path, status: int, inward: int, outward: int, kind: Kind
) -> None:
    def refuse(handler: Handler) -> bool:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        handler.send(status, b"ask the\nadministrator")
        return True

    dav.fault = refuse
    said = (f"the server answers {status} ", "ask the / administrator")
    error = fails(inward, lambda: https.copy_in([stored(dav)], builders.transfer(work)), *said)
    assert kind_of(error) is kind and left(work) == []
    fails(outward, lambda: https.copy_out([made(dav, work)], builders.transfer(work)), *said)


def test_a_server_that_is_gone_is_an_error_that_says_so(work: Path, port_of_nobody: int) -> None:
    spec = FileSpec("f.root", surl=f"http://127.0.0.1:{port_of_nobody}/f.root")
    error = fails(C.STAGEINFAILED, lambda: https.copy_in([spec], builders.transfer(work)), "cannot be reached")
    assert kind_of(error) is Kind.UNREACHABLE


def test_a_server_that_says_500_is_understood_by_its_words(dav: DavServer, work: Path) -> None:
    dav.fault = lambda handler: handler.send(500, b"Unable to open f; no such file or directory") or True
    fails(C.MISSINGINPUTFILE, lambda: https.copy_in([stored(dav)], builders.transfer(work)), "no such file")


def half_then(end: Callable[[Handler], None]) -> Callable[[Handler], bool]:
    """1 MB of what was promised, and then something else."""

    def act(handler: Handler) -> bool:
        if handler.command == "PUT":
            handler.rfile.read(1_000_000)
        else:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(CONTENTS)))
            handler.end_headers()
            handler.wfile.write(CONTENTS[:1_000_000])
        end(handler)
        return True

    return act


def cut(handler: Handler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def in_trouble(handler: Handler) -> None:
    """The rest is taken, and perhaps kept."""
    handler.rfile.read(int(handler.headers["Content-Length"]) - 1_000_000)
    handler.send(504)


def no_room(handler: Handler) -> None:
    """The rest is taken, and then the disk is found to be full."""
    handler.rfile.read(int(handler.headers["Content-Length"]) - 1_000_000)
    handler.send(507)


def test_a_connection_that_is_cut_in_the_middle_leaves_no_half_file(dav: DavServer, work: Path) -> None:
    dav.fault = half_then(cut)
    error = fails(C.STAGEINFAILED, lambda: https.copy_in([stored(dav)], builders.transfer(work)), "was cut after")
    assert kind_of(error) is Kind.CUT and left(work) == []


def test_a_server_that_hangs_after_a_megabyte_is_left_for_lack_of_progress(dav: DavServer, work: Path) -> None:
    dav.fault = half_then(Handler.hang)
    begun = time.monotonic()
    slow = builders.transfer(work, limits=Limits(1.5, 1000.0, 1e6))
    error = fails(C.STAGEINTIMEOUT, lambda: https.copy_in([stored(dav)], slow), "stopped, no byte moved for")
    assert kind_of(error) is Kind.STALLED and left(work) == []
    assert time.monotonic() - begun < 15


def test_a_server_that_does_not_even_begin_to_answer_is_left_too(dav: DavServer, work: Path) -> None:
    dav.fault = lambda handler: handler.hang() or True
    slow = builders.transfer(work, limits=Limits(1.5, 1000.0, 1e6))
    fails(C.STAGEINTIMEOUT, lambda: https.copy_in([stored(dav)], slow), "no byte moved")


def test_a_cancelled_download_ends_soon_although_the_server_hangs(dav: DavServer, work: Path) -> None:
    dav.fault = half_then(Handler.hang)
    cancel = threading.Event()
    timer = threading.Timer(0.7, cancel.set)
    timer.start()
    begun = time.monotonic()
    try:
        moving = builders.transfer(work, cancelled=cancel.is_set, limits=Limits(1000.0, 1000.0, 1.0))
        error = fails(C.STAGEINFAILED, lambda: https.copy_in([stored(dav)], moving), "f.root was cancelled")
    finally:
        timer.join()
    assert kind_of(error) is Kind.CANCELLED and left(work) == [] and time.monotonic() - begun < 15


def test_a_name_server_that_never_answers_holds_up_no_transfer(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def resolve(*arguments: Any, **named: Any) -> list[Any]:
        over.wait(30)
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    before = set(threading.enumerate())
    spec = FileSpec("f.root", surl="https://storage.invalid/f.root")
    slow = builders.transfer(work, limits=Limits(1.0, 60.0, 1e6))
    try:
        fails(C.STAGEINTIMEOUT, lambda: https.copy_in([spec], slow), "no byte moved")
    finally:
        over.set()
        for thread in set(threading.enumerate()) - before:
            thread.join(20)


def test_a_full_disk_is_the_nodes_own_fault(dav: DavServer, small_disk: Path) -> None:
    fails(C.NOLOCALSPACE, lambda: https.copy_in([stored(dav)], builders.transfer(small_disk)), "no space in the job's")
    assert left(small_disk) == []


# ---- out


@pytest.mark.parametrize("algorithm", ["adler32", "md5"])
def test_a_file_goes_out_and_is_verified_at_the_other_end(dav: DavServer, work: Path, algorithm: str) -> None:
    spec = made(dav, work)
    https.copy_out([spec], builders.transfer(work, checksum_type=algorithm))
    assert (dav.root / "vo/3d/b9/f.root").read_bytes() == CONTENTS
    assert (spec.status, spec.filesize, spec.checksum) == ("transferred", len(CONTENTS), {algorithm: SUMS[algorithm]})
    assert dav.asked == ["PUT", "HEAD"]


def test_a_file_that_is_none_of_the_jobs_is_left_alone(dav: DavServer, work: Path) -> None:
    spec = made(dav, work)
    (dav.root / "vo/3d/b9").mkdir(parents=True)
    (dav.root / "vo/3d/b9/f.root").write_bytes(b"precious")
    first = builders.transfer(work, may_replace=False)
    fails(C.FILEEXISTS, lambda: https.copy_out([spec], first), "not overwritten")
    assert (dav.root / "vo/3d/b9/f.root").read_bytes() == b"precious"
    assert dav.asked == ["HEAD"]


def test_a_name_of_a_file_does_not_decide_what_went_wrong(work: Path, port_of_nobody: int) -> None:
    spec = FileSpec("f", surl=f"http://127.0.0.1:{port_of_nobody}/no.such.file.timeout.permission_denied")
    fails(C.STAGEINFAILED, lambda: https.copy_in([spec], builders.transfer(work)), "the server cannot be reached")


@pytest.mark.parametrize("stored", [True, False])
def test_a_signed_upload_whose_answer_is_lost_counts_when_it_is_there(dav: DavServer, work: Path, stored: bool) -> None:
    """And somebody else's object is not overwritten for it."""
    conditions: list[str] = []

    def lossy(handler: Handler) -> bool:
        if handler.command != "PUT":
            return False
        given = {name: handler.headers.get(name) for name in ("If-Match", "If-None-Match")}
        conditions.append(", ".join(f"{name}: {value}" for name, value in given.items() if value))
        contents = handler.rfile.read(int(handler.headers["Content-Length"]))
        if len(conditions) == 1:
            if stored:
                handler.file.write_bytes(contents)
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            handler.send(200 if stored else 412)
        return True

    dav.fault = lossy
    spec = made(dav, work)
    spec.surl = f"{dav.url}/f.root?X-Amz-Signature=0a1b2c3d"
    first = builders.transfer(work, may_replace=False)
    if stored:
        https.copy_out([spec], first)
        assert spec.status == "transferred" and (dav.root / "f.root").read_bytes() == CONTENTS
    else:
        fails(C.STAGEOUTFAILED, lambda: https.copy_out([spec], first), "the connection was cut")
    assert conditions == ["If-None-Match: *", f'If-Match: "{SUMS["md5"]}"']


@pytest.mark.parametrize("removable", [True, False])
def test_what_a_cut_upload_has_left_does_not_stop_the_next_try(
    dav: DavServer, work: Path, monkeypatch: pytest.MonkeyPatch, removable: bool
) -> None:
    """Nor does it make a job that has the file of somebody else in its way overwrite that."""
    there = dav.root / "mc" / "f.root"
    there.parent.mkdir(parents=True)

    def cut(handler: Handler) -> bool:
        if handler.command == "DELETE" and not removable:
            handler.send(500)
            return True
        if handler.command != "PUT" or dav.asked.count("PUT") > 1:
            return False
        there.write_bytes(handler.rfile.read(100_000))
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
        return True

    dav.fault = cut
    protocols: list[Json] = [{"endpoint": dav.url, "path": "/", "id": 1}]
    described: Json = {"is_deterministic": True, "arprotocols": {"pw": protocols}}
    service = builders.infosys(
        {"astorages": {"pw": ["DAV"]}, "acopytools": {"pw": ["https"]}, "copytools": {"https": {}}}, {"DAV": described}
    )
    monkeypatch.setattr("pilot.info.storagedata.deterministic_path", lambda scope, lfn: f"{scope}/{lfn}")
    (work / "f.root").write_bytes(CONTENTS)
    spec = FileSpec("f.root", "output", scope="mc")
    client = StageOutClient(
        service, logger=builders.LOG, settings=builders.file_settings(), workdir=work, tools=Tools(Launcher(), {})
    )
    client.transfer([spec], ["pw"], attempts=2)
    assert there.read_bytes() == CONTENTS and spec.status == "transferred"
    looked_again = ["HEAD"] if removable else []
    assert dav.asked == ["HEAD", "PUT", "DELETE", *looked_again, "PUT", "HEAD"]


@pytest.mark.parametrize(("status", "code"), [(403, C.STAGEOUTAUTHENTICATIONFAILURE), (503, C.STAGEOUTFAILED)])
def test_a_server_that_does_not_say_what_is_there_is_sent_nothing(
    dav: DavServer, work: Path, status: int, code: int
) -> None:
    def evasive(handler: Handler) -> bool:
        if handler.command == "HEAD":
            handler.send(status)
        return handler.command == "HEAD"

    dav.fault = evasive
    first = builders.transfer(work, may_replace=False)
    fails(code, lambda: https.copy_out([made(dav, work)], first))
    assert dav.asked == ["HEAD"]


def test_a_server_without_head_still_keeps_what_it_has(dav: DavServer, work: Path) -> None:
    spec = made(dav, work)
    there = dav.root / "vo" / "3d" / "b9" / "f.root"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"precious")

    def no_head(handler: Handler) -> bool:
        if handler.command == "HEAD":
            handler.send(405)
        return handler.command == "HEAD"

    dav.fault = no_head
    first = builders.transfer(work, may_replace=False)
    fails(C.FILEEXISTS, lambda: https.copy_out([spec], first))
    assert there.read_bytes() == b"precious"


def test_an_empty_file_goes_out_too(dav: DavServer, work: Path) -> None:
    https.copy_out([made(dav, work, contents=b"")], builders.transfer(work))
    assert (dav.root / "vo/3d/b9/f.root").read_bytes() == b""


@pytest.mark.parametrize(
    ("spoil", "digests", "said"),
    [
        (lambda data: data[:-1] + b"x", True, f"adler32 {ADLER}, but"),
        (lambda data: data[:-1], False, "has 2097151 bytes and no known checksum"),
    ],
)
def test_what_arrives_damaged_is_noticed_and_removed(
    dav: DavServer, work: Path, spoil: Callable[[bytes], bytes], digests: bool, said: str
) -> None:
    dav.spoil, dav.digests = spoil, digests
    fails(C.PUTADMISMATCH, lambda: https.copy_out([made(dav, work)], builders.transfer(work)), said)
    assert left(dav.root) == [] and dav.asked == ["PUT", "HEAD", "DELETE"]


def test_a_server_without_digests_is_believed_on_size(dav: DavServer, work: Path) -> None:
    dav.digests = False
    spec = made(dav, work)
    https.copy_out([spec], builders.transfer(work))
    assert spec.checksum == {"adler32": ADLER}


def test_a_server_without_head_is_asked_with_get(dav: DavServer, work: Path) -> None:
    def no_head(handler: Handler) -> bool:
        if handler.command == "HEAD":
            handler.send(405)
        return handler.command == "HEAD"

    dav.fault = no_head
    https.copy_out([made(dav, work)], builders.transfer(work))
    assert dav.asked[:2] == ["PUT", "HEAD"]


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (cut, 1137, ""),
        (Handler.hang, 1152, "no byte moved for"),
        (no_room, 1333, "507"),
        (in_trouble, 1137, "504"),
    ],
)
def test_an_upload_that_breaks_off_is_removed(
    dav: DavServer, work: Path, end: Callable[[Handler], None], code: int, said: str
) -> None:
    dav.fault = half_then(end)
    slow = builders.transfer(work, limits=Limits(1.5 if end is Handler.hang else 20.0, 1000.0, 1e6))
    fails(code, lambda: https.copy_out([made(dav, work, contents=CONTENTS * 8)], slow), said)
    assert "DELETE" in dav.asked


def test_an_upload_that_is_sent_to_another_server_arrives_whole(dav: DavServer, work: Path) -> None:
    def elsewhere(handler: Handler) -> bool:
        if handler.command == "PUT" and "/there" not in handler.path:
            handler.rfile.read(int(handler.headers["Content-Length"]))
            handler.send(307, Location=f"{dav.url}/there{handler.path}")
            return True
        if handler.command == "HEAD" and "/there" not in handler.path:
            handler.send(307, Location=f"{dav.url}/there{handler.path}")
            return True
        return False

    dav.fault = elsewhere
    spec = made(dav, work)
    https.copy_out([spec], builders.transfer(work))
    assert (dav.root / "there/vo/3d/b9/f.root").read_bytes() == CONTENTS
    assert spec.checksum == {"adler32": ADLER} and spec.filesize == len(CONTENTS)


# ---- TLS, and nothing from the environment


def certificate(folder: Path, address: str) -> tuple[str, str]:
    """A certificate of its own for an address: file with certificate and key, directory that trusts it."""
    both, trusted = folder / "both.pem", folder / "trusted"
    trusted.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
         "-addext", f"subjectAltName=IP:{address}", "-keyout", str(folder / "key.pem"), "-out", str(folder / "c.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_text((folder / "c.pem").read_text() + (folder / "key.pem").read_text())
    (trusted / "c.pem").write_text((folder / "c.pem").read_text())
    subprocess.run(["openssl", "rehash", str(trusted)], check=True, capture_output=True)
    return str(both), str(trusted)


@pytest.mark.parametrize(("address", "trust", "works"), [
    ("127.0.0.1", True, True), ("127.0.0.1", False, False), ("127.0.0.2", True, False),
])  # fmt: skip
def test_the_servers_certificate_is_always_verified(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, address: str, trust: bool, works: bool
) -> None:
    both, trusted = certificate(tmp_path, address)
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "c.pem"))
    server = DavServer(tmp_path / "store", both)
    try:
        spec = stored(server, checksum={"adler32": ADLER})
        spec.surl = spec.surl.replace("https://", "davs://")
        moving = builders.transfer(work, ca=trusted if trust else "")
        if works:
            https.copy_in([spec], moving)
        else:
            said = "certificate could not be verified"
            fails(C.STAGEINAUTHENTICATIONFAILURE, lambda: https.copy_in([spec], moving), said)
    finally:
        server.close()


@pytest.mark.parametrize(
    ("expired", "code", "said"),
    [
        (False, C.STAGEOUTFAILED, "the connection was cut after"),
        (True, C.STAGEOUTAUTHENTICATIONFAILURE, "the credentials have expired"),
    ],
)
def test_an_upload_with_tls_that_breaks_off_is_removed_whatever_the_state_of_the_proxy(
    tmp_path: Path, work: Path, x509: X509, expired: bool, code: int, said: str
) -> None:
    both, trusted = certificate(tmp_path, "127.0.0.1")
    (tmp_path / "store").mkdir()
    server = DavServer(tmp_path / "store", both)

    def cut(handler: Handler) -> bool:
        if handler.command != "PUT":
            return False
        handler.file.parent.mkdir(parents=True)
        handler.file.write_bytes(handler.rfile.read(100_000))
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
        return True

    server.fault = cut
    shown = {"X509_USER_PROXY": str(x509.proxy(voms=False, expired=expired))}
    try:
        spec = made(server, work, contents=CONTENTS * 8)
        fails(code, lambda: https.copy_out([spec], builders.transfer(work, ca=trusted, environ=shown)), said)
        assert server.asked == ["PUT", "DELETE"] and left(server.root) == []
    finally:
        server.close()


@pytest.mark.parametrize(
    ("header", "algorithm", "value"),
    [
        ("adler32=3c0ffee", "adler32", "03c0ffee"),
        ("md5=1B2M2Y8AsgTpgAmY7PhCfg==", "md5", "d41d8cd98f00b204e9800998ecf8427e"),
        ("md5=D41D8CD98F00B204E9800998ECF8427E", "md5", "d41d8cd98f00b204e9800998ecf8427e"),
        ("sha-256=xyz, adler32=00000001", "adler32", "00000001"),
        ("sha-256=xyz", "adler32", ""),
        ("md5=***", "md5", ""),
        ("", "md5", ""),
    ],
)
def test_a_digest_header_is_read_in_all_its_spellings(header: str, algorithm: str, value: str) -> None:
    assert https.digest_of({"Digest": header}, algorithm) == value
