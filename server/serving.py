"""Serving: gunicorn in the calling process, the daemon as its child, one line when requests are answered.

Whatever dies, nothing is left behind: the web workers and the daemon each hold the end of a pipe whose other end is
here, and leave when it closes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from flask import Flask
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]

from server import logs, pidfile
from server.app import check, create_app, prepare
from server.balance import Seats, one_cpu_each, stay_on_one_cpu
from server.daemon.config import read_config
from server.reloading import Handover, OldWorkers, become_new, complaint_about_new, taken_over
from server.settings import ConfigurationError, Settings
from server.tls import server_context
from server.turns import Turns
from server.webworker import Logger, WebWorker

logger = logging.getLogger(__name__)

#: How long to wait for a port whose last owner was killed a moment ago, in s.
_BIND_PATIENCE = 3.0
#: s between two starts of a daemon that dies.
_DAEMON_PAUSE = 1.0
#: s a stopping daemon is given; its own grace is 5.
_DAEMON_GRACE = 10.0
#: Longest first line of a request, in bytes: gunicorn's own most, and some hundred PandaIDs in a query.
_LONGEST_LINE = 8190
#: s an idle connection is kept open for the next request.
_KEEPALIVE = 15
#: s a request may keep a worker from answering gunicorn; a stopping worker has this long as well.
_TIMEOUT = 120
_GRACE = 15


def serve(settings: Settings, workers: int | None = None) -> int:
    """Serve until SIGINT or SIGTERM. SIGHUP has the process begin anew, with today's code and settings.

    Prints `pilotkit: serving http://HOST:PORT` when requests are answered. With the setting check_only it looks at the
    settings and returns.

    Args:
        workers: web server processes; None takes the setting.

    Returns:
        Exit code: 0 after a signal.

    Raises:
        ConfigurationError: a setting cannot be used, or the address is taken.
    """
    settings = replace(settings, data=str(settings.data_path()), workers=workers or settings.workers)
    logs.configure(settings.log_format, settings.log_level)
    check(settings)  # whatever is wrong is said before anything is started
    read_config(settings.daemon_config)
    if settings.check_only:
        prepare(settings)
        print("pilotkit: settings and database are good", flush=True)
        return 0
    handover = taken_over()
    with _hold(settings.data_path()):
        prepare(settings)
        listener = socket.socket(fileno=handover.listener) if handover else _listen(settings.host, settings.port)
        _limit_patience(listener, settings.request_timeout)
        return _serve(replace(settings, port=listener.getsockname()[1]), listener, handover)


def _serve(settings: Settings, listener: socket.socket, handover: Handover | None) -> int:
    """Daemon and gunicorn, until a signal; returns the exit code."""
    master = os.getpid()
    daemon = _Daemon(settings)
    if read_config(settings.daemon_config).enable:
        daemon.start()
    else:
        print(f"pilotkit: the daemon is switched off in {settings.daemon_config}", file=sys.stderr, flush=True)
    try:
        # From here on the socket is gunicorn's, which closes it by its number.
        _Arbiter(_Application(settings, listener.detach()), daemon, handover).run()
    except SystemExit as end:
        if os.getpid() != master:
            raise  # a web worker, forked in there, ends the same way
        return end.code if isinstance(end.code, int) else 0
    finally:
        if os.getpid() == master:
            daemon.stop()
    return 0


@contextlib.contextmanager
def _hold(data: Path) -> Iterator[None]:
    """Keep other servers off a data directory."""
    try:
        with pidfile.hold(data / "server.lock"):
            yield
    except pidfile.Held as error:
        raise ConfigurationError(
            f"The data directory {data} is in use by pid {error.pid or 'unknown'}, another server. Stop that one, or "
            "give this one a directory of its own with --data."
        ) from error
    except pidfile.Unusable as error:
        raise ConfigurationError(str(error)) from error


def _limit_patience(listener: socket.socket, patience: int) -> None:
    """Have all connections of a socket give up on a client that takes longer than this for a piece, in s; 0: never."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # Linux gives these on to every connection
        listener.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", patience, 0))


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; workers of a server that was killed may hold the port for a moment longer."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    until = time.monotonic() + _BIND_PATIENCE
    while True:
        try:
            return socket.create_server((host.strip("[]"), port), family=family, backlog=2048)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                raise ConfigurationError(f"The server cannot listen on {host}:{port}: {error.strerror}.") from None
            time.sleep(0.05)  # there is nothing to wait on: a port does not tell when it becomes free


class _Daemon:
    """The daemon as a child, which ends when this process does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lifeline: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    def start(self) -> None:
        """Start it. Its standard input is one end of a socket pair: each side sees the other go."""
        self._lifeline, theirs = socket.socketpair()
        home = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))
        with theirs:
            self._process = subprocess.Popen(
                # -P: a folder named server where we were started must not be taken for ours
                [sys.executable, "-P", "-m", "server.daemon", "--watch-stdin"],
                stdin=theirs.fileno(),
                env={**os.environ, **self._settings.to_environment(), "PYTHONPATH": path},
            )
        self._started = time.monotonic()

    def look_after(self) -> None:
        """Start it again if it has died."""
        if self._process is None or not self._has_gone(0) or time.monotonic() - self._started < _DAEMON_PAUSE:
            return
        print("pilotkit: the daemon died and is started again", file=sys.stderr, flush=True)
        self._clean_up()
        self.start()

    def _has_gone(self, patience: float) -> bool:
        """Whether its end of the socket pair is closed, or closes within `patience` seconds."""
        if self._lifeline is None:
            return True
        poll = select.poll()
        poll.register(self._lifeline, 0)  # hanging up is always told
        return bool(poll.poll(patience * 1000))

    def wait_until_ready(self) -> None:
        """Wait until it has said that it hears the bell; it says so by one byte, which stays where it is."""
        if self._lifeline is not None:
            select.select([self._lifeline], [], [], _DAEMON_GRACE)

    def stop(self) -> None:
        """Let it go, and wait until it has gone."""
        if self._lifeline is None or self._process is None:
            return
        with contextlib.suppress(OSError):
            self._lifeline.shutdown(socket.SHUT_WR)
        if not self._has_gone(_DAEMON_GRACE):
            self._process.kill()
        self._clean_up()

    def _clean_up(self) -> None:
        if self._process is not None:
            self._process.wait()
        if self._lifeline is not None:
            self._lifeline.close()
        self._process = self._lifeline = None

    def forget(self) -> None:
        """Close our end in a process that is not the daemon's parent."""
        if self._lifeline is not None:
            self._lifeline.close()
        self._process = self._lifeline = None


class _Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """What gunicorn serves, and how."""

    def __init__(self, settings: Settings, listener: int) -> None:
        self.settings = settings
        self.listener = listener
        self.tls = server_context(settings)
        self.seats = Seats()
        self.in_turns = one_cpu_each(settings)
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, object] = {
            "bind": f"fd://{self.listener}",
            "workers": self.settings.workers,
            "threads": self.settings.threads,
            "worker_class": WebWorker,
            "keepalive": _KEEPALIVE,
            "timeout": _TIMEOUT,
            "graceful_timeout": _GRACE,
            "worker_connections": self.settings.connections,
            "limit_request_line": _LONGEST_LINE,
            "loglevel": "warning",
            "logger_class": Logger,
            "control_socket_disable": True,
        }
        if self.tls is not None:
            options |= {"certfile": self.settings.cert, "keyfile": self.settings.key, "ssl_context": self._context}
        for name, value in options.items():
            if name in self.cfg.settings:  # the control socket is newer than the oldest gunicorn we take
                self.cfg.set(name, value)

    def _context(self, _config: object, _default: object) -> ssl.SSLContext | None:
        return self.tls

    def load(self) -> Flask:
        return create_app(self.settings, Turns() if self.in_turns else None)


class _Arbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's master, which also looks after the daemon and ties the workers to its own life."""

    def __init__(self, app: _Application, daemon: _Daemon, handover: Handover | None) -> None:
        self._daemon = daemon
        self._life, self._held = handover.life if handover else os.pipe()
        self._old = OldWorkers(list(handover.workers) if handover else [], _GRACE)
        self._first, self._token = os.pipe()
        self._ready, self._tell_ready = os.pipe()
        os.write(self._token, b"1")
        for descriptor in (self._first, self._ready):
            os.set_blocking(descriptor, False)
        host = app.settings.host
        scheme = "https" if app.tls else "http"
        self._address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{app.settings.port}"
        super().__init__(app)
        self.cfg.set("pre_fork", self._before_worker)
        self.cfg.set("post_fork", self._in_worker)
        self.cfg.set("post_worker_init", self._worker_ready)
        self.cfg.set("child_exit", self._worker_gone)

    def manage_workers(self) -> None:
        super().manage_workers()
        self._daemon.look_after()
        if self._old.pids and self._has_worker():
            self._old.let_go()

    def _has_worker(self) -> bool:
        """Whether a worker of our own answers requests."""
        return bool(select.select([self._ready], [], [], 0)[0])

    def handle_hup(self) -> None:
        """Become a server with today's code and settings, if it can be started; else go on."""
        if complaint := complaint_about_new():
            logger.error("the reload is left out, the server goes on as it is: %s", complaint)
            return
        self._daemon.stop()
        workers = (*self.WORKERS, *self._old.pids)
        listener = self.LISTENERS[0].fileno()
        try:
            become_new(Handover(os.getpid(), listener, (self._life, self._held), workers))
        except OSError as error:
            logger.error("the reload is left out, the server goes on as it is: %s", error)
            self._daemon.start()

    def stop(self, graceful: bool = True) -> None:
        """Stop all workers, those of before a reload included."""
        if self._old.pids:
            self._old.let_go()
        super().stop(graceful)

    def _before_worker(self, _arbiter: Arbiter, worker: WebWorker) -> None:
        worker.seat = worker.app.seats.take()

    def _in_worker(self, _arbiter: Arbiter, worker: WebWorker) -> None:
        """Right after the fork: end when the master does, and do not keep others from noticing its end."""
        os.close(self._held)
        if worker.app.in_turns:
            stay_on_one_cpu(worker.seat)
        threading.Thread(target=_leave_with, args=(self._life,), name="lifeline", daemon=True).start()

    def _worker_gone(self, _arbiter: Arbiter, worker: WebWorker) -> None:
        worker.app.seats.leave(worker.seat)

    def _worker_ready(self, _worker: Worker) -> None:
        """The first worker that is ready takes the token and says so."""
        os.write(self._tell_ready, b"1")
        with contextlib.suppress(OSError):  # no token left, or nobody who reads
            if os.read(self._first, 1):
                self._daemon.wait_until_ready()
                print(f"pilotkit: serving {self._address}", flush=True)
        self._daemon.forget()


def _leave_with(pipe: int) -> None:
    """End this process when the other end of a pipe is closed."""
    os.read(pipe, 1)
    os._exit(0)
