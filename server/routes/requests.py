"""A pilot's request for jobs, from the arguments of either API and our own headers (wire.md section 8)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from server.logic.matching import JobRequest
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
_CORES = re.compile(r"(?:^|[\s,;&])\"?cores\"?\s*[=:]\s*(\d{1,6})\b")


def job_request(call: Call, names: Mapping[str, str]) -> JobRequest:
    """What a pilot asks for.

    Args:
        names: field of JobRequest -> argument of this API, where the two differ.

    Raises:
        BadArgument: a text is longer than anything that can be meant.
    """
    texts = {
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
        **texts,
    )
