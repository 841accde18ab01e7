"""Which jobs a pilot may get: pure functions over what it says of itself and what a class of jobs needs."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from server.db.dispatch import Head

#: prodSourceLabel asked for -> labels of jobs it may get (wire.md section 4). Any other label gets only its own.
LABELS: dict[str, frozenset[str]] = {
    "user": frozenset({"user", "panda", "install"}),
    "managed": frozenset({"managed", "test", "prod_test", "install"}),
    "unified": frozenset({"managed", "test", "prod_test", "install", "user", "panda"}),
}
LABELS[""] = LABELS["managed"]
#: A job whose submitter named no label: pilots of any label may have it, so that a first job and a pilot started with
#: nothing but a queue find each other. Queues in test keep to tests.
ANY_LABEL = "any"
#: What "test" gets when it names a computing element, beside jobs of this processing type.
TEST_LABELS = frozenset({"prod_test", "install", "test"})
TEST_PROCESSING_TYPE = "gangarobot"
#: Labels that a queue in status test turns into "test".
_TESTED_LABELS = frozenset({"", "user", "managed", "unified"})


@dataclass(frozen=True)
class JobRequest:
    """What a pilot says of itself and wants; None or 0 means it did not say.

    Attributes:
        queue: panda queue.
        memory: MB it may use.
        disk: MB free for the job.
        remaining_time: seconds left.
        cores: cores it has.
        label: prodSourceLabel.
        number: how many jobs it wants.
        request_id: the same for every try of one request.
    """

    queue: str
    memory: int = 0
    disk: int = 0
    remaining_time: int | None = None
    cores: int = 0
    label: str = ""
    resource_type: str = ""
    task_id: int | None = None
    user: str | None = None
    computing_element: str = ""
    node: str = ""
    number: int = 1
    request_id: str = ""
    scheduler_id: str = ""
    harvester_id: str = ""
    worker_id: str = ""


@dataclass(frozen=True)
class Obstacle:
    """Why a pilot cannot get a job: a word for programs, a sentence for people."""

    reason: str
    sentence: str


def label_in_queue(label: str, queue_status: str) -> str:
    """The label as the queue's status makes it: a queue in test runs tests only."""
    return "test" if queue_status == "test" and label in _TESTED_LABELS else label


def label_fits(label: str, computing_element: str, job_label: str, processing_type: str) -> bool:
    """Whether a pilot that asks with a label may get a job with another."""
    if job_label == ANY_LABEL:
        return label != "test"
    if label == "test" and computing_element:
        return processing_type == TEST_PROCESSING_TYPE or job_label in TEST_LABELS
    allowed = LABELS.get(label)
    return job_label == label if allowed is None else job_label in allowed


def resource_type_fits(wanted: str, resource_type: str) -> bool:
    """Whether a job's resource type is the one a pilot asks for, which may be a pattern with * or SQL's %."""
    return fnmatch.fnmatchcase(resource_type, wanted.replace("%", "*"))


def obstacles(request: JobRequest, label: str, head: Head) -> list[Obstacle]:
    """Everything that keeps a pilot from a job; empty means it fits.

    Args:
        label: the request's label as the queue's status makes it.
    """
    found: list[Obstacle] = []
    if not label_fits(label, request.computing_element, head.prodSourceLabel, head.processingType):
        asked = label or "managed"
        found.append(
            Obstacle("label", f"the jobs queued have the label {head.prodSourceLabel!r}; the pilot asks for {asked!r}")
        )
    if request.resource_type and not resource_type_fits(request.resource_type, head.resource_type):
        text = f"the jobs queued are of resource type {head.resource_type}; the pilot asks for {request.resource_type}"
        found.append(Obstacle("resource_type", text))
    needs = (
        ("memory", head.minRamCount, request.memory or None, "MB of memory"),
        ("disk", head.maxDiskCount, request.disk or None, "MB of disk"),
        ("cores", head.coreCount, request.cores or None, "cores"),
        ("time", head.maxWalltime, request.remaining_time, "s of wall time"),
    )
    for reason, needed, there, unit in needs:
        if there is not None and needed > there:
            found.append(Obstacle(reason, f"the jobs queued need {needed} {unit}; the pilot has {there}"))
    return found


def best_first(heads: list[Head]) -> list[Head]:
    """Heads of classes in the order their jobs are given out: priority, then age."""
    return sorted(heads, key=lambda head: (-head.currentPriority, head.PandaID))


def nearest(misfits: list[list[Obstacle]]) -> Obstacle:
    """The obstacle to name when nothing fits: that of the class which misses by the fewest."""
    return min(misfits, key=len)[0]
