"""Copytool for HTTP and WebDAV storage, with nothing but requests: a node with nothing installed still gets its files.

Downloads are one GET, with the checksum computed while the bytes stream; uploads are one PUT, after which the server is
asked for size and, where it knows one, checksum (Want-Digest and Digest, RFC 3230). TLS is always verified.
Storage is shown the bearer token or client certificate of tools (pilot.copytool.showing).

A URL that somebody has signed opens one file for one method; it is used as it is, and is shown nothing else. What it
takes is compared by the server (Content-MD5) before it becomes a file, since nobody may ask for it afterwards.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import requests
from urllib3.exceptions import HTTPError

from pilot.copytool.abortable import AbortableSession
from pilot.copytool.common import (
    Transfer,
    has_scheme,
    note_sent,
    output_path,
    user_callable,
)
from pilot.copytool.errors import Kind, TransferError, classify, raw_words
from pilot.copytool.outgoing import BLOCK, Outgoing
from pilot.copytool.runner import run_watched
from pilot.copytool.showing import ShowingSession, stamp
from pilot.copytool.ways import bring_all, send_all
from pilot.info.filespec import FileSpec
from pilot.util.blot import is_signed
from pilot.util.filehandling import ADLER32, MD5, Checksum, Copied

T = TypeVar("T")

ALLOWED_SCHEMES = ("https", "http", "davs", "dav")

# A server that does not take a connection within this time (s) is down.
_CONNECT_LIMIT = 20.0
# The server's answer after an upload of so few bytes is read for the reason of a failure.
_ANSWER_LIMIT = 2048
# So many bytes are read to see whether a file can be read at all.
_FIRST_BYTES = 64
# What a server says that does not know HEAD, and what it says of a file that is not there.
_WITHOUT_HEAD, _ABSENT = (405, 501), (404, 410)
# HTTP codes with a meaning of their own; all others are a failure without a name.
_KINDS = {
    401: Kind.DENIED, 403: Kind.DENIED, 407: Kind.DENIED, 404: Kind.MISSING, 410: Kind.MISSING, 412: Kind.EXISTS,
    413: Kind.FULL, 507: Kind.FULL, 408: Kind.UNREACHABLE, 429: Kind.UNREACHABLE, 500: Kind.UNREACHABLE,
    502: Kind.UNREACHABLE, 503: Kind.UNREACHABLE, 504: Kind.UNREACHABLE,
}  # fmt: skip
# Object stores answer with one of these codes for many reasons, and say in words what it was.
_IN_WORDS = (400, 500)
# What S3 and Google say in XML. The rest of it repeats the request, with its signature.
_XML = re.compile(r"<Code>([^<]*)</Code>.*?<Message>([^<]*)</Message>", re.DOTALL)
# An ETag that is the MD5 of the file; keys of their own make it something else, and say so in a header.
_ETAG = re.compile(r'"?([0-9a-f]{32})"?\Z')
_OWN_KEYS = "x-amz-server-side-encryption"
# What requests says of the URL in its errors.
_WITH_URL = re.compile(r"with url: \S+")


def is_valid_for_copy_in(files: list[FileSpec]) -> bool:
    """Whether all files have a source with a scheme of HTTP or WebDAV."""
    return has_scheme(files, ALLOWED_SCHEMES)


def is_valid_for_copy_out(files: list[FileSpec]) -> bool:
    """Whether all files have a destination with a scheme of HTTP or WebDAV."""
    return has_scheme(files, ALLOWED_SCHEMES)


@user_callable
def copy_in(files: list[FileSpec], transfer: Transfer) -> None:
    """Download files. Raises PilotException, with the kinds of pilot.copytool.errors."""
    for signed, group in groupby(files, key=lambda spec: is_signed(spec.surl)):
        with _session(transfer, signed=signed) as session:
            bring_all(list(group), transfer, _Storage(session))


@user_callable
def copy_out(files: list[FileSpec], transfer: Transfer) -> None:
    """Upload files and verify them. Raises PilotException, with the kinds of pilot.copytool.errors.

    What an upload that failed may have left is removed again.
    """
    for signed, group in groupby(files, key=lambda spec: is_signed(spec.surl)):
        with _session(transfer, signed=signed) as session:
            if not signed:
                send_all(list(group), transfer, _Storage(session))
                continue
            for spec in group:
                note_sent(spec, transfer, _upload_signed(spec, transfer, session, output_path(spec, transfer)))


def opens(spec: FileSpec, transfer: Transfer) -> None:
    """Ask for the first bytes of a file (its surl) where it lies. Raises PilotException when that does not work."""
    with _session(transfer, signed=is_signed(spec.surl)) as session:

        def body() -> None:
            headers = {"Accept-Encoding": "identity", "Range": f"bytes=0-{_FIRST_BYTES - 1}"}
            with session.get(url_of(spec.surl), headers=headers, stream=True, timeout=_timeout(transfer)) as answer:
                # 416: an empty file has no first byte.
                if answer.status_code != 416:
                    _check(spec, answer, read=True)
                    answer.raw.read(_FIRST_BYTES, decode_content=False)

        _watched(spec, transfer, session, lambda: 0, body, read=True)


def url_of(surl: str) -> str:
    """The URL for a request: dav is http, what may stand in a name but not in a URL is quoted. A signed one stays."""
    if is_signed(surl):
        return surl
    scheme, _, rest = surl.partition("://")
    path, mark, query = rest.partition("?")
    name = {"davs": "https", "dav": "http"}.get(scheme.lower(), scheme.lower())
    return f"{name}://{quote(path, safe='/:@[]=+~,')}{mark}{query}"


def digest_of(headers: Mapping[str, str], algorithm: str) -> str:
    """The checksum in a Digest header (`adler32=0a1b2c3d`, `md5=<base64>`) in hexadecimal; empty if there is none."""
    for item in headers.get("Digest", "").split(","):
        name, _, value = item.strip().partition("=")
        if name.lower() != algorithm:
            continue
        if algorithm == ADLER32:
            return value.lower().zfill(8)
        with suppress(binascii.Error, ValueError):
            return value.lower() if len(value) == 32 else base64.b64decode(value, validate=True).hex()
    return ""


def _session(transfer: Transfer, *, signed: bool) -> AbstractContextManager[AbortableSession]:
    """A session for the time of a block; connections are kept for the next file. signed: one that shows nothing."""
    if signed:
        return transfer.lend((__name__, transfer.ca, "signed"), lambda: AbortableSession(transfer.ca or True))
    key = (__name__, transfer.ca, stamp(transfer.environ))
    return transfer.lend(key, lambda: ShowingSession(transfer.ca or True, transfer.environ))


@dataclass(frozen=True)
class _Storage:
    """The way (pilot.copytool.ways.Way) through one session."""

    session: AbortableSession

    def get(self, spec: FileSpec, transfer: Transfer, target: Path, algorithm: str) -> Copied:
        return _download(spec, transfer, self.session, target, algorithm)

    def put(self, spec: FileSpec, transfer: Transfer, source: Path) -> tuple[Copied, Copied]:
        with Outgoing(source, transfer.checksum_type) as outgoing:

            def body() -> tuple[Copied, Copied]:
                # requests sends an empty file-like object in chunks, which some servers do not take.
                data = outgoing if len(outgoing) else b""
                url, timeout = url_of(spec.surl), _timeout(transfer)
                with self.session.put(url, data=data, stream=True, timeout=timeout) as answer:
                    _check(spec, answer, read=False)
                return Copied(outgoing.moved, outgoing.checksum.value), _stored(spec, transfer, self.session)

            return _watched(spec, transfer, self.session, lambda: outgoing.moved, body, read=False)

    def exists(self, spec: FileSpec, transfer: Transfer) -> bool:
        def body() -> bool:
            return _is_there(spec, transfer, self.session)

        return _watched(spec, transfer, self.session, lambda: 0, body, read=False)

    def remove(self, spec: FileSpec, transfer: Transfer) -> None:
        # On a connection of its own, since the first may be cut.
        with ShowingSession(transfer.ca or True, transfer.environ) as session:

            def body() -> None:
                with session.delete(url_of(spec.surl), stream=True, timeout=_timeout(transfer)) as answer:
                    if answer.status_code not in _ABSENT:
                        _check(spec, answer, read=False)

            _watched(spec, transfer, session, lambda: 0, body, read=False)


def _download(spec: FileSpec, transfer: Transfer, session: AbortableSession, target: Path, algorithm: str) -> Copied:
    checksum, moved = Checksum(algorithm), 0

    def body() -> Copied:
        nonlocal moved
        # Identity: what is compressed on the way would not have the size and checksum of the file.
        headers = {"Accept-Encoding": "identity"}
        with session.get(url_of(spec.surl), headers=headers, stream=True, timeout=_timeout(transfer)) as answer:
            _check(spec, answer, read=True)
            with target.open("xb") as stream:
                for block in iter(lambda: answer.raw.read(BLOCK, decode_content=False), b""):
                    checksum.update(block)
                    stream.write(block)
                    moved += len(block)
                stream.flush()
                os.fsync(stream.fileno())
            promised = answer.headers.get("Content-Length", "")
            if promised.isdigit() and int(promised) != moved:
                text = f"{spec.lfn}, {spec.surl}: the connection was cut after {moved} of {promised} bytes"
                raise TransferError(text, Kind.CUT, read=True)
        told = "" if spec.checksum else _digest(spec, transfer, session, algorithm)
        if told and told != checksum.value:
            text = f"{spec.lfn} arrived with {algorithm} {checksum.value}, {spec.surl} has {told}"
            raise TransferError(text, Kind.DAMAGED, read=True)
        return Copied(moved, checksum.value)

    return _watched(spec, transfer, session, lambda: moved, body, read=True)


def _digest(spec: FileSpec, transfer: Transfer, session: AbortableSession, algorithm: str) -> str:
    """The server's own checksum of a file that no catalogue has one for; empty when it tells none.

    Asked after the download: some servers read the whole file for it before they send the first byte.
    """
    headers = {"Accept-Encoding": "identity", "Want-Digest": algorithm}
    try:
        with session.head(
            url_of(spec.surl), headers=headers, timeout=_timeout(transfer), allow_redirects=True
        ) as answer:
            return digest_of(answer.headers, algorithm) if answer.ok else ""
    except (requests.RequestException, HTTPError) as exc:
        transfer.log.warning("%s is not compared, since the server tells no checksum: %s", spec.surl, exc)
        return ""


def _upload_signed(spec: FileSpec, transfer: Transfer, session: AbortableSession, source: Path) -> Copied:
    """One PUT of a whole object, which is not seen before it is complete.

    When all of it was sent and the answer is lost, it is sent again on the condition that it is there by now.
    """
    read, again = 0, False

    def body() -> Copied:
        nonlocal read
        md5 = Checksum(MD5)
        with source.open("rb") as stream:
            for block in iter(lambda: stream.read(BLOCK), b""):
                md5.update(block)
                read += len(block)
        headers = {"Content-MD5": base64.b64encode(bytes.fromhex(md5.value)).decode()}
        if not transfer.may_replace:
            headers.update({"If-Match": f'"{md5.value}"'} if again else {"If-None-Match": "*"})
        data = outgoing if len(outgoing) else b""
        with session.put(spec.surl, data=data, headers=headers, stream=True, timeout=_timeout(transfer)) as answer:
            _check(spec, answer, read=False)
            found = _ETAG.match(answer.headers.get("ETag", ""))
            if found and found[1] != md5.value and _OWN_KEYS not in answer.headers:
                text = f"{spec.lfn} was sent with md5 {md5.value}, but {spec.surl} has {found[1]}"
                raise TransferError(text, Kind.DAMAGED, read=False)
        return Copied(outgoing.moved, outgoing.checksum.value)

    with Outgoing(source, transfer.checksum_type) as outgoing:
        try:
            return _watched(spec, transfer, session, lambda: outgoing.moved or -read, body, read=False)
        except TransferError as exc:
            if exc.kind is not Kind.CUT or outgoing.moved < len(outgoing):
                raise
            outgoing.seek(0)
            again = True
            try:
                return _watched(spec, transfer, session, lambda: outgoing.moved or -read, body, read=False)
            except TransferError:
                raise exc from None


def _is_there(spec: FileSpec, transfer: Transfer, session: AbortableSession) -> bool:
    """Whether the server has a file of this name already. Raises TransferError when it does not say."""
    url, timeout = url_of(spec.surl), _timeout(transfer)
    answer = session.head(url, timeout=timeout, allow_redirects=True)
    if answer.status_code in _WITHOUT_HEAD:
        answer = session.get(url, timeout=timeout, stream=True)
    with answer:
        if answer.status_code not in _ABSENT:
            _check(spec, answer, read=False)  # only a clear no is one: what is overwritten is lost
        return answer.ok


def _stored(spec: FileSpec, transfer: Transfer, session: AbortableSession) -> Copied:
    """Size and checksum (empty: not known) that the server says a file has."""
    plain = {"Accept-Encoding": "identity"}
    url, timeout = url_of(spec.surl), _timeout(transfer)
    # XRootD without checksums refuses to be asked for one; without HEAD the beginning of a GET says the same.
    for ask, headers in (
        (session.head, {**plain, "Want-Digest": transfer.checksum_type}),
        (session.head, plain),
        (session.get, plain),
    ):
        answer = ask(url, headers=headers, timeout=timeout, allow_redirects=True, stream=True)
        if answer.status_code not in _WITHOUT_HEAD:
            break
        answer.close()
    with answer:
        _check(spec, answer, read=False)
        size = answer.headers.get("Content-Length", "")
        if not size.isdigit():
            text = f"{spec.lfn}, {spec.surl}: the server does not tell the size of what it has stored"
            raise TransferError(text, Kind.OTHER, read=False)
        return Copied(int(size), digest_of(answer.headers, transfer.checksum_type))


def _watched(
    spec: FileSpec,
    transfer: Transfer,
    session: AbortableSession,
    progress: Callable[[], int],
    body: Callable[[], T],
    *,
    read: bool,
) -> T:
    """Run a transfer under watch, and give what requests raises a meaning."""
    try:
        return run_watched(spec, transfer, progress, session.abort, body, read=read)
    except (requests.RequestException, HTTPError) as exc:
        raise _failure(spec, exc, progress(), read=read) from exc


def _failure(spec: FileSpec, exc: Exception, moved: int, *, read: bool) -> TransferError:
    where = f"{spec.lfn}, {spec.surl}"
    # A connection with TLS that is cut is an SSLError, too.
    is_cut = "EOF occurred in violation" in str(exc)
    if (isinstance(exc, requests.exceptions.SSLError) and not is_cut) or "CERTIFICATE_VERIFY_FAILED" in str(exc):
        text = f"{where}: the server's certificate could not be verified ({raw_words(str(exc))})"
        return TransferError(text, Kind.DENIED, read=read)
    # A file's name in it is no word of the server's.
    rule = classify(_WITH_URL.sub("", str(exc)))
    kind = Kind.CUT if is_cut or (moved > 0 and rule.kind is Kind.UNREACHABLE) else rule.kind
    words = f"the connection was cut after {moved} bytes" if kind is Kind.CUT else rule.words
    return TransferError(f"{where}: {words} ({raw_words(str(exc))})", kind, read=read)


def _check(spec: FileSpec, answer: requests.Response, *, read: bool) -> None:
    """Raises TransferError for an answer that is no success."""
    if answer.ok:
        return
    said = b""
    with suppress(HTTPError):
        if answer.request.method != "HEAD":
            said = answer.raw.read(_ANSWER_LIMIT, decode_content=True)
    words = _words(said.decode("utf-8", "replace"))
    text = f"{spec.lfn}, {spec.surl}: the server answers {answer.status_code} {answer.reason or ''}".rstrip()
    kind = _KINDS.get(answer.status_code, Kind.OTHER)
    if answer.status_code in _IN_WORDS and classify(words).kind is not Kind.OTHER:
        kind = classify(words).kind
    raise TransferError(f"{text} ({words})" if words else text, kind, read=read)


def _words(said: str) -> str:
    """What an answer says, in one line."""
    found = _XML.search(said)
    return raw_words(f"{found[1]}: {found[2]}" if found else said)


def _timeout(transfer: Transfer) -> tuple[float, float]:
    # The watch decides on stalls; this is for the case that it cannot cut the connection.
    return _CONNECT_LIMIT, transfer.limits.stall + _CONNECT_LIMIT
