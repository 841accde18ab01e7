"""Faults of storage: of a directory that the node has mounted, and of a server that is spoken to over HTTP."""

from __future__ import annotations

import os
import socket
import uuid
import zlib
from collections.abc import Callable

from pilot.common.errorcodes import ErrorCodes as C
from pilot.info.storagedata import deterministic_path
from tests.disks import small_disk
from tests.injected.fault import BY_STAGEIN, BY_STAGEOUT, Before, Fault, Scene
from tests.site import DISK
from tests.unit.pilot.davserver import DavServer, Handler

CONTENTS = b"0123456789" * 10_000
_REMOTE = "REMOTE_DISK"
# A transfer without a byte for so many seconds is over, and nothing is tried twice.
_HASTY = "[File]\ntransfer_stall = {stall}\nstagein_attempts = 1\ntransfer_retry_delay = 0.1\n"
# s; on a busy machine a transfer that is no row of a stall may pause.
_PATIENCE = 20


def has_input(scene: Scene, endpoint: str, **known: object) -> str:
    """The job gets an input, which its definition describes as it should be; its name."""
    name = f"in.{uuid.uuid4().hex[:8]}.root"
    about = {"fsize": len(CONTENTS), "checksum": f"ad:{zlib.adler32(CONTENTS):08x}", "guid": str(uuid.uuid4()), **known}
    assert scene.job is not None
    scene.job["inputs"] = [{"lfn": name, "scope": "mc", "endpoint": endpoint, **about}]
    return name


def mounted_input(change: Callable[[bytes], bytes | None]) -> Before:
    """An input in the mounted storage, with contents that have changed; None: it is gone."""

    def prepared(scene: Scene) -> None:
        path = scene.site.storage / deterministic_path("mc", has_input(scene, DISK))
        contents = change(CONTENTS)
        if contents is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents)

    return prepared


def _pipe(scene: Scene) -> None:
    path = scene.site.storage / deterministic_path("mc", has_input(scene, DISK))
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def _port_scene(scene: Scene, port: int, stall: int = _PATIENCE) -> None:
    """Inputs and outputs go through a port of this machine, logs to the mounted disk."""
    protocol = {"endpoint": f"dav://127.0.0.1:{port}", "id": 1, "path": "/data"}
    described = {"state": "ACTIVE", "is_deterministic": True, "arprotocols": {"default": [protocol]}}
    scene.site.call("storage/add", {"storages": {_REMOTE: described}})
    scene.queue.update(
        astorages={"default": [_REMOTE], "pl": [DISK]},
        acopytools={"default": ["https"], "pl": ["mv"]},
        copytools={"https": {"setup": ""}, "mv": {"setup": ""}},
    )
    scene.settings = _HASTY.format(stall=stall)


def server_that(
    fault: Callable[[Handler], bool],
    *,
    reads: bool = False,
    spoil: Callable[[bytes], bytes] = bytes,
    stall: int = _PATIENCE,
) -> Before:
    """A storage server. fault: sees each request first. reads: the job has an input there, else an output.

    stall: s without a byte after which the pilot gives up.
    """

    def prepared(scene: Scene) -> None:
        root = scene.folder / "dav"
        root.mkdir()
        server = DavServer(root)
        scene.stack.callback(server.close)
        server.fault, server.spoil = fault, spoil
        _port_scene(scene, server.server_address[1], stall)
        if reads:
            path = root / "data" / deterministic_path("mc", has_input(scene, _REMOTE))
            path.parent.mkdir(parents=True)
            path.write_bytes(CONTENTS)

    return prepared


def gone(*, reads: bool) -> Before:
    """A port that nobody listens on."""

    def prepared(scene: Scene) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        _port_scene(scene, port)
        if reads:
            has_input(scene, _REMOTE)

    return prepared


def _refuse(status: int) -> Callable[[Handler], bool]:
    def refuse(handler: Handler) -> bool:
        if handler.command == "PUT":
            handler.rfile.read(int(handler.headers["Content-Length"]))
        elif not handler.headers.get("Range") and handler.command == "HEAD" and status != 403:
            return False
        handler.close_connection = True
        handler.send(status, b"")
        return True

    return refuse


def _half_then_silence(handler: Handler) -> bool:
    if handler.command != "GET":
        return False
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENTS)))
    handler.end_headers()
    handler.wfile.write(CONTENTS[:1000])
    handler.wfile.flush()
    handler.hang()
    return True


def _half_then_cut(handler: Handler) -> bool:
    if handler.command != "GET":
        return False
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENTS)))
    handler.end_headers()
    handler.wfile.write(CONTENTS[:1000])
    handler.close_connection = True
    return True


def _hang_on_upload(handler: Handler) -> bool:
    if handler.command != "PUT":
        return False
    handler.hang()
    return True


def _good(handler: Handler) -> bool:
    return False


def _full_disk(scene: Scene) -> None:
    """A storage of 2 MB."""
    disk = scene.stack.enter_context(small_disk(2))
    protocols = [{"endpoint": "file://localhost", "flavour": "local", "id": 1, "path": f"{disk}/"}]
    described = {"state": "ACTIVE", "is_deterministic": True, "arprotocols": {"default": protocols}}
    scene.site.call("storage/add", {"storages": {"FULL_DISK": described}})


def _output_is_there(scene: Scene) -> None:
    name = f"taken.{uuid.uuid4().hex[:8]}"
    path = scene.site.storage / deterministic_path("x", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")
    assert scene.job is not None
    del scene.job["outputs"]
    scene.job.update(transformation="sh", jobPars=f"-c 'echo other > {name}'", outFiles=name, scope="x")


def reading(name: str, how: str, code: int, before: Before, *said: str, shell: int = 1) -> Fault:
    """A job whose input cannot be had."""
    return Fault(name, how, code, "storage", BY_STAGEIN, said, before=before, shell=shell)


def writing(
    name: str, how: str, code: int, before: Before, *said: str, to: str = _REMOTE, script: str = "echo made > out.txt"
) -> Fault:
    """A job whose output cannot be stored."""
    job = {"outputs": [{"local": "out.txt", "endpoint": to}]}
    return Fault(name, how, code, "storage", BY_STAGEOUT, said, script, job=job, before=before, shell=1)


FAULTS = (
    reading("an input is gone", "no such file in a storage that should have it", C.MISSINGINPUTFILE,
            mounted_input(lambda contents: None), "in.", shell=77),
    reading("an input is damaged", "a byte of it has changed", C.GETADMISMATCH,
            mounted_input(lambda contents: contents.replace(b"0", b"1", 1)), f"{zlib.adler32(CONTENTS):08x}"),
    reading("an input is cut", "half of it", C.STAGEINFAILED, mounted_input(lambda contents: contents[:50_000]),
            "50000", "100000"),
    reading("an input is no file", "a named pipe in its place", C.STAGEINFAILED, _pipe, "no plain file"),
    reading("an input is not there, says its server", "404", C.MISSINGINPUTFILE, server_that(_refuse(404), reads=True),
            "in.", shell=77),
    reading("an input may not be read", "403", C.STAGEINAUTHENTICATIONFAILURE, server_that(_refuse(403), reads=True),
            "403"),
    reading("the storage to read from has a fault of its own", "500", C.STAGEINFAILED,
            server_that(_refuse(500), reads=True), "500"),
    reading("the storage to read from is gone", "a port that nobody listens on", C.STAGEINFAILED, gone(reads=True),
            "the server cannot be reached"),
    reading("a download stalls", "1000 bytes, then nothing", C.STAGEINTIMEOUT,
            server_that(_half_then_silence, reads=True, stall=1), "no byte moved for"),
    reading("a download is cut off", "1000 bytes, then the connection is closed", C.STAGEINFAILED,
            server_that(_half_then_cut, reads=True), "in."),
    writing("an output may not be written", "403", C.STAGEOUTAUTHENTICATIONFAILURE, server_that(_refuse(403)), "403"),
    writing("the storage to write to has no space, it says", "507", C.NOREMOTESPACE, server_that(_refuse(507)), "507"),
    writing("the storage to write to has a fault of its own", "500", C.STAGEOUTFAILED, server_that(_refuse(500)),
            "500"),
    writing("the storage to write to is gone", "a port that nobody listens on", C.STAGEOUTFAILED, gone(reads=False),
            "the server cannot be reached"),
    writing("an upload stalls", "a server that never answers", C.STAGEOUTTIMEOUT, server_that(_hang_on_upload, stall=1),
            "no byte moved for"),
    writing("an output is damaged on its way", "a server that stores other bytes", C.PUTADMISMATCH,
            server_that(_good, spoil=lambda contents: contents[::-1]), "out.txt"),
    writing("the storage to write to is full", "5 MB into 2 MB", C.NOREMOTESPACE, _full_disk, "out.txt", to="FULL_DISK",
            script="head -c 5000000 /dev/zero > out.txt"),
    writing("there is a file of the output's name already", "another job's file in its place", C.FILEEXISTS,
            _output_is_there, "not overwritten", to=DISK),
)  # fmt: skip
