"""What a signal to the pilot means: the end of the slot, another job in its place, or just the signal."""

from __future__ import annotations

import time

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.context import Context
from pilot.util import batchlimits

# Signals with which batch systems end or announce the end of a job for reasons of their own. The others say
# themselves what they are for.
_ASKED_ABOUT = ("SIGTERM", "SIGUSR1")
# A signal so shortly (s) before the end of the slot has come for it: batch systems count in minutes.
_SLOT_IS_OVER = 60.0


def signal_error(context: Context, name: str) -> PilotException:
    """The error with which a job ends for a signal. A batch system that knows is asked: a fraction of a second."""
    plain = PilotException(f"the pilot got {name}", code=ErrorCodes.get_kill_signal_error_code(name))
    if name not in _ASKED_ABOUT:
        return plain
    slot = context.slot
    left = slot.left(time.time())
    if left <= _SLOT_IS_OVER:
        text = f"the pilot got {name}, and the slot ends in {left:.0f} s: {slot.deadline.source}"
        return PilotException(text, code=ErrorCodes.REACHEDMAXTIME)
    node = context.node
    command = batchlimits.query(node.batch_system, node.batch_id) if node.batch_system == "Slurm" else []
    try:
        limit = context.settings.pilot.signal_query_timeout
        said = (
            context.launcher.output(command, cwd=context.workdir, env=context.environ, timeout=limit) if command else ""
        )
    except PilotException:  # no such command on this node
        return plain
    if not batchlimits.is_preempted(node.batch_system, said):
        return plain
    text = f"the pilot got {name}: {node.batch_system} says that job {node.batch_id} is preempted"
    return PilotException(text, code=ErrorCodes.PREEMPTION)
