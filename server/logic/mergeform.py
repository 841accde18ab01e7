"""The job that merges the event ranges of a submitted job: read with that job, submitted when the ranges are done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from server.logic import jobfiles
from server.logic.errors import BadJob
from server.logic.jobform import FRIENDLY, JobForm, read_job
from server.logic.names import shown

#: What a merge job has of the job whose ranges it merges, unless it says so itself.
_INHERITED = ("computingSite", "prodSourceLabel", "VO", "workingGroup", "countryGroup", "scope")
#: Merge jobs come before others, with this priority (chapter 4.1).
_PRIORITY = 5000
#: What the submitter of a merge job to be cannot say.
_NOT_NOW = frozenset(
    {"inputs", "inFiles", *jobfiles.INPUT_COMPANIONS, "events", "eventService", "eventServiceMerge"}
    | {"user", "prodUserName", "prodUserID", "taskID", "jobsetID"}
)


def complete_merge(form: JobForm, submitted: object) -> None:
    """Add to a checked job what its merge jobs will be like, if it says how its ranges are merged.

    Args:
        submitted: the job as it came.

    Raises:
        BadJob: there can be no such merge job.
    """
    if form.events is None or form.events.merge is None or not isinstance(submitted, Mapping):
        return
    merge = form.events.merge
    job = _merge_job(form, submitted, merge.job)
    try:
        form.merge = read_job(form.index, dict(job), form.user)
    except BadJob as error:
        raise form.fail("events", f"merge, {error.field}: {error.why}") from None
    form.events = replace(form.events, merge=replace(merge, job=job))


def _merge_job(form: JobForm, submitted: Mapping[str, object], wanted: Mapping[str, object]) -> dict[str, object]:
    for key in wanted:
        if key in _NOT_NOW:
            raise form.fail("events", f"merge has {shown(key)}: that is decided when the ranges are done")
    short = {own: friendly for friendly, own in FRIENDLY.items()}
    job: dict[str, object] = {"currentPriority": _PRIORITY}
    for name in _INHERITED:
        spelled = name if name in submitted else short.get(name, name)
        if spelled in submitted:
            job[name] = submitted[spelled]
    kept = {name: value for name, value in job.items() if short.get(name) not in wanted}
    ids = {name: form.numbers[name] for name in ("taskID", "jobsetID")}
    return {**kept, **wanted, **ids, "prodUserName": form.user, "eventServiceMerge": "True"}
