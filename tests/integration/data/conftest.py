"""For the tests of copytools: real servers for a module, a proxy in front of one that breaks, and a job's directory."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.containers import Container, sandbox
from tests.gs import GS, require_gs, running_gs
from tests.integration.data.tools import damaged
from tests.rucio import Rucio, running_rucio
from tests.s3 import S3, require_s3, running_s3
from tests.signed import Gate, running_gate
from tests.x509 import X509, make_x509
from tests.xrootd import XRootD, require_xrootd, running_xrootd


@pytest.fixture(scope="module")
def xrootd() -> Iterator[XRootD]:
    """A server for root:// and http://."""
    require_xrootd()
    with running_xrootd() as server:
        yield server


@pytest.fixture(scope="module")
def x509(tmp_path_factory: pytest.TempPathFactory) -> X509:
    """A CA, a user, and proxies on demand."""
    return make_x509(tmp_path_factory.mktemp("x509"))


@pytest.fixture(scope="module")
def secure(x509: X509) -> Iterator[XRootD]:
    """A server that wants a proxy, for roots:// and davs://."""
    require_xrootd()
    with running_xrootd(gsi=x509) as server:
        yield server


@pytest.fixture(scope="module")
def rucio(xrootd: XRootD, secure: XRootD) -> Iterator[Rucio]:
    """A Rucio server with storages on both."""
    with running_rucio(xrootd, secure) as server:
        yield server


@pytest.fixture(scope="module")
def buckets() -> Iterator[S3]:
    """A server of buckets that checks keys."""
    require_s3()
    with running_s3() as server:
        yield server


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    """A server of buckets that checks signed URLs."""
    require_s3()
    with running_s3(checks_keys=False) as server, running_gate(server) as made:
        yield made


@pytest.fixture(scope="module")
def emulator() -> Iterator[GS]:
    """Google's storage, emulated."""
    require_gs()
    with running_gs() as server:
        yield server


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """An image with the programs of this machine."""
    with sandbox() as made:
        yield made


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The directory of a job."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


class Proxy:
    """Hands bytes on to a server, and after the first `limit` in either direction hangs or cuts the connection.

    spoil: changes one byte there instead, on its way "up" to the server or "down" from it, and goes on. Never both: a
    byte that is changed twice is what it was. refused: the first so many connections are cut at once.
    """

    def __init__(self, target: int, limit: int, *, hang: bool = False, spoil: str = "", refused: int = 0) -> None:
        self._refused = refused
        self._target, self._limit, self._hang, self._spoil = target, limit, hang, spoil
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()
        self._run(self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def _run(self, body: object, *arguments: object) -> None:
        thread = threading.Thread(target=body, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                if self._refused:
                    self._refused -= 1
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._sockets += [client, server]
            both = threading.Barrier(2)
            self._run(self._pump, client, server, "up", both)
            self._run(self._pump, server, client, "down", both)

    def _pump(self, source: socket.socket, sink: socket.socket, way: str, both: threading.Barrier) -> None:
        moved, cut = 0, False
        with suppress(OSError):
            while block := source.recv(65536):
                moved += len(block)
                if self._spoil == way and moved - len(block) <= self._limit < moved:
                    block = damaged(block)
                elif moved > self._limit and not self._spoil:
                    if self._hang:
                        self._over.wait()
                    cut = True
                    break
                sink.sendall(block)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        # The other way ends by that, and both are waited for before anything is closed.
        both.wait()
        if cut:
            # What is shut and not closed would still take what is sent, until it is full: a router that goes away
            # leaves a reset.
            for end in (source, sink):
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()

    def close(self) -> None:
        """End everything."""
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in (self._listener, *self._sockets):
            one.close()


@pytest.fixture(params=["cut", "hang"])
def broken(xrootd: XRootD, request: pytest.FixtureRequest) -> Iterator[tuple[str, XRootD]]:
    """How it breaks, and the same server behind a proxy that does so after 1 MB."""
    proxy = Proxy(xrootd.port, 1_000_000, hang=request.param == "hang")
    yield request.param, XRootD(proxy.port, xrootd.data)
    proxy.close()
