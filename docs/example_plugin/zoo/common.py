"""The zoo's conventions: a set-up before each payload, and a clerk who counts animals while one runs."""

from __future__ import annotations

import shlex

from pilot.common.orders import UTILITY_AFTER_PAYLOAD_STARTED
from pilot.info.jobdata import JobData
from pilot.user.generic import common as generic


def get_payload_command(job: JobData, transformation: str) -> str:
    """The generic command, with the zoo's release in its environment."""
    return (
        f"export ZOO_RELEASE={shlex.quote(job.swrelease or 'none')}; {generic.get_payload_command(job, transformation)}"
    )


def get_utility_commands(order: str | None = None, job: JobData | None = None) -> dict[str, object] | None:
    """One utility: it notes the time every second while the payload runs, in clerk_stdout.txt."""
    if order != UTILITY_AFTER_PAYLOAD_STARTED:
        return None
    return {"command": "sh", "args": "-c 'while :; do date; sleep 1; done'", "label": "clerk"}
