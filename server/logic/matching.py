"""Which jobs a pilot may get: pure functions over what it says of itself and what a class of jobs needs."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from server.db.dispatch import Head
from server.logic.hardware import Hardware, lacking

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
        countries, working_groups: the groups whose jobs it is for; empty: all.
        allow_other_country: jobs of other countries follow when there is none of its own.
        prefer_task, prefer_user: whose jobs it would like best; nobody waits for that.
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
    countries: frozenset[str] = frozenset()
    working_groups: frozenset[str] = frozenset()
    allow_other_country: bool = False
    prefer_task: int | None = None
    prefer_user: str | None = None
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


#: Hardware of a queue that says nothing of it.
_UNKNOWN = Hardware()


def obstacles(request: JobRequest, label: str, head: Head, hardware: Hardware = _UNKNOWN) -> list[Obstacle]:
    """Everything that keeps a pilot from a job; empty means it fits.

    Args:
        label: the request's label as the queue's status makes it.
        hardware: what queue and node have.
    """
    found = [*_groups(request, head)]
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
    if text := lacking(head.architecture, hardware):
        found.append(Obstacle("hardware", text))
    return found


def _groups(request: JobRequest, head: Head) -> Iterator[Obstacle]:
    """A pilot for a country or working group gets its jobs alone; with allowOtherCountry those only come first."""
    if request.countries and not request.allow_other_country and head.countryGroup not in request.countries:
        asked = ", ".join(sorted(request.countries))
        text = f"the jobs queued are of country group {head.countryGroup or 'none'}; the pilot is for {asked}"
        yield Obstacle("country_group", text)
    if request.working_groups and head.workingGroup not in request.working_groups:
        asked = ", ".join(sorted(request.working_groups))
        text = f"the jobs queued are of working group {head.workingGroup or 'none'}; the pilot is for {asked}"
        yield Obstacle("working_group", text)


def best_first(heads: list[Head], request: JobRequest, ranks: Mapping[str, int]) -> list[Head]:
    """Heads of classes in the order their jobs are given out: the pilot's country, share, priority, age.

    Args:
        ranks: share -> its turn, from 0; those that are not there come last.
    """
    last = len(ranks)

    def order(head: Head) -> tuple[bool, int, int, int]:
        foreign = bool(request.countries) and head.countryGroup not in request.countries
        return (foreign, ranks.get(head.gshare, last), -head.currentPriority, head.PandaID)

    return sorted(heads, key=order)


def nearest(misfits: list[list[Obstacle]]) -> Obstacle:
    """The obstacle to name when nothing fits: that of the class which misses by the fewest."""
    return min(misfits, key=len)[0]
