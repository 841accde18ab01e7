"""Helper for XRootD storage: XRootD's own library, which computes checksums while the bytes stream.

Calls: those of pilot.copytool.helper.HelperWay; checksums are adler32 and md5 in hexadecimal, and a server that tells
none has what was put read back.
opens (url) -> {}: whether a file can be opened and read from.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pilot.copytool.helpers.channel import Failed, Moved, Request
from pilot.util.filehandling import Checksum, calculate_checksum

if TYPE_CHECKING:
    from XRootD.client.responses import XRootDStatus

# Bytes read at a time where a file is read back.
_BLOCK = 8 * 1024 * 1024
# A file that opens but gives no first byte is as good as closed; so many bytes are asked for.
_FIRST_BYTES = 64
# What XRootD says when the bytes have arrived, but the server computes no checksums.
NO_CHECKSUM = "query chksum is not supported"
# XRootD's number for a file that is not there (kXR_NotFound).
_NOT_FOUND = 3011


def start() -> str:
    """Import the library."""
    from XRootD import client

    return f"XRootD {client.__version__}"


def get(request: Request, moved: Moved) -> dict[str, Any]:
    """Download a file."""
    result = _copy(request["source"], request["target"], request["algorithm"], moved, "target", replace=True)
    checksum = _checksum_in(result, "targetCheckSum", request["algorithm"])
    if not checksum:
        checksum = calculate_checksum(request["target"], request["algorithm"])
    return {"size": result["size"], "checksum": checksum, "there": ""}


def put(request: Request, moved: Moved) -> dict[str, Any]:
    """Upload a file, which the server keeps only when it was closed in order, and ask for its checksum there."""
    algorithm, size = request["algorithm"], os.stat(request["source"]).st_size
    try:
        # Both checksums, and an error of the library's own when they differ.
        result = _copy(request["source"], request["target"], algorithm, moved, "end2end", replace=request["replace"])
    except Failed as exc:
        if NO_CHECKSUM not in str(exc):
            raise
        result = {}
    here = _checksum_in(result, "sourceCheckSum", algorithm) or calculate_checksum(request["source"], algorithm)
    there = _checksum_in(result, "targetCheckSum", algorithm)
    if there:
        # The server has compared the file's size with what it was told to expect when it was closed.
        return {"size": size, "checksum": here, "stored": size, "there": there}
    stored, there = _read_back(request["target"], size, algorithm, moved)
    return {"size": size, "checksum": here, "stored": stored, "there": there}


def remove(request: Request, moved: Moved) -> dict[str, Any]:
    """Remove a file."""
    from XRootD import client

    address = client.URL(request["url"])
    status, _ = client.FileSystem(f"{address.protocol}://{address.hostid}").rm(address.path_with_params)
    _check(status)
    return {}


def exists(request: Request, moved: Moved) -> dict[str, Any]:
    """Whether there is a file."""
    from XRootD import client

    address = client.URL(request["url"])
    status, _ = client.FileSystem(f"{address.protocol}://{address.hostid}").stat(address.path_with_params)
    if status.errno != _NOT_FOUND:
        _check(status)
    return {"there": status.ok}


def opens(request: Request, moved: Moved) -> dict[str, Any]:
    """Open a file and read its first bytes."""
    from XRootD import client

    with client.File() as file:
        status, _ = file.open(request["url"])
        _check(status)
        status, _ = file.read(0, _FIRST_BYTES)
        _check(status)
    return {}


def _copy(source: str, target: str, algorithm: str, moved: Moved, mode: str, *, replace: bool) -> dict[str, Any]:
    from XRootD import client
    from XRootD.client.utils import CopyProgressHandler

    class Progress(CopyProgressHandler):  # type: ignore[misc]  # the library has no types
        def update(self, job: int, processed: int, total: int) -> None:
            moved(processed)

    process = client.CopyProcess()
    process.add_job(
        source, target, force=replace, posc=True, mkdir=True, checksummode=mode, checksumtype=algorithm,
        rmBadCksum=True,
    )  # fmt: skip
    _check(process.prepare())
    status, results = process.run(Progress())
    _check(results[0]["status"] if results else status)
    found: dict[str, Any] = results[0]
    return found


def _checksum_in(result: dict[str, Any], name: str, algorithm: str) -> str:
    """A checksum of the form `adler32:0a1b2c3d` in a result; empty when it has none."""
    kind, _, value = str(result.get(name) or "").partition(":")
    return value.lower().zfill(8 if algorithm == "adler32" else 32) if kind == algorithm and value else ""


def _read_back(url: str, sent: int, algorithm: str, moved: Moved) -> tuple[int, str]:
    """Size and checksum of a file whose server tells no checksum. sent: the bytes that have moved before."""
    from XRootD import client

    checksum, position = Checksum(algorithm), 0
    with client.File() as file:
        status, _ = file.open(url)
        _check(status)
        while True:
            status, block = file.read(position, _BLOCK)
            _check(status)
            if not block:
                return position, checksum.value
            checksum.update(block)
            position += len(block)
            moved(sent + position)


def _check(status: XRootDStatus) -> None:
    if not status.ok:
        raise Failed(f"{status.message} (code {status.code}, errno {status.errno})")


CALLS = {"get": get, "put": put, "remove": remove, "exists": exists, "opens": opens}
