"""Helper for Google Cloud Storage: Google's own library.

Every call has `bucket`, `name`, and `access`, whose values are texts: endpoint (empty: Google's), ca (file or directory
of CA certificates, or empty), patience (s without a byte after which the library gives up).

get (target, algorithm) -> {size, checksum, told}: told is the checksum that was written with the object, or empty.
look () -> {}: fails when there is an object already.
put (source, algorithm, mark, replace) -> {size, checksum, stored, there}: what was sent, and size and checksum of what
lies there now. remove (mark): remove the object if it has this mark, so that it is our own.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pilot.copytool.helpers.channel import Call, Failed, Moved, Request
from pilot.copytool.helpers.streams import Sink, Source, checksum_of
from pilot.util.filehandling import Checksum

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

# A server that does not take a connection within this time (s) is down.
_CONNECT_LIMIT = 20.0
# Bytes sent in one request, which the library holds in memory; a multiple of 256 KiB, as the service wants it.
_CHUNK = 16 * 1024 * 1024
# Name in an object's metadata that tells whose upload it was.
_MARK = "pilotkit-upload"


def start() -> str:
    """Import the library."""
    from google.cloud import storage

    return f"google-cloud-storage {storage.__version__}"


def get(request: Request, moved: Moved) -> dict[str, Any]:
    """Download an object, compared with the service's own CRC32C of it."""
    known, timeout = _blob(request), _timeout(request)
    known.reload(retry=None, timeout=timeout)
    checksum, crc = Checksum(request["algorithm"]), _crc32c()
    with Sink(request["target"], [checksum, crc], moved) as sink:
        # Raw: what is stored packed has the catalogue's size and checksum only as it is stored. A blob that knows
        # nothing is read from where we say, and not from where the service calls its link.
        _blob(request).download_to_file(
            sink, raw_download=True, if_generation_match=known.generation, checksum=None, retry=None, timeout=timeout
        )
    arrived = _text(crc)
    if known.crc32c and known.crc32c != arrived:
        raise Failed(f"it arrived with crc32c {arrived}, the service has {known.crc32c}", "damaged")
    told = (known.metadata or {}).get(checksum.algorithm, "")
    return {"size": sink.size, "checksum": checksum.value, "told": told}


def look(request: Request, moved: Moved) -> dict[str, Any]:
    """See that there is no object which an upload would overwrite."""
    if _mark_there(request) is not None:
        raise Failed("the object is there already, and is not overwritten: give the output another name", "exists")
    return {}


def put(request: Request, moved: Moved) -> dict[str, Any]:
    """Upload a file and verify what lies there."""
    blob, timeout, algorithm = _blob(request), _timeout(request), request["algorithm"]
    size, noted = checksum_of(request["source"], algorithm, moved)
    checksum, crc = Checksum(algorithm), _crc32c()
    blob.metadata, blob.chunk_size = {_MARK: request["mark"], algorithm: noted}, _CHUNK
    with Source(request["source"], 0, size, [checksum, crc], moved) as source:
        condition = {} if request["replace"] else {"if_generation_match": 0}
        blob.upload_from_file(source, size=size, checksum=None, retry=None, timeout=timeout, **condition)
    if checksum.value != noted:
        raise Failed(f"the file changed while it was sent: {noted} before, {checksum.value} now", "damaged")
    blob.reload(retry=None, timeout=timeout)
    there = checksum.value if blob.crc32c == _text(crc) else _read_back(request, moved)
    return {"size": size, "checksum": checksum.value, "stored": blob.size, "there": there}


def remove(request: Request, moved: Moved) -> dict[str, Any]:
    """Remove what an upload has left, and nobody else's object."""
    if _mark_there(request) == request["mark"]:
        _blob(request).delete(retry=None, timeout=_timeout(request))
    return {}


def _mark_there(request: Request) -> str | None:
    """The mark of the object that is there; None when there is none, or when we may not know."""
    from google.api_core.exceptions import Forbidden, NotFound

    blob = _blob(request)
    try:
        blob.reload(retry=None, timeout=_timeout(request))
    except (NotFound, Forbidden):
        # Accounts that may create objects need not be allowed to read them; the service still refuses to overwrite.
        return None
    return str((blob.metadata or {}).get(_MARK, ""))


class _Counter:
    """Reads an object for its checksum alone."""

    def __init__(self, checksum: Checksum, moved: Moved) -> None:
        self._checksum, self._moved, self._size = checksum, moved, 0

    def write(self, block: bytes) -> int:
        """Take the next bytes."""
        self._checksum.update(block)
        self._size += len(block)
        self._moved(-self._size)
        return len(block)


def _read_back(request: Request, moved: Moved) -> str:
    checksum = Checksum(request["algorithm"])
    _blob(request).download_to_file(
        _Counter(checksum, moved), raw_download=True, checksum=None, retry=None, timeout=_timeout(request)
    )
    return checksum.value


def _crc32c() -> Any:  # google_crc32c.Checksum, which has no types
    import google_crc32c

    return google_crc32c.Checksum()


def _text(crc: Any) -> str:
    """A CRC32C as the service writes it."""
    return base64.b64encode(crc.digest()).decode()


def _timeout(request: Request) -> tuple[float, float]:
    return _CONNECT_LIMIT, float(request["access"]["patience"])


def _blob(request: Request) -> Blob:
    access = request["access"]
    return _client(access["endpoint"], access["ca"]).bucket(request["bucket"]).blob(request["name"])


@lru_cache(maxsize=8)
def _client(endpoint: str, ca: str) -> Client:
    """A client, which keeps its connections for the next file."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    plain = endpoint.startswith("http://")
    # Buckets are named; a project, which the library wants, is for those who make new ones.
    client = storage.Client(
        project="none",
        credentials=AnonymousCredentials() if plain else None,
        client_options={"api_endpoint": endpoint} if endpoint else None,
    )
    if ca:
        client._http.verify = ca
    return client


def _in_short(call: Call) -> Call:
    """The call, whose errors begin with the HTTP code and leave out the URL."""

    def wrapped(request: Request, moved: Moved) -> Mapping[str, Any]:
        from google.api_core.exceptions import GoogleAPICallError

        try:
            return call(request, moved)
        except GoogleAPICallError as exc:
            said = str(exc.message).partition(": ")[2] or str(exc.message)
            raise Failed(f"{int(exc.code or 0)}: {said}") from exc

    return wrapped


CALLS = {call.__name__: _in_short(call) for call in (get, look, put, remove)}
