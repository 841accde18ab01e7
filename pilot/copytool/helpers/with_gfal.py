"""Helper for whatever gfal2 speaks: the module gfal2, which Debian and EPEL have for the system's own Python.

Calls: those of pilot.copytool.helper.HelperWay; checksums are adler32 and md5 in hexadecimal, and a server that tells
none has what was put read back.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Callable
from urllib.parse import quote

from pilot.copytool.helpers.channel import Failed, Moved, Request
from pilot.util.filehandling import Checksum, calculate_checksum

if TYPE_CHECKING:
    from gfal2 import Gfal2Context, TransferParameters

# gfal2's own limit for one transfer (s), which cannot be switched off; the pilot knows better when to stop one.
TRANSFER_LIMIT = 7 * 24 * 3600
# Bytes read at a time where a file is read back.
_BLOCK = 8 * 1024 * 1024
# s between two looks at how far a file is: the pilot looks as often.
_PACE = 0.5
# Schemes for which gfal2 hands URLs on as they are, to programs that take % and # in them for what URLs mean by them.
_QUOTED = frozenset({"root", "roots", "xroot", "xroots", "http", "https", "dav", "davs"})
# Those of them for which it does the same with the URL of the local file.
_XROOTD = frozenset({"root", "roots", "xroot", "xroots"})


def start() -> str:
    """Import the library."""
    import gfal2

    return f"gfal2 {gfal2.get_version()}"


def get(request: Request, moved: Moved) -> dict[str, Any]:
    """Download a file."""
    source, target, algorithm = request["source"], request["target"], request["algorithm"]
    with _translated():
        context = _context(remote_url(source))
        with _watched(lambda: _size_of(target), moved) as note:
            context.filecopy(_parameters(context, note), remote_url(source), local_url(target, source))
        size = _size_of(target)
        if size != request["size"]:
            size = context.stat(remote_url(source)).st_size
        there = _checksum_there(context, source, algorithm) if request["ask"] else ""
    return {"size": size, "checksum": calculate_checksum(target, algorithm), "there": there}


def put(request: Request, moved: Moved) -> dict[str, Any]:
    """Upload a file, and look at what is there then."""
    source, target, algorithm = request["source"], request["target"], request["algorithm"]
    with _translated():
        context = _context(remote_url(target))
        with _watched(lambda: _position_in(source), moved) as note:
            parameters = _parameters(context, note)
            parameters.overwrite, parameters.create_parent = request["replace"], True
            context.filecopy(parameters, local_url(source, target), remote_url(target))
        size, stored = os.stat(source).st_size, context.stat(remote_url(target)).st_size
        there = _checksum_there(context, target, algorithm)
        if not there:
            stored, there = _read_back(context, target, algorithm, lambda position: moved(size + position))
    return {"size": size, "checksum": calculate_checksum(source, algorithm), "stored": stored, "there": there}


def exists(request: Request, moved: Moved) -> dict[str, Any]:
    """Whether there is a file."""
    import gfal2

    with _translated():
        try:
            url = remote_url(request["url"])
            _context(url).stat(url)
        except gfal2.GError as exc:
            if exc.code != errno.ENOENT:
                raise
            return {"there": False}
    return {"there": True}


def remove(request: Request, moved: Moved) -> dict[str, Any]:
    """Remove a file."""
    with _translated():
        url = remote_url(request["url"])
        _context(url).unlink(url)
    return {}


def remote_url(surl: str) -> str:
    """The URL of a file in storage as gfal2 wants it: file://host/path without the host, and names quoted."""
    scheme, mark, rest = surl.partition("://")
    if not mark:
        return f"file://{surl}"
    if scheme.lower() == "file":
        return f"file:///{rest.partition('/')[2].lstrip('/')}"
    if scheme.lower() not in _QUOTED:
        return surl
    path, mark, query = rest.partition("?")
    return f"{scheme}://{quote(path, safe='/:@[]=+~,')}{mark}{query}"


def local_url(path: str, other: str) -> str:
    """The URL of a file on this node, for a transfer from or to `other`."""
    if other.partition("://")[0].lower() in _XROOTD:
        # No more than it has to be: the commands look at the file with another plugin, which takes it as it is.
        path = path.replace("%", "%25").replace("#", "%23")
    return f"file://{path}"


def _context(url: str) -> Gfal2Context:
    """What a transfer from or to a URL in storage is made with."""
    import gfal2

    context = gfal2.creat_context()
    # No questions to the server for a token of its own: it is shown the credentials that the pilot was given.
    context.set_opt_boolean("HTTP PLUGIN", "RETRIEVE_BEARER_TOKEN", False)
    path = "" if os.environ.get("BEARER_TOKEN") else os.environ.get("BEARER_TOKEN_FILE", "")
    if path:
        # gfal2 knows BEARER_TOKEN alone. The file is read every time, because it is renewed.
        with suppress(OSError, ValueError), open(path, encoding="ascii") as stream:
            gfal2.cred_set(context, url, gfal2.cred_new("BEARER", stream.read().strip()))
    return context


def _parameters(context: Gfal2Context, note: Callable[[int], None]) -> TransferParameters:
    def marker(source: str, target: str, average: int, instant: int, transferred: int, elapsed: int) -> None:
        note(transferred)

    parameters = context.transfer_parameters()
    parameters.timeout = TRANSFER_LIMIT
    # Nobody else is handed a proxy of the pilot's.
    parameters.proxy_delegation = False
    parameters.monitor_callback = marker
    return parameters


@contextmanager
def _watched(look: Callable[[], int], moved: Moved) -> Iterator[Callable[[int], None]]:
    """Report how far a transfer is during a block: from what gfal2 itself tells, which it may do rarely, and `look`."""
    told, ended = [0], threading.Event()

    def note(count: int) -> None:
        told[0] = count

    def watch() -> None:
        while not ended.wait(_PACE):
            moved(told[0] + look())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield note
    finally:
        ended.set()
        thread.join()


@contextmanager
def _translated() -> Iterator[None]:
    """gfal2's errors have a number of the system's; its words go along, since some texts say nothing of their own."""
    import gfal2

    try:
        yield
    except gfal2.GError as exc:
        raise Failed(f"{str(exc.message).strip()} (code {exc.code}, {os.strerror(exc.code)})") from exc


def _checksum_there(context: Gfal2Context, surl: str, algorithm: str) -> str:
    """The checksum that the server tells, or an empty text."""
    import gfal2

    with suppress(gfal2.GError):
        value = context.checksum(remote_url(surl), algorithm).lower()
        return value.zfill(8 if algorithm == "adler32" else 32) if value else ""
    return ""


def _read_back(context: Gfal2Context, surl: str, algorithm: str, moved: Moved) -> tuple[int, str]:
    """Size and checksum of a file whose server tells no checksum."""
    checksum, position = Checksum(algorithm), 0
    stream = context.open(remote_url(surl), "r")
    while block := stream.read_bytes(_BLOCK):
        checksum.update(block)
        position += len(block)
        moved(position)
    return position, checksum.value


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _position_in(path: str) -> int:
    """How far this process has read in a file that it has open; the furthest of several."""
    found = 0
    for entry in os.scandir("/proc/self/fd"):
        with suppress(OSError, ValueError, IndexError):
            if os.readlink(entry.path) == path:
                with open(f"/proc/self/fdinfo/{entry.name}") as lines:
                    found = max(found, int(lines.readline().split()[1]))
    return found


CALLS = {"get": get, "put": put, "exists": exists, "remove": remove}
