"""Generic experiment: what the payload's command is, and what the log tarball leaves out."""

from __future__ import annotations

import posixpath
import re

from pilot.info.filespec import REMOTE_IO, FileSpec
from pilot.info.jobdata import JobData

# Transformations of the field that look TURLs up in PoolFileCatalog.xml themselves when they are told to.
_LOOKS_UP = re.compile(r"run(Gen|Athena|Merge)\b")
_LOOK_UP = ("--usePFCTurl", "--directIn")
# A TURL of these characters means the same with and without a shell's quotes around it.
_PLAIN = re.compile(r"[A-Za-z0-9@%+=:,./_~-]+\Z")


def get_payload_command(job: JobData, transformation: str) -> str:
    """The command that the shell runs for a job.

    transformation: how the transformation is called on this node ("./runGen-00-00-02", or a command that is there).
    The job's parameters follow it as they came: they are the user's text. Only for inputs that are read where they lie
    something is changed: runGen and its like are told to look into PoolFileCatalog.xml, and in the parameters of others
    the TURL stands for the name.
    """
    parameters = job.jobparams
    if job.has_remoteio():
        if _LOOKS_UP.match(posixpath.basename(transformation)):
            parameters = " ".join([parameters, *(option for option in _LOOK_UP if option not in parameters.split())])
        else:
            parameters = replace_lfns_with_turls(parameters, job.indata)
    return f"{transformation} {parameters}".strip()


def replace_lfns_with_turls(cmd: str, infiles: list[FileSpec]) -> str:
    """Put the TURL in the place of the name of each input that is read where it lies, wherever it is a word of its own.

    A TURL with characters that mean something to a shell is left out: the payload finds it in PoolFileCatalog.xml.
    """
    turls = {spec.lfn: spec.turl for spec in infiles if spec.status == REMOTE_IO and _PLAIN.match(spec.turl)}
    if not turls:
        return cmd
    names = "|".join(re.escape(name) for name in sorted(turls, key=len, reverse=True))
    # A name inside a longer one, or at the end of a path, is another file.
    word = re.compile(rf"(?<![\w./+~#%-])({names})(?![\w+~#%-]|\.\w)")
    return word.sub(lambda found: turls[found.group(1)], cmd)


def update_stagein(job: JobData) -> None:
    """Nothing is on every node already: all inputs are brought in."""


def outputs_from_report(job: JobData) -> bool:
    """Whether files that only the job report names (files.output) are outputs of the job, too.

    So it is when the definition names no output at all: then nobody else says what they are. A pattern among the
    outputs needs no report.
    """
    return not job.outdata


def get_redundants() -> tuple[str, ...]:
    """Names in a job's directory that never go into the log tarball: large or meaningless outside it."""
    return ("panda_secrets.json", "tmp", "__pycache__", ".cache", ".container")
