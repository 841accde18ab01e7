"""Fetching what an address has: over http or https, or from a file; only if it is something new."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from urllib3.exceptions import HTTPError

#: s until a connection stands, and between two pieces of an answer; the whole answer has its own limit.
_CONNECT = 10.0
_SILENCE = 30.0
#: Bytes of an answer that are read at once.
_PIECE = 65536
#: Largest answer in bytes; all of ATLAS's queues are about 20 MB.
LIMIT = 256 * 1024 * 1024
#: Longest validator that is kept (the column's length); longer ones are not sent back.
_VALIDATOR_LENGTH = 1024


@dataclass(frozen=True)
class Answer:
    """What a source answered, and what to send with the next request so that only something new is answered."""

    content: bytes
    validator: str = ""


class Unreachable(Exception):
    """A source did not give a whole answer; the text says which and why."""


def fetch(address: str, validator: str, *, patience: float, limit: int = LIMIT, follow: bool = True) -> Answer | None:
    """What an address has.

    Args:
        address: http://..., https://..., file:///... or the path of a file.
        validator: of the last answer; empty to get it in any case.
        patience: s for all of it.
        limit: bytes; a larger answer is refused.
        follow: go where the address redirects to; not where that could be an address that anybody can forge.

    Returns:
        The answer, None if it is still the one that the validator came with.

    Raises:
        Unreachable: there is none, or not all of it came in time.
    """
    scheme = urlsplit(address).scheme.lower()
    if scheme in ("http", "https"):
        return _download(address, validator, patience, limit, follow)
    if scheme in ("", "file"):
        return _read(Path(unquote(urlsplit(address).path) if scheme else address), validator, limit)
    raise Unreachable(f"an address begins with http://, https:// or file://, or is the path of a file; not {scheme}://")


def _read(path: Path, validator: str, limit: int) -> Answer | None:
    try:
        facts = path.stat()
        known = f"{facts.st_ino}-{facts.st_size}-{facts.st_mtime_ns}"
        if known == validator:
            return None
        if facts.st_size > limit:
            raise Unreachable(f"{path} has {facts.st_size} bytes; {limit} is the most")
        return Answer(path.read_bytes(), known)
    except OSError as error:
        raise Unreachable(f"{path} cannot be read: {error.strerror}") from None


def _download(address: str, validator: str, patience: float, limit: int, follow: bool) -> Answer | None:
    # not the whole address: its user name, password or query may be a secret
    host = urlsplit(address).hostname or "the server"
    deadline = time.monotonic() + patience
    headers = {"Accept": "application/json", **_conditions(validator)}
    times = (min(_CONNECT, patience), min(_SILENCE, patience))
    try:
        with requests.get(address, headers=headers, timeout=times, stream=True, allow_redirects=follow) as response:
            if response.status_code == requests.codes.not_modified:
                return None
            if response.status_code != requests.codes.ok:
                raise Unreachable(f"{host} answered {response.status_code} {response.reason or ''}".rstrip())
            return Answer(_body(response, host, deadline, patience, limit), _validator_of(response))
    except requests.exceptions.SSLError as error:
        raise Unreachable(
            f"{host} cannot prove who it is ({_reason(error)}); REQUESTS_CA_BUNDLE names the authorities to trust"
        ) from None
    except (requests.exceptions.RequestException, HTTPError) as error:
        if time.monotonic() >= deadline:
            raise _too_late(host, patience) from None
        raise Unreachable(f"no whole answer from {host}: {_reason(error)}") from None


def _body(response: requests.Response, host: str, deadline: float, patience: float, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    # what has come, and not as much as was asked for: that could take for ever, byte by byte
    while piece := response.raw.read1(_PIECE, decode_content=True):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise Unreachable(f"the answer from {host} is larger than {limit} bytes")
        if time.monotonic() > deadline:
            raise _too_late(host, patience)
    return b"".join(pieces)


def _too_late(host: str, patience: float) -> Unreachable:
    return Unreachable(f"the answer from {host} did not come within {patience:g} s")


def _validator_of(response: requests.Response) -> str:
    """The headers that a later request repeats, as JSON."""
    wanted = {"If-None-Match": "ETag", "If-Modified-Since": "Last-Modified"}
    found = {name: response.headers[source] for name, source in wanted.items() if source in response.headers}
    text = json.dumps(found) if found else ""
    return text if len(text) <= _VALIDATOR_LENGTH else ""


def _conditions(validator: str) -> dict[str, str]:
    return {str(name): str(value) for name, value in json.loads(validator).items()} if validator else {}


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line: what requests and urllib3 put around it says nothing more."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]
