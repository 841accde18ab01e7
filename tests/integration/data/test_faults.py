"""The copytools for remote storage against servers in trouble: gone, hanging, cut off, full, without checksums."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool import https
from pilot.info.filespec import FileSpec
from pilot.util.watch import Limits
from tests.disks import fill, small_disk
from tests.integration.data.tools import ADLER, CONTENTS, TOOLS, Tool, fails, failure, left, made, require, stored
from tests.xrootd import XRootD, require_xrootd, running_xrootd

C = ErrorCodes


@pytest.fixture(params=TOOLS, ids=str)
def tool(request: pytest.FixtureRequest) -> Tool:
    require(request.param)
    return request.param


def test_a_server_that_is_gone_cannot_be_reached(tool: Tool, work: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = XRootD(listener.getsockname()[1], work)
    (work / "out.root").write_bytes(CONTENTS)
    source, sink = FileSpec("f", surl=tool.url(gone, "f")), FileSpec("out.root", "output", surl=tool.url(gone, "o"))
    said = fails(lambda: tool.module.copy_in([source], tool.transfer(work)), C.STAGEINFAILED)
    assert "the server cannot be reached" in said
    said = fails(lambda: tool.module.copy_out([sink], tool.transfer(work)), C.STAGEOUTFAILED)
    assert "the server cannot be reached" in said and left(work) == ["out.root"]


STALLED, CUT = "stopped, no byte moved for", "the connection was cut"


def _endings(how: str, tool: Tool) -> set[str]:
    """How a transfer may end. The clients of XRootD and of gfal2 connect again by themselves, to a server that cuts
    them off again, and now and then hang at it: for the pilot that is a stall.
    """
    if how == "hang":
        return {STALLED}
    return {CUT} if tool.module is https else {CUT, STALLED}


def _patience(how: str, tool: Tool) -> Limits:
    """A short one where a stall is expected; a long one where a busy machine must not look like one."""
    return Limits(30.0 if _endings(how, tool) == {CUT} else 4.0, 1000.0, 1e6)


def test_a_download_that_breaks_off_leaves_no_half_file(broken: tuple[str, XRootD], tool: Tool, work: Path) -> None:
    how, server = broken
    begun = time.monotonic()
    slow = tool.transfer(work, limits=_patience(how, tool))
    codes = {STALLED: C.STAGEINTIMEOUT, CUT: C.STAGEINFAILED}
    error = failure(lambda: tool.module.copy_in([stored(server, tool)], slow))
    assert left(work) == [] and time.monotonic() - begun < 60
    assert ended(error, codes) in _endings(how, tool)


def test_an_upload_that_breaks_off_is_an_error_and_nothing_is_left(
    broken: tuple[str, XRootD], xrootd: XRootD, tool: Tool, work: Path
) -> None:
    how, server = broken
    begun = time.monotonic()
    slow = tool.transfer(work, limits=_patience(how, tool))
    spec = made(server, tool, work, f"broken/{how}.root", size=60_000_000)
    codes = {STALLED: C.STAGEOUTTIMEOUT, CUT: C.STAGEOUTFAILED}
    error = failure(lambda: tool.module.copy_out([spec], slow))
    assert time.monotonic() - begun < 60 and spec.status != "transferred"
    assert ended(error, codes) in _endings(how, tool)
    assert not [name for name in xrootd.files() if name.startswith("broken/")]


def ended(error: PilotException, codes: dict[str, int]) -> str:
    """The words of a failure, if they belong to its code; else all of it."""
    return next((words for words, code in codes.items() if words in error.diag and error.code == code), str(error))


# ---- full


@pytest.fixture(scope="module")
def full() -> Iterator[Path]:
    """A disk of 8 MB with room for one more MB."""
    with small_disk(8) as disk:
        fill(disk, leave=1_000_000)
        yield disk


@pytest.fixture(scope="module")
def full_server(full: Path) -> Iterator[XRootD]:
    require_xrootd()
    with running_xrootd(data=full) as server:
        yield server


@pytest.mark.parametrize("known", ["known", "unknown"])
def test_a_full_disk_of_the_job_is_no_space_whatever_the_tool_says(
    xrootd: XRootD, full: Path, tool: Tool, known: str
) -> None:
    work = full / f"{tool}-{known}"
    work.mkdir()
    about = {"filesize": len(CONTENTS), "checksum": ADLER} if known == "known" else {}
    spec = stored(xrootd, tool, **about)
    said = fails(lambda: tool.module.copy_in([spec], tool.transfer(work)), C.NOLOCALSPACE)
    assert "space" in said and left(work) == []


def test_a_full_disk_of_the_storage_is_no_space_there_and_nothing_is_left(
    full_server: XRootD, tool: Tool, work: Path
) -> None:
    spec = made(full_server, tool, work, "out.root", size=20_000_000)
    # XRootD's door for HTTP cuts the connection without a word of the reason.
    code, words = (
        (C.NOREMOTESPACE, "there is no space left")
        if tool.url is XRootD.root
        else (C.STAGEOUTFAILED, "the connection was cut")
    )
    assert words in fails(lambda: tool.module.copy_out([spec], tool.transfer(work)), code)
    assert not [name for name in full_server.files() if name.endswith("out.root")]


# ---- without checksums


@pytest.fixture(scope="module")
def silent() -> Iterator[XRootD]:
    """A server that computes no checksums."""
    require_xrootd()
    with running_xrootd(checksums=False) as server:
        yield server


@pytest.mark.parametrize("algorithm", ["adler32", "md5"])
def test_a_server_that_tells_no_checksum_takes_outputs_and_gives_inputs(
    silent: XRootD, tool: Tool, work: Path, algorithm: str
) -> None:
    spec = made(silent, tool, work)
    tool.module.copy_out([spec], tool.transfer(work, checksum_type=algorithm))
    assert (silent.data / "new/dir/out.root").read_bytes() == CONTENTS and algorithm in spec.checksum
    tool.module.copy_in([FileSpec("in.root", surl=spec.surl)], tool.transfer(work, checksum_type=algorithm))
    assert (work / "in.root").read_bytes() == CONTENTS


# ---- patience


def test_a_host_that_swallows_packets_costs_half_a_minute_and_not_ten(work: Path) -> None:
    tool = TOOLS[0]
    with swallowing() as port:
        spec = FileSpec("f", surl=tool.url(XRootD(port, work), "f"))
        begun = time.monotonic()
        patient = tool.transfer(work, limits=Limits(110.0, 1000.0, 1e6))
        fails(lambda: tool.module.copy_in([spec], patient), C.STAGEINTIMEOUT)
        assert time.monotonic() - begun < 90


# gfal2 takes these settings for XRootD alone.
@pytest.mark.parametrize("tool", [one for one in TOOLS if one.url is XRootD.root], ids=str, indirect=True)
def test_the_sites_own_patience_counts_for_xrootd(tool: Tool, work: Path) -> None:
    site = {"XRD_CONNECTIONWINDOW": "1", "XRD_TIMEOUTRESOLUTION": "1"}
    with swallowing() as port:
        spec = FileSpec("f", surl=tool.url(XRootD(port, work), "f"))
        begun = time.monotonic()
        hasty = tool.transfer(work, limits=Limits(110.0, 1000.0, 1e6), environ={**os.environ, **site})
        fails(lambda: tool.module.copy_in([spec], hasty), C.STAGEINTIMEOUT)
        assert time.monotonic() - begun < 25


@contextmanager
def swallowing() -> Iterator[int]:
    """A port that answers no packets: its queue of connections is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])
