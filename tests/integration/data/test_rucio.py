"""The copytool rucio, replicas from the catalogue, and traces, against a real Rucio server and real storage."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pilot.api.data import StageInClient, StageOutClient, Tools
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool import rucio as copytool
from pilot.copytool.common import Transfer
from pilot.copytool.errors import TransferError
from pilot.info.filespec import FileSpec
from pilot.info.infoservice import InfoService
from pilot.info.replica import Replica
from pilot.util.config import RucioSettings
from pilot.util.guarded import Launcher
from pilot.util.https import Json
from pilot.util.watch import Limits
from tests import disks, pilots
from tests.integration.data.conftest import Proxy
from tests.integration.data.tools import damaged
from tests.rucio import UNLIMITED, Rucio, Storage
from tests.site import QUEUE, Site
from tests.unit.pilot import builders
from tests.x509 import X509, make_x509
from tests.xrootd import XRootD

C = ErrorCodes
CONTENTS = os.urandom(3_000_000)
ADLER = {"adler32": f"{zlib.adler32(CONTENTS):08x}"}
GUID = "0123456789abcdef0123456789abcdef"
# RSEs that clients of Rucio can use, with the scheme of each.
RSES = {"FILE1": "file", "XRD1": "root", "DAVS1": "https"}


@pytest.fixture(scope="module")
def node(rucio: Rucio, x509: X509) -> dict[str, str]:
    """What the environment of a node has for Rucio, and a proxy."""
    return {**rucio.environ, "X509_USER_PROXY": str(x509.proxy(voms=False)), "X509_CERT_DIR": str(x509.ca_dir)}


@pytest.fixture(scope="module")
def environ(node: dict[str, str]) -> dict[str, str]:
    """All of that environment."""
    return {**os.environ, **node}


@pytest.fixture
def transfer(environ: dict[str, str], x509: X509, work: Path) -> Transfer:
    return builders.transfer(work, environ=environ, ca=str(x509.ca_dir))


def fails(call: Callable[[], object], *codes: int) -> str:
    with pytest.raises(PilotException) as raised:
        call()
    assert raised.value.code in codes, raised.value
    return raised.value.diag


def left(work: Path) -> list[str]:
    return sorted(path.name for path in work.iterdir())


def stored(rucio: Rucio, rse: str, name: str, contents: bytes = CONTENTS, **known: object) -> FileSpec:
    rucio.put(name, contents, [rse])
    return FileSpec(name, scope="test", ddmendpoint=rse, surl=rucio.pfn(rse, name), **known)  # type: ignore[arg-type]


def made(work: Path, rse: str, name: str, contents: bytes = CONTENTS) -> FileSpec:
    (work / name).write_bytes(contents)
    return FileSpec(name, "output", scope="test", ddmendpoint=rse, surl=f"{RSES.get(rse, 'root')}://x/", guid=GUID)


# ---- the copytool


@pytest.mark.parametrize("rse", RSES)
def test_a_file_comes_in_verified(rucio: Rucio, transfer: Transfer, work: Path, rse: str) -> None:
    spec = stored(rucio, rse, f"in-{rse}", filesize=len(CONTENTS), checksum=ADLER)
    copytool.copy_in([spec], transfer)
    assert (work / spec.lfn).read_bytes() == CONTENTS and left(work) == [spec.lfn]
    assert (spec.status, spec.checksum, spec.turl) == ("transferred", ADLER, spec.surl)


@pytest.mark.parametrize("rse", RSES)
@pytest.mark.parametrize("algorithm", ["adler32", "md5"])
def test_a_file_goes_out_to_where_rucio_wants_it_and_is_verified_there(
    rucio: Rucio, transfer: Transfer, work: Path, rse: str, algorithm: str
) -> None:
    spec = made(work, rse, f"out-{rse}-{algorithm}")
    copytool.copy_out([spec], replace(transfer, checksum_type=algorithm))
    assert rucio.path(rse, spec.lfn).read_bytes() == CONTENTS
    assert (spec.surl, spec.filesize, list(spec.checksum)) == (rucio.pfn(rse, spec.lfn), len(CONTENTS), [algorithm])
    # The pilot's server registers outputs.
    assert rucio.replicas(spec.lfn) == {}


def test_a_queue_can_have_its_outputs_registered_and_summed_up(rucio: Rucio, transfer: Transfer, work: Path) -> None:
    options = {"no_register": "False", "summary_file_path": "rucio_upload.json"}
    for name in ("registered-1", "registered-2"):
        copytool.copy_out([made(work, "XRD1", name)], replace(transfer, options=options))
    assert rucio.replicas("registered-1") == {"XRD1": [rucio.pfn("XRD1", "registered-1")]}
    summary = json.loads((work / "rucio_upload.json").read_text())
    assert sorted(summary) == ["test:registered-1", "test:registered-2"]
    assert summary["test:registered-2"]["pfn"] == rucio.pfn("XRD1", "registered-2")
    assert (summary["test:registered-2"]["guid"], summary["test:registered-2"]["adler32"]) == (GUID, ADLER["adler32"])


def test_a_file_whose_place_nobody_knows_comes_by_its_name(rucio: Rucio, transfer: Transfer, work: Path) -> None:
    spec = stored(rucio, "XRD1", "by-name", checksum=ADLER)
    spec.ddmendpoint, spec.surl = "", copytool.by_name(spec)
    copytool.copy_in([spec], transfer)
    assert (work / "by-name").read_bytes() == CONTENTS
    nowhere = FileSpec("nowhere", scope="test", surl="rucio:///test:nowhere")
    said = fails(lambda: copytool.copy_in([nowhere], transfer), C.MISSINGINPUTFILE)
    assert "Rucio knows no place where it can be read" in said


def test_a_file_comes_in_past_a_cache_that_is_not_set_up(rucio: Rucio, transfer: Transfer, work: Path) -> None:
    spec = stored(rucio, "FILE1", "uncached", checksum=ADLER)
    copytool.copy_in([spec], replace(transfer, options={"use_pcache": "True"}))
    assert (work / "uncached").read_bytes() == CONTENTS


@pytest.mark.parametrize("rse", RSES)
def test_a_missing_file_is_missing(rucio: Rucio, transfer: Transfer, work: Path, rse: str) -> None:
    spec = stored(rucio, rse, f"lost-{rse}")
    rucio.path(rse, spec.lfn).unlink()
    said = fails(lambda: copytool.copy_in([spec], transfer), C.MISSINGINPUTFILE)
    assert spec.surl in said and left(work) == []


@pytest.mark.parametrize("rse", RSES)
def test_a_wrong_checksum_and_a_wrong_size_are_named_with_both_values(
    rucio: Rucio, transfer: Transfer, work: Path, rse: str
) -> None:
    spec = stored(rucio, rse, f"wrong-{rse}", checksum={"adler32": "00000001"})
    said = fails(lambda: copytool.copy_in([spec], transfer), C.GETADMISMATCH)
    assert ADLER["adler32"] in said and "00000001" in said and left(work) == []
    spec.checksum, spec.filesize = {}, 7
    said = fails(lambda: copytool.copy_in([spec], transfer), C.STAGEINFAILED)
    assert "has 3000000 bytes, the catalogue says 7" in said and left(work) == []


@pytest.mark.parametrize("rse", RSES)
def test_what_is_there_already_is_replaced_by_a_later_attempt_only(
    rucio: Rucio, transfer: Transfer, work: Path, rse: str
) -> None:
    spec = made(work, rse, f"there-{rse}")
    copytool.copy_out([spec], replace(transfer, may_replace=False))
    copytool.copy_out([spec], replace(transfer, may_replace=False))  # the same contents do no harm
    other = made(work, rse, spec.lfn, CONTENTS[::-1])
    said = fails(lambda: copytool.copy_out([other], replace(transfer, may_replace=False)), C.FILEEXISTS)
    assert "is there already with other contents" in said
    assert rucio.path(rse, spec.lfn).read_bytes() == CONTENTS
    copytool.copy_out([other], transfer)
    assert rucio.path(rse, spec.lfn).read_bytes() == CONTENTS[::-1]


def test_the_storage_limit_of_an_account_is_told_before_a_byte_moves(
    rucio: Rucio, transfer: Transfer, work: Path
) -> None:
    rucio.set_limit("XRD1", 0)
    try:
        spec = made(work, "XRD1", "over-the-limit")
        registered = replace(transfer, options={"no_register": "False"})
        said = fails(lambda: copytool.copy_out([spec], registered), C.NOREMOTESPACE)
    finally:
        rucio.set_limit("XRD1", UNLIMITED)
    assert "the storage limit of the Rucio account is reached" in said
    assert not rucio.path("XRD1", "over-the-limit").exists()


def test_a_storage_that_may_not_be_written_is_denied(
    rucio: Rucio, xrootd: XRootD, transfer: Transfer, work: Path
) -> None:
    (xrootd.data / "locked").mkdir(mode=0o555)
    rucio.add_storage("LOCKED", Storage(xrootd.root("locked"), xrootd.data / "locked", xrootd))
    fails(lambda: copytool.copy_out([made(work, "LOCKED", "denied")], transfer), C.STAGEOUTAUTHENTICATIONFAILURE)


def test_a_storage_that_rucio_does_not_know_or_that_is_gone(rucio: Rucio, transfer: Transfer, work: Path) -> None:
    said = fails(lambda: copytool.copy_out([made(work, "NONESUCH", "f")], transfer), C.STAGEOUTFAILED)
    assert "Rucio does not know this storage" in said
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    rucio.add_storage("GONE", Storage(f"root://127.0.0.1:{port}//data", work))
    said = fails(lambda: copytool.copy_out([made(work, "GONE", "f")], transfer), C.STAGEOUTFAILED)
    assert "the server cannot be reached" in said
    source = FileSpec("f", scope="test", ddmendpoint="GONE", surl=f"root://127.0.0.1:{port}//data/f")
    assert "the server cannot be reached" in fails(lambda: copytool.copy_in([source], transfer), C.STAGEINFAILED)


@pytest.mark.parametrize("rse", RSES)
@pytest.mark.parametrize("known", [0, len(CONTENTS)])
def test_a_full_disk_of_the_job_is_no_space_and_leaves_nothing(
    rucio: Rucio, transfer: Transfer, rse: str, known: int
) -> None:
    spec = stored(rucio, rse, f"large-{rse}-{known}", filesize=known)
    with disks.small_disk(2) as disk:
        said = fails(lambda: copytool.copy_in([spec], replace(transfer, workdir=disk)), C.NOLOCALSPACE)
        assert left(disk) == []
    assert "no space" in said


def test_a_full_storage_is_no_space_and_nothing_half_written_is_left(
    rucio: Rucio, transfer: Transfer, work: Path
) -> None:
    with disks.small_disk(2) as disk:
        rucio.add_storage("SMALL", Storage(f"file://localhost{disk}", disk))
        spec = replace(made(work, "SMALL", "too-large"), surl="file://x/")
        fails(lambda: copytool.copy_out([spec], transfer), C.NOREMOTESPACE)
        assert [path for path in disk.rglob("*") if path.is_file()] == []


@pytest.fixture(params=["cut", "hang"])
def broken(rucio: Rucio, xrootd: XRootD, request: pytest.FixtureRequest) -> Iterator[str]:
    """An RSE behind a proxy that breaks after 1 MB; its name says how."""
    name = f"BROKEN_{request.param.upper()}_{time.monotonic_ns()}"
    proxy = Proxy(xrootd.port, 1_000_000, hang=request.param == "hang")
    rucio.add_storage(name, Storage(f"root://127.0.0.1:{proxy.port}//data/{name}", xrootd.data / name, xrootd))
    yield name
    proxy.close()


def test_a_download_that_breaks_off_leaves_no_half_file(
    rucio: Rucio, transfer: Transfer, work: Path, broken: str
) -> None:
    spec, begun = stored(rucio, broken, "broken-in"), time.monotonic()
    slow = replace(transfer, limits=Limits(4.0, 1000.0, 1e6))
    said = fails(
        lambda: copytool.copy_in([spec], slow), C.STAGEINTIMEOUT, *([C.STAGEINFAILED] if "CUT" in broken else [])
    )
    assert left(work) == [] and time.monotonic() - begun < 60
    assert "CUT" in broken or "stopped, no byte moved for" in said


def test_an_upload_that_breaks_off_is_an_error_and_leaves_nothing(
    rucio: Rucio, xrootd: XRootD, transfer: Transfer, work: Path, broken: str
) -> None:
    spec, begun = made(work, broken, "broken-out", os.urandom(60_000_000)), time.monotonic()
    xrootd.put(f"{broken}/there", b"")  # a directory that the server may write to
    slow = replace(transfer, limits=Limits(4.0, 1000.0, 1e6))
    fails(lambda: copytool.copy_out([spec], slow), C.STAGEOUTTIMEOUT, *([C.STAGEOUTFAILED] if "CUT" in broken else []))
    assert time.monotonic() - begun < 90 and spec.status != "transferred"
    assert [name for name in xrootd.files() if broken in name and "broken-out" in name] == []


def test_a_storage_whose_certificate_is_not_trusted_is_refused(
    rucio: Rucio, transfer: Transfer, work: Path, tmp_path: Path
) -> None:
    known = {"checksum": ADLER, "filesize": len(CONTENTS)}
    spec, stranger = stored(rucio, "DAVS1", "untrusted", **known), make_x509(tmp_path / "stranger")
    other = replace(transfer, ca=str(stranger.ca_dir))
    assert "certificate is not trusted" in fails(
        lambda: copytool.copy_in([spec], other), C.STAGEINAUTHENTICATIONFAILURE
    )
    assert left(work) == []
    output = made(work, "DAVS1", "untrusted-out")
    assert "certificate is not trusted" in fails(
        lambda: copytool.copy_out([output], other), C.STAGEOUTAUTHENTICATIONFAILURE
    )


def test_a_proxy_that_has_expired_is_named_as_the_reason(
    rucio: Rucio, transfer: Transfer, x509: X509, work: Path
) -> None:
    expired = str(x509.proxy(voms=False, expired=True, name="expired.pem"))
    late = replace(transfer, environ={**transfer.environ, "X509_USER_PROXY": expired})
    spec = stored(rucio, "DAVS1", "expired-in", checksum=ADLER, filesize=len(CONTENTS))
    assert "expired" in fails(lambda: copytool.copy_in([spec], late), C.STAGEINAUTHENTICATIONFAILURE)
    assert left(work) == []
    output = made(work, "DAVS1", "expired-out")
    assert "expired" in fails(lambda: copytool.copy_out([output], late), C.STAGEOUTAUTHENTICATIONFAILURE)
    assert not rucio.path("DAVS1", "expired-out").exists()


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"RUCIO_CONFIG": "/nonexistent/rucio.cfg"}, C.MIDDLEWAREIMPORTFAILURE, "not set up on this node"),
        ({"RUCIO_ACCOUNT": "stranger"}, C.STAGEINAUTHENTICATIONFAILURE, "no credentials, or none that are accepted"),
        ({"RUCIO_PYTHON": "/nonexistent/python"}, C.MIDDLEWAREIMPORTFAILURE, "install rucio-clients (pip)"),
    ],
)
def test_what_is_wrong_with_the_node_is_said(
    rucio: Rucio, transfer: Transfer, work: Path, changes: dict[str, str], code: int, said: str
) -> None:
    # Another account would be given the token of the first one from this file.
    config = rucio.config.read_text().replace("auth_token_file_path", "# auth_token_file_path")
    (work.parent / "rucio.cfg").write_text(config)
    environ = {**transfer.environ, "RUCIO_CONFIG": str(work.parent / "rucio.cfg"), **changes}
    spec = stored(rucio, "FILE1", "node")
    assert said in fails(lambda: copytool.copy_in([spec], replace(transfer, environ=environ)), code)
    assert left(work) == []


def test_a_rucio_that_is_gone_cannot_be_reached(rucio: Rucio, transfer: Transfer, work: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = f"http://127.0.0.1:{listener.getsockname()[1]}"
    there = replace(transfer, options={"host": gone})
    said = fails(lambda: copytool.copy_in([stored(rucio, "FILE1", "unreachable")], there), C.STAGEINFAILED)
    assert "Rucio's server cannot be reached" in said


def test_a_rucio_that_hangs_is_no_reason_to_take_what_is_there_for_a_leftover(work: Path, tmp_path: Path) -> None:
    config = tmp_path / "rucio.cfg"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config.write_text(
            f"[client]\nrucio_host = {host}\nauth_host = {host}\nauth_type = userpass\nusername = u\npassword = p\n"
            "account = test\n"
        )
        environ = {**os.environ, "RUCIO_CONFIG": str(config)}
        slow = builders.transfer(work, environ=environ, limits=Limits(3.0, 1000.0, 1e6), may_replace=False)
        with pytest.raises(TransferError, match="stopped, no byte moved for") as raised:
            copytool.copy_out([made(work, "FILE1", "precious")], slow)
    assert not raised.value.leftover


# ---- through the clients: replicas, many files, fallback, traces


@contextmanager
def counted_helpers() -> Iterator[list[int]]:
    """The pids of all helpers with Rucio's clients that this process starts within the block."""
    seen: list[int] = []
    started = Launcher.start

    def start(self: Launcher, command: list[str], **how: object) -> object:
        guarded = started(self, command, **how)  # type: ignore[arg-type]
        if "with_rucio" in command:
            seen.append(guarded.guard_pid)
        return guarded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Launcher, "start", start)
        yield seen


def queue(*tools: str, storages: Mapping[str, Json] = {}, **changes: Json) -> InfoService:
    names: list[Json] = ["FILE1", "XRD1", "DAVS1"]
    wanted: dict[str, Json] = {"acopytools": {"default": list(tools)}, "astorages": {"default": names}, **changes}
    return builders.infosys(wanted, dict(storages))


def client(service: InfoService, work: Path, environ: Mapping[str, str], **catalogue: object) -> StageInClient:
    use: RucioSettings = replace(builders.SETTINGS.rucio, **catalogue)  # type: ignore[arg-type]
    return StageInClient(
        service, logger=builders.LOG, settings=builders.file_settings(transfer_retry_delay=0.1), catalogue=use,
        workdir=work, tools=Tools(Launcher(), environ),
    )  # fmt: skip


def test_the_catalogue_says_where_files_are_and_what_they_should_be(
    rucio: Rucio, environ: dict[str, str], work: Path
) -> None:
    rucio.put("known", CONTENTS, ["FILE2", "XRD1", "DAVS1"])
    spec = FileSpec("known", scope="test")
    stagein = client(queue("rucio"), work, environ)
    assert stagein.resolve_replicas([spec]) == [spec]
    assert {(one.ddmendpoint, one.pfn) for one in spec.replicas} == {
        (rse, rucio.pfn(rse, "known")) for rse in ("FILE2", "XRD1", "DAVS1")
    }
    assert (spec.filesize, spec.checksum) == (len(CONTENTS), ADLER)
    ranked = stagein.sort_replicas(spec.replicas, ["DAVS1", "XRD1"])
    assert [one.ddmendpoint for one in ranked] == ["DAVS1", "XRD1", "FILE2"]
    preferred = stagein.get_preferred_replica(ranked, ["root"])
    assert preferred is not None and preferred.ddmendpoint == "XRD1"


def test_storage_of_the_site_is_near(rucio: Rucio, environ: dict[str, str], work: Path) -> None:
    rucio.ask("POST", "rses/FILE2/attr/site", {"value": "HERE"})
    rucio.put("near", CONTENTS, ["XRD1", "FILE2"])
    spec = FileSpec("near", scope="test")
    client(queue("rucio"), work, {**environ, "SITE_NAME": "HERE"}).resolve_replicas([spec])
    assert [(one.ddmendpoint, one.domain) for one in spec.replicas] == [("FILE2", "lan"), ("XRD1", "wan")]


def test_which_storages_are_asked_for_can_be_said(rucio: Rucio, environ: dict[str, str], work: Path) -> None:
    rucio.put("chosen", CONTENTS, ["XRD1", "FILE1", "FILE2"])
    settings = {"rse_expression": "FILE1|XRD1", "rse_expression_vp": "FILE2"}
    for use_vp, wanted in ((False, {"FILE1", "XRD1"}), (True, {"FILE2"})):
        spec = FileSpec("chosen", scope="test")
        client(queue("rucio"), work, environ, **settings).resolve_replicas([spec], use_vp=use_vp)
        assert {one.ddmendpoint for one in spec.replicas} == wanted


@pytest.mark.parametrize(("options", "wanted"), [([], "FILE1"), (["--use-vp"], "FILE2")])
def test_the_script_takes_the_storages_of_virtual_placement_when_it_is_told_to(
    rucio: Rucio, environ: dict[str, str], work: Path, tmp_path: Path, options: list[str], wanted: str
) -> None:
    name = f"by-script-{wanted}"
    rucio.put(name, CONTENTS, ["FILE1", "FILE2"])
    config = tmp_path / "own.cfg"
    config.write_text("[Rucio]\nrse_expression = FILE1\nrse_expression_vp = FILE2\n")
    request: Json = {
        "files": [{"lfn": name, "scope": "test"}],
        "queue": {"name": "Q", "acopytools": {"default": ["rucio"]}, "copytools": {"rucio": {}}},
    }
    ended = subprocess.run(
        [sys.executable, "-m", "pilot.scripts.stagein", "-", "--workdir", work, "--config", config, *options],
        input=json.dumps(request), capture_output=True, text=True, timeout=60, cwd=pilots.ROOT, env=environ,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (done,) = json.loads(ended.stdout)["files"]
    assert (done["ddmendpoint"], done["status"]) == (wanted, "transferred")


def test_a_job_that_means_another_file_than_the_catalogue_fails_with_both_values(
    rucio: Rucio, environ: dict[str, str], work: Path
) -> None:
    rucio.put("another", CONTENTS, ["FILE1"])
    spec = FileSpec("another", scope="test", checksum={"adler32": "0badbad0"})
    said = fails(lambda: client(queue("rucio"), work, environ).transfer([spec]), C.GETADMISMATCH)
    assert "0badbad0 by the job" in said and f"{ADLER['adler32']} by Rucio's catalogue" in said


def test_many_files_come_in_through_one_helper(rucio: Rucio, environ: dict[str, str], work: Path) -> None:
    files = []
    for number in range(30):
        rucio.put(f"many-{number}", b"%d" % number * 1000, ["XRD1"])
        files.append(FileSpec(f"many-{number}", scope="test"))
    stagein = client(queue("rucio"), work, environ)
    with counted_helpers() as helpers:
        stagein.transfer(files)
    assert all((work / f"many-{number}").read_bytes() == b"%d" % number * 1000 for number in range(30))
    assert [one.kind for one in stagein.attempts] == ["ok"] * 30
    assert len(helpers) == 1 and not psutil.pid_exists(helpers[0])
    assert left(work) == sorted(spec.lfn for spec in files)


def test_of_many_files_those_that_fail_together_come_from_elsewhere(
    rucio: Rucio, environ: dict[str, str], work: Path
) -> None:
    for name in ("some-0", "some-1", "some-2"):
        rucio.put(name, CONTENTS, ["FILE1", "XRD1"])
    rucio.path("FILE1", "some-1").unlink()
    stagein = client(queue("rucio"), work, environ)
    stagein.transfer([FileSpec(f"some-{number}", scope="test") for number in range(3)])
    tried = sorted((one.lfn, one.number, one.endpoint, one.kind) for one in stagein.attempts)
    assert tried == [
        ("some-0", 1, "FILE1", "ok"),
        ("some-1", 1, "FILE1", "missing"),
        ("some-1", 2, "XRD1", "ok"),
        ("some-2", 1, "FILE1", "ok"),
    ]


@pytest.mark.parametrize("tools", [["rucio"], ["xrdcp", "mv"]])
def test_a_corrupt_second_replica_and_a_good_third_give_the_file(
    rucio: Rucio, environ: dict[str, str], work: Path, tools: list[str]
) -> None:
    name = f"corrupt-{tools[0]}"
    order = ["FILE1", "XRD1", "DAVS1"] if tools == ["rucio"] else ["XRD1", "FILE1", "FILE2"]
    rucio.put(name, CONTENTS, order)
    rucio.path(order[0], name).unlink()
    rucio.path(order[1], name).write_bytes(damaged(CONTENTS))
    stagein = client(queue(*tools, astorages={"default": [*order]}), work, environ)
    stagein.transfer([FileSpec(name, scope="test")])
    assert (work / name).read_bytes() == CONTENTS and left(work) == [name]
    assert [(one.endpoint, one.kind) for one in stagein.attempts] == [
        (order[0], "missing"), (order[1], "damaged"), (order[2], "ok")
    ]  # fmt: skip


def protocols(url: str) -> dict[str, Json]:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    entry: Json = {"endpoint": f"{scheme}://{host}", "path": f"/{path}"}
    return {"state": "ACTIVE", "is_deterministic": True, "arprotocols": {"default": [entry]}}


def test_when_rucio_is_gone_the_places_are_computed(
    rucio: Rucio, environ: dict[str, str], work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = f"http://127.0.0.1:{listener.getsockname()[1]}"
    rucio.put("computed", CONTENTS, ["XRD1"])
    storages: dict[str, Json] = {"XRD1": protocols(rucio.storages["XRD1"].url)}
    service = queue("xrdcp", storages=storages, astorages={"default": ["XRD1"]})
    stagein = client(service, work, environ, host=gone)
    stagein.transfer([FileSpec("computed", scope="test", checksum=ADLER)])
    assert (work / "computed").read_bytes() == CONTENTS
    assert "Rucio does not say where the inputs are" in caplog.text and "are computed from the storages" in caplog.text
    # Without anything to compute them from, it is Rucio's absence that is told.
    lost = client(queue("xrdcp", storages={}, astorages={}), work, environ, host=gone)
    assert "Rucio's server cannot be reached" in fails(
        lambda: lost.transfer([FileSpec("computed", scope="test")]), C.RUCIOSERVICEUNAVAILABLE
    )


def test_a_file_of_a_storage_that_is_not_deterministic_comes_by_its_name(
    rucio: Rucio, environ: dict[str, str], work: Path
) -> None:
    rucio.put("anywhere", CONTENTS, ["FILE1"])
    storages: dict[str, Json] = {"TAPE": {**protocols("root://nowhere.invalid//data"), "is_deterministic": False}}
    stagein = client(queue("rucio", storages=storages), work, environ, replicas=False)
    stagein.transfer([FileSpec("anywhere", scope="test", ddmendpoint="TAPE", checksum=ADLER)])
    assert (work / "anywhere").read_bytes() == CONTENTS
    assert [(one.endpoint, one.protocol, one.kind) for one in stagein.attempts] == [("", "rucio", "ok")]


def test_replicas_that_the_job_gives_win(rucio: Rucio, environ: dict[str, str], work: Path) -> None:
    rucio.put("given", CONTENTS, ["FILE1", "XRD1"])
    spec = FileSpec("given", scope="test", replicas=[Replica("XRD1", rucio.pfn("XRD1", "given"))])
    stagein = client(queue("rucio"), work, environ)
    stagein.transfer([spec])
    assert [one.endpoint for one in stagein.attempts] == ["XRD1"]


def test_a_queue_can_let_a_job_begin_without_its_input(rucio: Rucio, environ: dict[str, str], work: Path) -> None:
    rucio.put("missed", CONTENTS, ["FILE1"])
    rucio.path("FILE1", "missed").unlink()
    service = queue("rucio", copytools={"rucio": {"ignore_errors": "True"}})
    (spec,) = client(service, work, environ).transfer([FileSpec("missed", scope="test")])
    assert spec.status == "failed" and left(work) == []


def test_every_attempt_leaves_a_trace_that_fits_rucio_s_schema(
    rucio: Rucio, environ: dict[str, str], work: Path
) -> None:
    rucio.put("traced", CONTENTS, ["FILE1", "XRD1"])
    rucio.path("FILE1", "traced").unlink()
    before, bad = len(rucio.traces()), rucio.bad_traces()
    stagein = client(queue("rucio"), work, {**environ, "RUCIO_HOME": "/nonexistent"})
    stagein.transfer([FileSpec("traced", scope="test", dataset="test:set")])
    stageout = StageOutClient(
        queue("rucio", storages={"XRD1": protocols(rucio.storages["XRD1"].url)}, astorages={"default": ["XRD1"]}),
        logger=builders.LOG, settings=builders.file_settings(), workdir=work, tools=Tools(Launcher(), environ),
        trace_report={"eventType": "put_sm_a", "appid": "42", "localSite": "HERE", "uuid": GUID, "eventVersion": "x"},
    )  # fmt: skip
    stageout.transfer([made(work, "", "traced-out")])
    assert rucio.bad_traces() == bad
    traces = rucio.traces()[before:]
    assert [(one["eventType"], one["filename"], one["remoteSite"], one["clientState"]) for one in traces] == [
        ("get_sm", "traced", "FILE1", "FAILED"), ("get_sm", "traced", "XRD1", "DONE"),
        ("put_sm_a", "traced-out", "XRD1", "DONE"),
    ]  # fmt: skip
    assert str(traces[0]["stateReason"]).startswith("missing (1331): ")
    assert (traces[1]["dataset"], traces[1]["datasetScope"], traces[1]["protocol"]) == ("set", "test", "root")
    assert (traces[2]["appid"], traces[2]["localSite"], traces[2]["filesize"]) == ("42", "HERE", len(CONTENTS))


def test_traces_that_cannot_be_sent_cost_seconds_and_no_job(
    rucio: Rucio, environ: dict[str, str], work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (work / "mine").write_bytes(CONTENTS)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        stagein = client(queue("mv"), work, environ, host=host, replicas=False, trace_limit=1.0)
        begun = time.monotonic()
        stagein.transfer([FileSpec("f", replicas=[Replica("A", str(work / "mine"))])])
        assert time.monotonic() - begun < 20
    assert (work / "f").read_bytes() == CONTENTS
    assert "traces: " in caplog.text


# ---- whole jobs, through the dispatcher


@pytest.fixture
def rucio_site(site: Site, rucio: Rucio) -> Site:
    """The site, with a queue that moves everything by Rucio."""
    described = {name: protocols(rucio.storages[name].url) for name in ("FILE1", "XRD1", "DAVS1")}
    site.call("storage/add", {"storages": described})
    return site


def submit(site: Site, rucio: Rucio, rse: str, name: str, **queue: object) -> int:
    """A job that reads a file of an RSE and writes one there, on a queue that moves everything by Rucio."""
    changes = {"astorages": {"default": [rse]}, "acopytools": {"default": ["rucio"]}, "copytools": {"rucio": {}}}
    site.call("queue/set", {"name": QUEUE, "changes": {**changes, **queue}})
    (jobid,) = site.submit(
        {
            "command": f"cp {name} out.root",
            "inputs": [{"lfn": name, "scope": "test", "guid": str(uuid.uuid4())}],
            "outputs": [{"local": "out.root", "lfn": f"{name}.out"}],
        }
    )
    return jobid


@pytest.mark.parametrize("rse", RSES)
def test_a_job_reads_and_writes_by_rucio_and_its_traces_arrive(
    rucio_site: Site, rucio: Rucio, node: dict[str, str], rundir: Path, rse: str
) -> None:
    name = f"job-{rse}"
    rucio.put(name, CONTENTS, [rse])
    before, bad = len(rucio.traces()), rucio.bad_traces()
    jobid = submit(rucio_site, rucio, rse, name)
    pilot = pilots.run(rucio_site.url, QUEUE, rundir, "-v", "1", env=node)
    job = rucio_site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    (output,) = rucio_site.files(jobid, "output")
    assert (output["endpoint"], output["checksum"]) == (rse, f"ad:{ADLER['adler32']}")
    assert rucio.path(rse, f"{name}.out", str(output["scope"])).read_bytes() == CONTENTS
    assert rucio.bad_traces() == bad
    traces = rucio.traces()[before:]
    assert [(one["eventType"], one["clientState"], one["remoteSite"]) for one in traces] == [
        ("get_sm_a", "DONE", rse), ("put_sm_a", "DONE", rse), ("put_sm_a", "DONE", rse)
    ]  # fmt: skip
    assert {(one["appid"], one["pq"], one["protocol"]) for one in traces} == {(str(jobid), QUEUE, RSES[rse])}
    assert [path for path in rundir.rglob("*") if ".rucio" in path.name or path.suffix == ".part"] == []


def test_a_node_without_a_way_out_writes_its_traces_into_a_file(
    rucio_site: Site, rucio: Rucio, node: dict[str, str], rundir: Path
) -> None:
    rucio.put("job-file", CONTENTS, ["FILE1"])
    before = len(rucio.traces())
    jobid = submit(rucio_site, rucio, "FILE1", "job-file")
    told = "[Rucio]\ntrace_file = traces.json\n"
    pilots.run(rucio_site.url, QUEUE, rundir, "-v", "1", env=node, settings=told)
    assert rucio_site.wait_for(jobid)["jobStatus"] == "finished"
    written = [json.loads(line) for line in (rundir / "traces.json").read_text().splitlines()]
    assert [one["eventType"] for one in written] == ["get_sm_a", "put_sm_a", "put_sm_a"]
    assert len(rucio.traces()) == before


def test_a_pilot_told_so_sends_no_traces_and_another_rucio_is_asked(
    rucio_site: Site, rucio: Rucio, node: dict[str, str], rundir: Path
) -> None:
    rucio.put("job-host", CONTENTS, ["FILE1"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = f"http://127.0.0.1:{listener.getsockname()[1]}"
    elsewhere = rundir.parent / "rucio.cfg"
    elsewhere.write_text(rucio.config.read_text().replace(rucio.url, gone))
    before = len(rucio.traces())
    jobid = submit(rucio_site, rucio, "FILE1", "job-host")
    options = ("-v", "1", "--rucio-host", rucio.url, "--use-rucio-traces=False")
    pilots.run(rucio_site.url, QUEUE, rundir, *options, env={**node, "RUCIO_CONFIG": str(elsewhere)})
    assert rucio_site.wait_for(jobid)["jobStatus"] == "finished"
    assert len(rucio.traces()) == before
