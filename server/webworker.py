"""What differs from gunicorn's own in a web worker: whom it waits for, whom it lets go first, what its log says."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import socket
import sys
import time
from concurrent.futures import Future
from types import FrameType

from flask import Flask
from gunicorn.config import Config  # type: ignore[import-untyped]
from gunicorn.glogging import Logger as GunicornLogger  # type: ignore[import-untyped]
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from server.balance import Seats
from server.routes import state

#: How often, and for how many s each time, a worker that has more connections than another looks whether that one has
#: taken what waits. On a busy machine it takes a few ms until the other one runs.
_COURTESY = (10, 0.0005)
#: s without another such wait after one that was in vain: a worker that hangs must not slow down the others.
_IMPATIENT = 0.1
#: s in which requests may be answered after SIGINT; and those by which a worker is gone before the master kills it.
_HASTE = 2.0
_EARLIER = 2.0
#: Pieces of 64 KiB that are read of what a client has sent and nobody wants, before its connection is closed.
_DRAINED = 16


class Logger(GunicornLogger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's log, in ours."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        for handler in list(self.error_log.handlers):
            self.error_log.removeHandler(handler)
        self.error_log.propagate = True

    def warning(self, msg: str, *args: object, **kwargs: object) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, ParseException):  # its text has lines of the request in it, which may be secrets
            msg = f"{msg.partition(': ')[0]}: {type(error).__name__}"
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: object, **kwargs: object) -> None:
        if isinstance(sys.exc_info()[1], BlockingIOError):  # a client took longer than the request time-out
            self.debug("a client hung; its connection is closed")
            return
        super().exception(msg, *args, **kwargs)


class WebWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's worker with threads, made to wait for nobody and to share alike."""

    #: Its number among the workers, given by the master.
    seat: int | None = None
    #: When it lets others go first again, in s of the monotonic clock.
    _again = 0.0
    #: The application, once it is loaded.
    wsgi: object = None
    #: Connections that its threads are at work on, or will be.
    _at_work = 0
    #: Whether a thread has come free since the last connection was accepted, perhaps for a kept one.
    _owes_one = False

    def set_accept_enabled(self, enabled: bool) -> None:
        """Accept connections or not; none without a thread for it: what waits in the kernel is there for everyone."""
        seats: Seats = self.app.seats
        enabled = enabled and self._has_room()
        super().set_accept_enabled(enabled)
        if enabled:
            seats.tell(self.seat, self.nr_conns)
        else:
            seats.stop(self.seat)

    def enqueue_req(self, conn: TConn) -> None:
        """Give a connection to the threads."""
        super().enqueue_req(conn)
        self._at_work += 1

    def _has_room(self) -> bool:
        """Whether a new connection would get a thread: there is one, or they go on and owe it the next turn."""
        return self._at_work < self.cfg.threads or self._owes_one

    def finish_request(self, conn: TConn, fs: Future[object]) -> None:
        """Take it back; gunicorn looks afterwards whether others can be accepted."""
        self._at_work -= 1
        # Kept connections come back by themselves: where they keep all threads busy, no new one would ever get in.
        self._owes_one = True
        super().finish_request(conn, fs)

    def accept(self, *listener: object) -> None:
        """Accept a connection that waits, unless another worker takes it: one that has a thread for it, or fewer."""
        if not self._has_room():
            self.set_accept_enabled(False)
            return
        seats: Seats = self.app.seats
        seats.tell(self.seat, self.nr_conns)
        if time.monotonic() >= self._again and seats.others_first(self.seat):
            waits = select.poll()
            for listening in self.sockets:
                waits.register(listening, select.POLLIN)
            times, pause = _COURTESY
            for _ in range(times):
                time.sleep(pause)  # nobody tells who has accepted what
                if not waits.poll(0):
                    return
            self._again = time.monotonic() + _IMPATIENT
        super().accept(*listener)
        self._owes_one = False
        if self.alive:  # else it has said that it stops
            seats.tell(self.seat, self.nr_conns)

    def handle(self, conn: TConn) -> object:
        # gunicorn's own way waits up to 2 s, in the one thread that accepts connections, for the client to close its
        # end, too: with clients that are far away, or hang, nobody else gets in meanwhile.
        conn.close = functools.partial(_close, conn)
        return super().handle(conn)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop when all requests are answered, or before the master loses its patience."""
        super().handle_exit(sig, frame)
        self._let_go(self.cfg.graceful_timeout - _EARLIER)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Stop as soon as the requests that are at work are answered; clients that hang are not waited for."""
        self._let_go(_HASTE)
        # Not ThreadWorker's, which takes a lock of the threads' that the code we interrupt may hold: it hung for ever.
        Worker.handle_quit(self, sig, frame)

    def _let_go(self, grace: float) -> None:
        """Take no more connections, let go of those who follow /events, and be gone within a time, in s."""
        signal.signal(signal.SIGALRM, _leave)  # Python waits for all threads at its end, and some may hang
        signal.setitimer(signal.ITIMER_REAL, grace)
        self.app.seats.stop(self.seat)
        if isinstance(self.wsgi, Flask):
            state.of(self.wsgi).feed.leave()


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


def _close(conn: TConn, graceful: bool = False) -> None:
    """Close a connection at once; what the client has sent already is read, or it would not get its answer."""
    with contextlib.suppress(OSError), conn.sock as connection:
        if graceful:
            connection.setblocking(False)
            connection.shutdown(socket.SHUT_WR)
            for _ in range(_DRAINED):
                if not connection.recv(65536):
                    break
