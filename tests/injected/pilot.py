"""Faults of the pilot itself: something in it that nobody has thought of."""

from __future__ import annotations

from pilot.common.errorcodes import ErrorCodes as C
from tests.injected.fault import BY_PILOT, Before, Fault, Scene
from tests.injected.site import leaves
from tests.pilots import ROOT


def broken(module: str, what: str) -> Before:
    """A pilot in which a function raises what nobody expects, as a mistake in it would."""

    def prepared(scene: Scene) -> None:
        folder = scene.folder / "site-packages"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(
            f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            f"import {module} as module\n"
            "def broken(*args, **kwargs):\n    raise ZeroDivisionError('a mistake of the pilot')\n"
            f"module.{what} = broken\n"
        )
        scene.env["PYTHONPATH"] = str(folder)

    return prepared


def dies(thread: str, module: str, what: str, script: str = "true") -> Fault:
    """A thread of the pilot that meets its mistake while a job is under way."""
    return Fault(
        f"the pilot's thread {thread} dies", f"{module}.{what} raises ZeroDivisionError", C.INTERNALPILOTPROBLEM,
        "pilot", BY_PILOT, (f"thread {thread} died",), script, before=broken(module, what),
        settings="[Payload]\nmemory_check_first = 0.2\n", shell=1,
    )  # fmt: skip


FAULTS = (
    dies("monitor", "pilot.control.watch", "JobWatch.look", "exec sleep 60"),
    dies("stage-in", "pilot.control.data", "DataController._stage_in"),
    dies("payload", "pilot.control.payload", "PayloadController._execute"),
    dies("stage-out", "pilot.control.data", "DataController._stage_out"),
    leaves(
        "the pilot fails before it has a job", "pilot.workflow.start._Pilot._infosys raises ZeroDivisionError",
        C.INTERNALPILOTPROBLEM, "pilot", "the pilot has failed outside of any job", "a mistake of the pilot", shell=1,
        before=broken("pilot.workflow.start", "_Pilot._infosys"),
    ),
)  # fmt: skip
