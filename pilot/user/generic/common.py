"""Generic experiment: what the payload's command is, and what the log tarball leaves out."""

from __future__ import annotations

from pilot.info.jobdata import JobData


def get_payload_command(job: JobData, transformation: str) -> str:
    """The command that the shell runs for a job.

    transformation: how the transformation is called on this node ("./runGen-00-00-02", or a command that is there).
    The job's parameters follow it as they came: they are the user's text.
    """
    return f"{transformation} {job.jobparams}".strip()


def outputs_from_report(job: JobData) -> bool:
    """Whether files that only the job report names (files.output) are outputs of the job, too.

    So it is when the definition names no output at all: then nobody else says what they are. A pattern among the
    outputs needs no report.
    """
    return not job.outdata


def get_redundants() -> tuple[str, ...]:
    """Names in a job's directory that never go into the log tarball: large or meaningless outside it."""
    return ("panda_secrets.json", "tmp", "__pycache__", ".cache")
