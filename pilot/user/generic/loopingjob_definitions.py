"""Generic experiment: which payloads are looked after for being hung, and which of their files tell something."""

from __future__ import annotations

import os
from collections.abc import Sequence

# Files in a job's directory that the pilot writes itself while the payload runs.
_PILOTS_OWN = frozenset(
    {"memory_monitor_output.txt", "memory_monitor_summary.json", "memory_monitor_log.txt", "pilot_slot.json"}
)


def allow_loopingjob_detection() -> bool:
    """Whether hung payloads are ended."""
    return True


def remove_unwanted_files(workdir: str, files: Sequence[str]) -> list[str]:
    """The files without those whose change is no sign of the payload's life.

    files: paths, absolute or below workdir.
    """
    return [name for name in files if os.path.relpath(os.path.join(workdir, name), workdir) not in _PILOTS_OWN]
