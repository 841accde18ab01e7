"""The daemon as a service: run it here, start it in the background, stop it, see whether it runs."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from server import logs, pidfile
from server.daemon.config import DaemonConfig, Script, read_config
from server.daemon.runner import GRACE, Runner
from server.daemon.worker import remark_on
from server.db.database import DatabaseUnusable, complaint_about_url, shown_url
from server.db.migrate import migrate
from server.logic.plugins import plugins_of
from server.settings import ConfigurationError, Settings

#: s a daemon may take to start, with a database that many migrate at once, and to stop.
_START_PATIENCE = 120.0
_STOP_PATIENCE = GRACE + 15.0


def run(settings: Settings, *, watch_stdin: bool = False, in_background: bool = False) -> None:
    """Run the daemon in this process until it is stopped; its log goes to standard error.

    Args:
        watch_stdin: it is a part of something else, which holds the other end of standard input, is told there when the
            daemon is ready, and stops it by closing it. Else the daemon has the data directory's pid file.
        in_background: whoever started it is told on standard input when the daemon is ready, and leaves then.

    Raises:
        ConfigurationError: the daemon is switched off or runs already, or something in its configuration is wrong.
    """
    settings.check()
    logs.configure(settings.log_format, settings.log_level)
    config = _enabled(settings)
    become(config)
    _prepare(settings)
    on_ready = _tell_and_let_go if in_background else _tell if watch_stdin else _tell_nobody
    with contextlib.nullcontext() if watch_stdin else _held(settings):
        config = replace(config, scripts=tuple(script for script in config.scripts if _is_usable(script)))
        Runner(settings, config, watch_stdin=watch_stdin, on_ready=on_ready).run()


def _tell() -> None:
    """Tell whoever started us, if standard input is a socket that can be told."""
    with contextlib.suppress(OSError):
        os.write(0, b"1")


def _tell_and_let_go() -> None:
    _tell()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _tell_nobody() -> None:
    """Somebody looks on, or nobody does."""


def _enabled(settings: Settings) -> DaemonConfig:
    config = read_config(settings.daemon_config)
    if not config.enable:
        raise ConfigurationError(
            f"The daemon is switched off: write enable = True into [daemon] of {settings.daemon_config}."
        )
    return config


def become(config: DaemonConfig) -> None:
    """Go on as the user and group that the configuration names, if it does."""
    if not config.uname and not config.gname:
        return
    try:
        user = pwd.getpwnam(config.uname) if config.uname else pwd.getpwuid(os.geteuid())
        group = grp.getgrnam(config.gname).gr_gid if config.gname else user.pw_gid
    except KeyError as error:
        raise ConfigurationError(f"The daemon cannot run as its uname and gname: {error.args[0]}.") from None
    if (user.pw_uid, group) == (os.geteuid(), os.getegid()):
        return
    try:
        os.initgroups(user.pw_name, group)
        os.setgid(group)
        os.setuid(user.pw_uid)
    except PermissionError:
        raise ConfigurationError(
            f"The daemon is to run as {user.pw_name}:{grp.getgrgid(group).gr_name}; start it as root or as that user."
        ) from None


def _prepare(settings: Settings) -> None:
    url = settings.database_url()
    plugins_of(settings)
    try:
        settings.data_path().mkdir(mode=0o700, parents=True, exist_ok=True)
        if complaint := complaint_about_url(url):
            raise DatabaseUnusable(f"The database {shown_url(url)} cannot be used: {complaint}.")
        migrate(url)
    except (DatabaseUnusable, OSError) as error:
        raise ConfigurationError(str(error)) from error


def _is_usable(script: Script) -> bool:
    """Whether we have a script's module; if not, one line says so. Loaded here, it is there for all workers."""
    try:
        if remark := remark_on(script):
            print(f"pilotkit daemon: the script {script.name}: {remark}", file=sys.stderr, flush=True)
    except Exception as error:  # a site's own module may raise anything, and must not keep the others from running
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"pilotkit daemon: the script {script.name} is left out: {text}", file=sys.stderr, flush=True)
        return False
    return True


def pid_path(settings: Settings) -> Path:
    """The file that a daemon of its own has, with its number in it."""
    return settings.data_path() / "daemon.pid"


def log_path(settings: Settings) -> Path:
    """Where a daemon in the background writes."""
    return settings.data_path() / "daemon.log"


@contextlib.contextmanager
def _held(settings: Settings) -> Iterator[None]:
    try:
        with pidfile.hold(pid_path(settings)):
            yield
    except pidfile.Held as error:
        raise ConfigurationError(f"A daemon runs here already, pid {error.pid or 'unknown'}.") from error
    except pidfile.Unusable as error:
        raise ConfigurationError(str(error)) from error


def pid_of(settings: Settings) -> int | None:
    """The number of the daemon that runs with this data directory on this machine, or None.

    Raises:
        ConfigurationError: its pid file cannot be looked at.
    """
    try:
        return pidfile.holder_of(pid_path(settings))
    except pidfile.Unusable as error:
        raise ConfigurationError(str(error)) from error


def start(settings: Settings) -> int:
    """Start the daemon in the background and wait until it is ready; returns its number.

    Raises:
        ConfigurationError: it runs already, or did not start.
    """
    if (pid := pid_of(settings)) is not None:
        raise ConfigurationError(f"A daemon runs here already, pid {pid or 'unknown'}.")
    _enabled(settings)
    log = log_path(settings)
    ours, theirs = socket.socketpair()
    try:
        settings.data_path().mkdir(mode=0o700, parents=True, exist_ok=True)
        with ours, theirs, log.open("ab") as output:
            process = subprocess.Popen(
                # -P: a folder named server where we were started must not be taken for ours
                [sys.executable, "-P", "-m", "server.daemon", "--in-background"],
                stdin=theirs.fileno(),
                stdout=output,
                stderr=output,
                env={**os.environ, **settings.to_environment(), "PYTHONPATH": _python_path()},
                start_new_session=True,
            )
            theirs.close()
            ours.settimeout(_START_PATIENCE)
            if ours.recv(1):
                return process.pid
    except TimeoutError:
        process.kill()
    except OSError as error:
        raise ConfigurationError(f"The daemon cannot write to {log}: {error.strerror}.") from error
    process.wait()
    raise ConfigurationError(f"The daemon did not start; the last line of {log} is: {_last_line(log)}")


def _python_path() -> str:
    home = str(Path(__file__).resolve().parent.parent.parent)
    return os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "(empty)"


def stop(settings: Settings) -> int | None:
    """Stop the daemon of this data directory on this machine, and wait until it has gone.

    Returns:
        Its number; None if there was none.

    Raises:
        ConfigurationError: it cannot be stopped.
    """
    pid = pid_of(settings)
    if not pid:
        return None
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return pid
    except PermissionError:
        raise ConfigurationError(
            f"The daemon, pid {pid}, is another user's; stop it as that user or as root."
        ) from None
    if not pidfile.wait_until_free(pid_path(settings), _STOP_PATIENCE):
        raise ConfigurationError(f"The daemon, pid {pid}, does not stop; look at it, or end it with kill -9.")
    return pid
