"""Who has a job: the fence in front of everything that pilots say of one (promise S2)."""

from __future__ import annotations

from server.db.jobs import LiveJob
from server.logic.context import Identity, Role


def has_job(job: LiveJob, claim: str, identity: Identity) -> bool:
    """Whether a caller is the one who has the job now. claim: under which it says so; empty for pilots that know none.

    Of a job that was claimed with a token, only that token's holders and operators may speak.
    """
    return (not claim or claim == job.claimID) and is_claimant(job.claimedBy, identity)


def is_claimant(name: str | None, identity: Identity) -> bool:
    """Whether a caller may speak of what was claimed under a name; empty or None for an open server."""
    return not name or identity.name in ("", name) or Role.OPERATOR in identity.roles
