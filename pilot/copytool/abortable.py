"""A requests session whose connections another thread can cut: a server that hangs must not hold up the pilot's end."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
from contextlib import suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class AbortableSession(requests.Session):
    """Like its base, with `abort`. verify: True, or a directory of CA certificates.

    Nothing is taken from the environment: no password from ~/.netrc, and no switch that turns off verification.
    """

    def __init__(self, verify: bool | str) -> None:
        super().__init__()
        self.trust_env = False
        self.verify = verify
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._aborted = False
        adapter = _Adapter(self)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    @property
    def usable(self) -> bool:
        """Whether it was not aborted."""
        return not self._aborted

    def note(self, made: socket.socket | None) -> None:
        """A connection was made."""
        with self._lock:
            if made is not None:
                self._sockets.append(made)
                if self._aborted:
                    _cut(made)

    def close(self) -> None:
        """Close all connections now; urllib3 does so only when nobody, no error's traceback either, knows its pool."""
        super().close()
        with self._lock:
            made, self._sockets = self._sockets, []
        for one in made:
            one.close()

    def abort(self) -> None:
        """Cut all connections, those to come too: whoever reads or writes one gets an error at once."""
        with self._lock:
            self._aborted = True
            for made in self._sockets:
                _cut(made)


def _cut(made: socket.socket) -> None:
    # On a copy: shutting down a TLS socket itself would take its state away from the thread that uses it.
    with suppress(OSError), socket.socket(fileno=os.dup(made.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """Makes connections that tell the session of themselves."""

    def __init__(self, session: AbortableSession) -> None:
        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                session.note(self.sock)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                session.note(self.sock)

            def send(self, data: Any) -> None:
                try:
                    super().send(data)
                except ssl.SSLEOFError as exc:
                    # As without TLS: a server that refuses an upload answers and closes, and urllib3 reads the answer
                    # only after this error.
                    raise BrokenPipeError(errno.EPIPE, str(exc)) from exc

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self._pools = {"http": PlainPool, "https": SecurePool}
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As the base does it, with our kinds of connections. The arguments are the base's own, whatever they are."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools
