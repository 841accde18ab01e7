"""What the credential of a pilot is bound to (promise S1)."""

from __future__ import annotations

from dataclasses import replace

from server.logic.context import Identity
from server.logic.errors import NotAllowed
from server.logic.matching import JobRequest
from server.logic.names import shown


def bound(request: JobRequest, identity: Identity) -> JobRequest:
    """A request for jobs as its caller may make it: one that names no label gets that of the credential.

    Raises:
        NotAllowed: the credential is for another queue or label.
    """
    if identity.queue and request.queue != identity.queue:
        raise NotAllowed(f"Your credential is for jobs of queue {identity.queue}, not of {shown(request.queue)}.")
    if not identity.label or request.label == identity.label:
        return request
    if request.label:
        raise NotAllowed(f"Your credential is for jobs with label {identity.label}, not {shown(request.label)}.")
    return replace(request, label=identity.label)
