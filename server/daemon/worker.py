"""A process that runs one script at a time for the daemon, with database connections of its own."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import ModuleType
from typing import NamedTuple, cast

from server.counters import RUN_SECONDS, RUNS, Counters
from server.daemon.config import PACKAGE, Script
from server.db import locks
from server.db.database import Database
from server.db.wakeup import SocketBell
from server.logic.context import Context
from server.settings import Settings

logger = logging.getLogger(__name__)

#: What a script's module has: it returns True if there is more to do at once.
Run = Callable[[Context, Sequence[str]], bool]

#: What a worker tells the daemon: it is through with a script, or begins its next call in loop mode.
DONE = "done"
AGAIN = "again"


class Later(NamedTuple):
    """What it tells of a script that is another machine's turn: when to ask again, in s."""

    seconds: float


def work(settings: Settings, pipe: Connection) -> None:
    """Run the scripts that come through a pipe until it closes."""
    # The daemon decides when to stop, by closing the pipe; a Ctrl-C or systemd's SIGTERM reaches the whole group.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    data = settings.data_path()
    database = Database(settings.database_url(), connections=2)
    bell = SocketBell(data)
    context = Context(settings, database, bell, counters=Counters(settings.counters_path(), "daemon"))
    try:
        while True:
            script = pipe.recv()
            pipe.send(run_script(context, script, pipe))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the daemon has gone, or wants us to go
    finally:
        bell.close()
        database.close()
        context.counters.close()


#: Scripts of existing configurations that are not here, and why.
_ABSENT = {
    "datasetManager": "datasets are nothing but names here, and need not be closed or removed",
    "dummy_test": "it is a test of another daemon",
    "evpPD2P": "there is no placement of data by events here",
    "process_workflow_files_daemon": "workflows are not processed here",
}


def load(script: Script) -> Run:
    """The function of a script.

    Raises:
        ImportError: there is no such module, it cannot be loaded, or it has no `run`.
    """
    return cast(Run, _found(script).run)


def remark_on(script: Script) -> str:
    """What a script's module has to say of its arguments before it ever runs (its `remark`); mostly nothing.

    Raises:
        ImportError: as for `load`.
    """
    remark = getattr(_found(script), "remark", None)
    return str(remark(script.arguments)) if callable(remark) else ""


def _found(script: Script) -> ModuleType:
    packages = dict.fromkeys((script.package, PACKAGE))
    module = next(filter(None, (_module(package, script.module) for package in packages)), None)
    if module is None:
        reason = _ABSENT.get(script.module) or f"there is no module {script.module} in {' or '.join(packages)}"
        raise ImportError(reason)
    if not callable(getattr(module, "run", None)):
        raise ImportError(f"the module {module.__name__} has no function run(context, arguments)")
    return module


def _module(package: str, name: str) -> ModuleType | None:
    """A module of a package, or None if there is none. Raises ImportError if it is there and needs what is not."""
    full = f"{package}.{name}"
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{full}.".startswith(f"{error.name}."):
            return None
        raise


def run_script(context: Context, script: Script, pipe: Connection) -> str | Later:
    """Run a script if it is its turn; returns what to tell the daemon."""
    owner = f"{socket.gethostname()}:{os.getpid()}"
    try:
        if script.sync:
            with context.database.durable() as connection:
                now = time.time()
                wait = locks.take_turn(connection, script.name, owner, script.period, script.timeout, now)
            if wait > 0:
                return Later(wait)
        try:
            _counted(context, script, pipe, owner)
        finally:  # one that fails is not to keep the others from their turn
            if script.sync:
                with context.database.durable() as connection:
                    locks.give_back(connection, script.name, owner)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception:  # a script that fails must not stop the others; it has its next period
        logger.exception("the script %s failed", script.name)
    return DONE


def _counted(context: Context, script: Script, pipe: Connection, owner: str) -> None:
    """Run a script, and count it; a run that is killed has begun, and neither ended nor failed."""
    counters = context.counters
    counters.add(RUNS, script.name, "begun")
    began = time.monotonic()
    end = "failed"
    try:
        run = load(script)
        while run(context, script.arguments) and script.loop and _goes_on(context, script, owner):
            pipe.send(AGAIN)
        end = "done"
    finally:
        counters.add(RUNS, script.name, end)
        counters.add(RUN_SECONDS, script.name, by=time.monotonic() - began)


def _goes_on(context: Context, script: Script, owner: str) -> bool:
    """Whether a script in loop mode may be called again: its time-out begins anew, and so does its lock's."""
    if not script.sync:
        return True
    with context.database.durable() as connection:
        return locks.keep(connection, script.name, owner, script.timeout, time.time())
