"""Faults that come from the batch system: its signals, its limits, its kills."""

from __future__ import annotations

import signal

import psutil

from pilot.common.errorcodes import ErrorCodes as C
from tests import pilots
from tests.injected.fault import BY_GUARD, BY_KILLER, BY_SIGNAL, BY_TIME, Fault, Scene
from tests.pilots import Pilot


def signalled(number: signal.Signals, code: int, shell: int, *, charged: bool = True) -> Fault:
    """The pilot gets a signal while a payload runs."""

    def send(scene: Scene, pilot: Pilot) -> None:
        pilot.signal(number)

    return Fault(
        f"the pilot gets {number.name}", f"`kill -{number.name[3:]}` of the pilot, while its payload runs", code,
        "batch", BY_SIGNAL, (f"the pilot got {number.name}",), "exec sleep 60",
        during=send, shell=shell, charged=charged,
    )  # fmt: skip


def _kill(scene: Scene, pilot: Pilot) -> None:
    below = pilot.tree()
    pilot.signal(signal.SIGKILL)
    pilot.wait()
    psutil.wait_procs(below, timeout=10)


def _next_pilot(scene: Scene) -> None:
    pilots.run(scene.url, scene.queue_name, scene.rundir, "-v", "1")


def _kill_guard(scene: Scene, pilot: Pilot) -> None:
    (guard,) = psutil.Process(pilot.pid).children()
    guard.kill()


FAULTS = (
    signalled(signal.SIGTERM, C.SIGTERM, 143, charged=False),
    signalled(signal.SIGINT, C.SIGINT, 130),
    signalled(signal.SIGQUIT, C.SIGQUIT, 131),
    signalled(signal.SIGXCPU, C.SIGXCPU, 152),
    signalled(signal.SIGUSR1, C.SIGUSR1, 138),
    signalled(signal.SIGSEGV, C.SIGSEGV, 139),
    signalled(signal.SIGBUS, C.SIGBUS, 135),
    signalled(signal.SIGHUP, C.KILLSIGNAL, 137),
    Fault(
        "the slot ends", "a lifetime of 12 s and a payload of 60", C.REACHEDMAXTIME, "batch", BY_TIME, ("--lifetime",),
        "exec sleep 60", options=("-l", "12"), shell=81, charged=False,
    ),
    Fault(
        "the pilot is killed with -9", "`kill -9` of the pilot; the next pilot on the node reports it", C.KILLSIGNAL,
        "batch", BY_KILLER, ("the pilot was killed in phase payload",), "exec sleep 60", during=_kill,
        after=_next_pilot, shell=-9, log=False,
    ),
    Fault(
        "the payload's guard is killed with -9", "`kill -9` of the guard", C.KILLSIGNAL, "batch", BY_GUARD,
        ("the guard of the payload was killed from outside",), "exec sleep 60", during=_kill_guard, trans=137,
        shell=137,
    ),
)  # fmt: skip
