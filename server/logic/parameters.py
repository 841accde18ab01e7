"""The parameters of the configuration table that this server reads, with their defaults (chapter 10).

A parameter belongs to a component and has a key. Whoever reads a new one declares it here, so that `pilotkit config
list` shows all there are, and a value that cannot be meant is refused when it is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: The application of all our parameters, as servers of the field call themselves.
APPLICATION = "pandaserver"


@dataclass(frozen=True)
class Parameter:
    """A parameter.

    Attributes:
        default: what holds without a value in the table; None: nothing then.
        type: int, float, str or bool.
        description: what it does, with its unit.
        least: the smallest number that makes sense.
        by_vo: a VO may have a value of its own.
    """

    component: str
    key: str
    default: int | float | str | bool | None
    type: str
    description: str
    least: float = 0
    by_vo: bool = False


def _hours(key: str, hours: float, description: str) -> Parameter:
    return Parameter("watcher", key, hours, "float", f"{description} (hours)", by_vo=True)


#: The time-outs of chapter 12.1.3; where it is silent, of wire.md section 7. `_urgent` is for priority 800 and more.
TIMEOUTS = (
    _hours("TIMEOUT_pending", 1, "a pending job that nobody prepares is closed"),
    _hours("TIMEOUT_defined", 4, "a defined job whose preparation does not end is closed"),
    _hours("TIMEOUT_assigned", 12, "a job whose inputs do not come is sent elsewhere, or fails if no job makes them"),
    _hours("TIMEOUT_throttled", 168, "a throttled job that is not released is closed"),
    _hours("TIMEOUT_activated", 48, "a queued job that no pilot takes is sent elsewhere"),
    _hours("TIMEOUT_activated_urgent", 4, "the same for urgent jobs in a queue that starts no jobs"),
    _hours("TIMEOUT_queued", 168, "a queued job that no pilot has taken is closed"),
    _hours("TIMEOUT_laststart", 2, "a queue in which no job has started for so long starts no jobs"),
    _hours("TIMEOUT_sent", 0.5, "a job that was handed out and never heard of again is lost"),
    _hours("TIMEOUT_starting", 48, "a job that is starting for so long is given up"),
    _hours("TIMEOUT_starting_urgent", 4, "the same for urgent jobs in a queue that starts no jobs"),
    _hours("TIMEOUT_running", 504, "a job that is running for so long is given up"),
    _hours("TIMEOUT_holding", 48, "a holding job without a final report has failed"),
    _hours("TIMEOUT_holding_urgent", 3, "the same for urgent jobs and those of users"),
    _hours("TIMEOUT_transferring", 336, "outputs that have not arrived are lost, unless the queue has transtimelo"),
    _hours("TIMEOUT_transferring_urgent", 96, "the same for urgent jobs, unless the queue has transtimehi"),
    _hours("TIMEOUT_merging", 336, "a job whose outputs nobody merges has failed"),
    _hours("TIMEOUT_workerdone", 1, "a job that has been silent since its worker ended is lost"),
)

#: Fast rebrokerage (chapter 12.1.3, which has no numbers: these are ours); FAMILIES has what switches it on.
REBROKERAGE = (
    Parameter(
        "watcher", "FAST_REBRO_THRESHOLD_NQNR_RATIO", 3, "float", "queued jobs of a share for each that runs, at most"
    ),
    Parameter(
        "watcher",
        "FAST_REBRO_THRESHOLD_NQUEUE_FRAC",
        0.3,
        "float",
        "the part of a share's queued jobs that one queue may have",
    ),
)

#: Unified pilot streaming and what is kept of Harvester's words; the numbers are client.md's, section 3, or our own.
HARVESTER = (
    Parameter("pilotstreaming", "WAITING_PER_RUNNING", 0.5, "float", "workers that shall wait for each that runs"),
    Parameter("pilotstreaming", "MIN_WAITING", 1, "int", "workers of a queue that shall wait at least"),
    Parameter("pilotstreaming", "MAX_NEW_WORKERS", 1000, "int", "new workers of a queue in one round, at most"),
    Parameter("harvester", "KEEP_DAYS", 30, "float", "what Harvester has said is removed after so long (days)", 1),
)

#: What the configurator believes (server/logic/cric.py).
CONFIGURATOR = (
    Parameter(
        "configurator",
        "LEAST_PERCENT",
        50,
        "float",
        "an answer of the information service with fewer of the names known is not believed (percent)",
    ),
)

#: PanDA, too, keeps ended jobs among the live ones for some days, and its archive for ever (chapter 8).
ARCHIVE = (
    Parameter("archive", "AFTER_DAYS", 3, "float", "an ended job moves into the archive (days)"),
    # as long as a job waits for its merge job (TIMEOUT_merging)
    Parameter("archive", "EVENTS_DAYS", 14, "float", "done event ranges that nobody merges keep their jobs out (days)"),
    Parameter(
        "archive", "KEEP_DAYS", 0, "float", "an archived job is forgotten so long after its end (days; 0: never)"
    ),
)

#: Nodes on which jobs only fail (docs/shares.md).
NODES = (
    Parameter("dispatch", "NODE_FAILURES", 5, "int", "fast failures of the site in a row that pause a node (0: never)"),
    Parameter("dispatch", "NODE_FAILURE_WINDOW", 3600, "int", "failures of a node are forgotten after (s)"),
    Parameter("dispatch", "NODE_FAST_FAILURE", 600, "int", "a failure is fast within (s)"),
    Parameter("dispatch", "NODE_PAUSE", 900, "int", "a node's first pause; each further one is twice as long (s)", 1),
    Parameter("dispatch", "NODE_LONGEST_PAUSE", 21600, "int", "a node's longest pause (s)", 1),
)

#: How often age comes before share and priority.
DISPATCH = (
    Parameter(
        "dispatch",
        "SLOPPY_DISPATCH_RATIO",
        None,
        "float",
        "part of getJob answered with the oldest job; 10 if there are shares, else -1: never (%)",
        -1,
    ),
)

#: What the metric collector writes down.
METRICS = (Parameter("metrics", "KEEP_DAYS", 30, "float", "numbers of jobs over time are kept for so long (days)"),)

#: What the dataset manager goes by.
DATASETS = (
    Parameter("dataset", "CLOSE_AFTER", 3600, "float", "a complete dataset is closed so long after (s)", by_vo=True),
)

#: Those whose keys end with a name: of a workflow, for instance.
FAMILIES = (
    Parameter(
        "watcher",
        "HEARTBEAT_TIMEOUT_",
        None,
        "float",
        "a job of a queue with this workflow is lost after so long a silence (hours)",
    ),
    Parameter(
        "watcher",
        "FAST_REBRO_THRESHOLD_NQUEUE_",
        None,
        "int",
        "more queued jobs of this share leave a queue that has too many of them (docs/life.md)",
    ),
)

PARAMETERS: Mapping[tuple[str, str], Parameter] = {
    (parameter.component, parameter.key): parameter
    for parameter in (
        *TIMEOUTS,
        *REBROKERAGE,
        *HARVESTER,
        *CONFIGURATOR,
        *ARCHIVE,
        *DISPATCH,
        *NODES,
        *METRICS,
        *DATASETS,
    )
}


def find_parameter(component: str, key: str) -> Parameter | None:
    """A declared parameter, if this is one."""
    found = PARAMETERS.get((component, key))
    if found is None:
        families = (
            one for one in FAMILIES if one.component == component and key.startswith(one.key) and key != one.key
        )
        found = next(families, None)
    return found
