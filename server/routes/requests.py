"""What pilots ask of either API, counted: jobs, by arguments and our own headers (wire.md section 8), and updates."""

from __future__ import annotations

import re
from collections.abc import Mapping

from server.counters import GETJOB, JOBS_GIVEN, UPDATES
from server.logic import dispatch, updates
from server.logic.dispatch import NoJob
from server.logic.fields import JobReport
from server.logic.matching import JobRequest
from server.logic.updates import UpdateAnswer
from server.routes.decoding import BadArgument
from server.routes.registry import Call

#: Lengths of the columns these are stored in.
_LENGTHS = {
    "request_id": 64,
    "scheduler_id": 128,
    "harvester_id": 64,
    "worker_id": 64,
    "node": 128,
}
#: What a pilot would like best, in its header X-Pilotkit-Prefer: task=7; user=jdoe
_PREFERRED = re.compile(r"(task|user)=([^;]+?)\s*(?:;|$)")
_CORES = re.compile(r"(?:^|[\s,;&])\"?cores\"?\s*[=:]\s*(\d{1,6})\b")


def acquire_jobs(call: Call, names: Mapping[str, str]) -> list[dict[str, object]] | NoJob:
    """Jobs for a pilot, or the reason why there are none.

    Args:
        names: field of JobRequest -> argument of this API, where the two differ.

    Raises:
        BadArgument: a text is longer than anything that can be meant.
    """
    found = dispatch.acquire_jobs(call.context, job_request(call, names), call.identity, call.server)
    counters = call.context.counters
    if isinstance(found, NoJob):
        counters.add(GETJOB, found.reason)
    else:
        counters.add(GETJOB, "job")
        counters.add(JOBS_GIVEN, by=len(found))
    return found


def update_job(call: Call, report: JobReport) -> UpdateAnswer:
    """Do what a pilot's report asks for."""
    answer = updates.update_job(call.context, report, call.identity)
    state = report.status if answer.known_state else "unknown"
    # Of orders with arguments the first word alone: the labels of a counter must be few.
    call.context.counters.add(UPDATES, state, answer.command.split(",")[0].split(" ")[0])
    return answer


def job_request(call: Call, names: Mapping[str, str]) -> JobRequest:
    """What a pilot asks for.

    Args:
        names: field of JobRequest -> argument of this API, where the two differ.

    Raises:
        BadArgument: a text is longer than anything that can be meant.
    """
    texts: dict[str, str] = {
        field: call.text(names.get(field, field))
        for field in (
            "label",
            "resource_type",
            "computing_element",
            "node",
            "scheduler_id",
            "harvester_id",
            "worker_id",
        )
    }
    texts["request_id"] = call.text("request_id") or call.headers.get("X-Pilotkit-Request", "")
    for field, length in _LENGTHS.items():
        if field in ("request_id",) and len(texts[field]) > length:
            raise BadArgument("Type error", f"request_id has more than {length} characters")
        texts[field] = texts[field][:length]
    if texts["label"] == "None" or texts["label"] == "NULL":
        texts["label"] = ""
    preferred = dict(_PREFERRED.findall(call.headers.get("X-Pilotkit-Prefer", "")))
    task = preferred.get("task", "")
    cores = _CORES.search(call.headers.get("X-Pilotkit-Capabilities", ""))
    return JobRequest(
        queue=call.text(names["queue"]),
        memory=max(call.integer(names["memory"]), 0),
        disk=max(call.integer(names["disk"]), 0),
        remaining_time=call.integer_or_none("remaining_time"),
        cores=int(cores.group(1)) if cores else 0,
        task_id=call.integer_or_none(names["task_id"]),
        user=call.text(names["user"]) or None,
        number=call.integer(names["number"], 1),
        countries=_groups(call.text(names["countries"])),
        working_groups=_groups(call.text(names["working_groups"])),
        allow_other_country=call.text(names["allow_other_country"]).lower() in ("true", "1"),
        prefer_task=int(task) if task.isdigit() and len(task) < 19 else None,
        prefer_user=preferred.get("user"),
        label=texts["label"],
        resource_type=texts["resource_type"],
        computing_element=texts["computing_element"],
        node=texts["node"],
        request_id=texts["request_id"],
        scheduler_id=texts["scheduler_id"],
        harvester_id=texts["harvester_id"],
        worker_id=texts["worker_id"],
    )


def _groups(text: str) -> frozenset[str]:
    """Names that are comma-joined; pilots send an empty text or NULL for none."""
    return frozenset(name for name in (part.strip() for part in text.split(",")) if name and name != "NULL")
