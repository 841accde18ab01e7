"""What the traces of a job's transfers have in common (see pilot.api.traces)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

from pilot.api.replicas import site_of
from pilot.api.traces import EVENT_TYPES, trace_base
from pilot.control.jobrun import JobRun
from pilot.util.https import Json
from pilot.util.workernode import get_node_name

# Names of a site for Rucio's statistics, where it has one; else that of the queue is taken.
_SITE_VARIABLE = "RUCIO_LOCAL_SITE_ID"


def get_trace_report_variables(
    job: JobRun, label: str = "stage-in", environ: Mapping[str, str] = os.environ
) -> tuple[str, str, str]:
    """Event type, local site, and remote site until a storage is known. label: stage-in or stage-out."""
    event = EVENT_TYPES["in" if label == "stage-in" else "out"] + ("_a" if job.data.is_analysis() else "")
    queue = job.infosys.queuedata
    known = site_of(environ)
    site = environ.get(_SITE_VARIABLE) or (known if known != "ROAMING" else queue.site or queue.name)
    return event, site, site


def create_trace_report(
    job: JobRun, label: str = "stage-in", environ: Mapping[str, str] = os.environ
) -> dict[str, Json]:
    """The base of the traces of one stage-in or stage-out. label: stage-in or stage-out."""
    event, site, _ = get_trace_report_variables(job, label, environ)
    user = job.data.produserid
    return trace_base(
        event,
        site,
        appid=job.jobid,
        taskid=job.data.taskid,
        pq=job.infosys.queuedata.name,
        hostname=get_node_name(environ),
        usrdn=user,
        # Statistics count users by this name. Not for security.
        usr=hashlib.md5(user.encode(), usedforsecurity=False).hexdigest(),
    )
