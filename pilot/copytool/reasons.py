"""Reasons of failures that tools do not see: what is wrong with the credentials that they were given."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from pilot.common.exception import PilotException
from pilot.copytool.errors import Kind, TransferError
from pilot.util.proxy import read_proxy, verdict

# Schemes that always show the proxy, and those that never do.
_WITH_TLS = frozenset({"https", "davs", "roots", "xroots"})
_WITHOUT_PROXY = frozenset({"http", "dav", "file"})


@contextmanager
def credentials_looked_at(surl: str, environ: Mapping[str, str], *, read: bool) -> Iterator[None]:
    """Give failures inside the block the reason that the tool may not have seen: a proxy that has ended.

    A server that is shown one closes the connection at once, and it is a matter of luck what the tool says then.
    """
    scheme = surl.partition("://")[0].lower() if "://" in surl else "file"
    try:
        yield
    except TransferError as exc:
        suspects = {Kind.DENIED, Kind.CUT, Kind.OTHER} if scheme in _WITH_TLS else {Kind.DENIED}
        if exc.kind not in suspects or scheme in _WITHOUT_PROXY:
            raise
        ended = None
        with suppress(PilotException):
            ended = verdict(read_proxy(environ.get("X509_USER_PROXY", "")), time.time())
        if ended is None:
            raise
        told = TransferError(f"the credentials have expired, {ended.diag}: {exc.diag}", Kind.DENIED, read=read)
        told.leftover = exc.leftover
        raise told from exc
