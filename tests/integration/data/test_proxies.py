"""The copytools that know X.509 against an XRootD server that wants a proxy of everybody."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.copytool.common import Transfer
from pilot.info.filespec import FileSpec
from tests.integration.data.tools import ADLER, CONTENTS, SECURE_TOOLS, Tool, fails, left, made, require, stored
from tests.unit.pilot import builders
from tests.unit.pilot.davserver import DavServer, Handler
from tests.x509 import X509
from tests.xrootd import XRootD

C = ErrorCodes
KNOWN: dict[str, Any] = {"filesize": len(CONTENTS), "checksum": ADLER}


@pytest.fixture(params=SECURE_TOOLS, ids=str)
def tool(request: pytest.FixtureRequest) -> Tool:
    require(request.param)
    return request.param


def shown(tool: Tool, work: Path, x509: X509, proxy: Path | str = "", ca: Path | None = None) -> Transfer:
    """A transfer with this proxy in its environment, and nothing else that is worth anything."""
    hidden = {name: value for name, value in os.environ.items() if not name.startswith(("X509_", "BEARER_"))}
    environ = {**hidden, "X509_CERT_DIR": str(ca or x509.ca_dir), **({"X509_USER_PROXY": str(proxy)} if proxy else {})}
    return builders.transfer(work, options=tool.options, environ=environ, ca=str(ca or x509.ca_dir))


def test_with_a_proxy_files_go_out_and_come_in_verified(secure: XRootD, x509: X509, tool: Tool, work: Path) -> None:
    transfer = shown(tool, work, x509, x509.proxy(voms=False, name="good.pem"))
    spec = made(secure, tool, work)
    tool.module.copy_out([spec], transfer)
    assert (secure.data / "new/dir/out.root").read_bytes() == CONTENTS and spec.checksum == ADLER
    tool.module.copy_in([FileSpec("in.root", surl=spec.surl, checksum=ADLER)], transfer)
    assert left(work) == ["in.root", "out.root"] and (work / "in.root").read_bytes() == CONTENTS


@pytest.mark.parametrize("state", ["expired", "missing"])
def test_without_a_valid_proxy_access_is_denied_both_ways(
    secure: XRootD, x509: X509, tool: Tool, work: Path, state: str
) -> None:
    proxy = x509.proxy(voms=False, expired=True, name="expired.pem") if state == "expired" else "/none/such"
    transfer = shown(tool, work, x509, proxy)
    said = fails(lambda: tool.module.copy_in([stored(secure, tool)], transfer), C.STAGEINAUTHENTICATIONFAILURE)
    assert left(work) == []
    place = f"denied/{tool}-{state}"
    fails(lambda: tool.module.copy_out([made(secure, tool, work, place)], transfer), C.STAGEOUTAUTHENTICATIONFAILURE)
    assert place not in secure.files()
    assert ("the credentials have expired" in said) == (state == "expired")


over_https = pytest.mark.parametrize(
    "tool", [one for one in SECURE_TOOLS if one.url is XRootD.davs], ids=str, indirect=True
)


@over_https
@pytest.mark.parametrize("given", ["token", "file"])
def test_storage_is_shown_the_token_of_the_environment_or_of_its_file(
    x509: X509, tool: Tool, work: Path, given: str
) -> None:
    (work.parent / "token").write_text("sesame-1.open\n")
    own = {"token": {"BEARER_TOKEN": "sesame-1.open"}, "file": {"BEARER_TOKEN_FILE": str(work.parent / "token")}}[given]
    both = work.parent / "host-both.pem"
    both.write_text(x509.host_cert.read_text() + x509.host_key.read_text())
    (work.parent / "f.root").write_bytes(CONTENTS)
    seen: list[str | None] = []

    def look(handler: Handler) -> bool:
        seen.append(handler.headers.get("Authorization"))
        return False

    transfer = shown(tool, work, x509)
    server = DavServer(work.parent, str(both))
    server.fault = look
    try:
        spec = FileSpec("f.root", surl=f"{server.url}/f.root", **KNOWN)
        tool.module.copy_in([spec], replace(transfer, environ={**transfer.environ, **own}))
    finally:
        server.close()
    assert (work / "f.root").read_bytes() == CONTENTS and set(seen) == {"Bearer sesame-1.open"}


@over_https
def test_a_server_of_an_unknown_ca_gets_no_file_and_gives_none(
    secure: XRootD, x509: X509, tool: Tool, work: Path, tmp_path: Path
) -> None:
    (tmp_path / "cas").mkdir()
    proxy = x509.proxy(voms=False, name="good.pem")
    transfer = shown(tool, work, x509, proxy, tmp_path / "cas")
    fails(lambda: tool.module.copy_in([stored(secure, tool)], transfer), C.STAGEINAUTHENTICATIONFAILURE)
    place = f"unknown/{tool}"
    fails(lambda: tool.module.copy_out([made(secure, tool, work, place)], transfer), C.STAGEOUTAUTHENTICATIONFAILURE)
    assert place not in secure.files() and left(work) == ["out.root"]
