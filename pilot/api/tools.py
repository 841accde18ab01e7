"""What a staging client is given: activities, copytools by activity, and what transfers are made with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Union

from pilot.copytool.common import KeyPairs
from pilot.util.blot import Secrets
from pilot.util.guarded import Launcher

# Activities by which queues and storages tell apart what files are moved for (wire.md, section 1).
STAGEIN_ACTIVITIES = ("read_lan", "pr")
# The same for storages that are not the queue's own; what says nothing of them is taken at its word for near ones.
FAR_ACTIVITIES = ("read_wan", *STAGEIN_ACTIVITIES)
OUTPUT_ACTIVITIES = ("write_lan", "w", "pw")
# Archives with the outputs of event ranges; where nothing is said of them they go where outputs go.
EVENT_ACTIVITIES = ("es_events", *OUTPUT_ACTIVITIES)
LOG_ACTIVITIES = ("pl", "write_lan", "pw")
# Copytools by activity, or the same ones for all activities.
CopyTools = Union[Mapping[str, Sequence[str]], Sequence[str], str]


@dataclass(frozen=True)
class Tools:
    """What transfers are made with: the pilot's only way to start processes, its environment, its CA directory.

    key_pair: asks the dispatcher for the keys of an object store by their names. secrets: what no trace may tell.
    """

    launcher: Launcher = field(default_factory=Launcher)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    capath: str = ""
    key_pair: KeyPairs | None = None
    secrets: Secrets = field(default_factory=Secrets)


def by_activity(tools: CopyTools) -> dict[str, list[str]]:
    """Copytools by activity, from any of the forms in which they may be given."""
    if isinstance(tools, str):
        return {"default": [tools]}
    if isinstance(tools, Mapping):
        return {activity: list(names) for activity, names in tools.items()}
    return {"default": list(tools)} if tools else {}
