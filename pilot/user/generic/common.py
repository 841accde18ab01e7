"""Generic experiment: what the payload's command is, and what the log tarball leaves out."""

from __future__ import annotations

import os
import posixpath
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Union

from pilot.common.orders import UTILITY_AFTER_PAYLOAD_STARTED
from pilot.info.filespec import REMOTE_IO, FileSpec, is_pattern
from pilot.info.jobdata import JobData
from pilot.util.https import Json

# What get_utility_commands may answer: {"command", "args", "label", "ignore_failure"}, or several of them.
Utilities = Union[dict[str, Json], Sequence[dict[str, Json]], None]

# Transformations of the field that look TURLs up in PoolFileCatalog.xml themselves when they are told to.
_LOOKS_UP = re.compile(r"run(Gen|Athena|Merge)\b")
_LOOK_UP = ("--usePFCTurl", "--directIn")
# A TURL of these characters means the same with and without a shell's quotes around it.
_PLAIN = re.compile(r"[A-Za-z0-9@%+=:,./_~-]+\Z")


def sanity_check() -> int:
    """Whether this node has what the experiment needs: 0, or the error code with which the pilot ends at once."""
    return 0


def allow_timefloor(submitmode: str) -> bool:
    """Whether one pilot may run several jobs. submitmode: PULL or PUSH, from --harvester-submit-mode."""
    return True


def verify_job(job: JobData) -> bool:
    """Whether the experiment takes a job that has just come. It may raise PilotException with a code of its own."""
    return True


def validate(job: JobData) -> bool:
    """Whether all is there that the payload needs. It may raise PilotException with a code of its own."""
    return True


def update_job_data(job: JobData) -> None:
    """Called after the payload's end, once its job report was read: the last chance to change outdata."""


def update_server(job: JobData) -> None:
    """Called after stage-out, before the final update: for what the experiment's own services want to know."""


def get_metadata(workdir: str) -> str:
    """The JSON object that is sent as metaData of a job without a job report; empty for none."""
    return ""


def process_debug_command(debug_command: str, pandaid: str) -> str:
    """A server's command, changed before it is looked at. `gdb --pid %` needs no change: the pilot knows the pid."""
    return debug_command


def remove_redundant_files(
    workdir: str, outputfiles: Sequence[str] = (), islooping: bool = False, debugmode: bool = False
) -> None:
    """Called before the log is made, to remove what is not worth to be in it. Here get_redundants is enough.

    outputfiles: names that are outputs; islooping: the payload was ended because it was hung; debugmode: its user is
    looking for a fault.
    """


def get_payload_command(job: JobData, transformation: str) -> str:
    """The command that the shell runs for a job.

    transformation: how the transformation is called on this node ("./runGen-00-00-02", or a command that is there).
    The job's parameters follow it as they came: they are the user's text. Only for inputs that are read where they lie
    something is changed: runGen and its like are told to look into PoolFileCatalog.xml, and in the parameters of others
    the TURL stands for the name.
    """
    if job.containeroptions.get("containerExec"):
        # A job of several steps has its own command for the container; its transformation is for those around it.
        return job.containeroptions["containerExec"]
    parameters = job.jobparams
    if job.has_remoteio():
        if _LOOKS_UP.match(posixpath.basename(transformation)):
            parameters = " ".join([parameters, *(option for option in _LOOK_UP if option not in parameters.split())])
        else:
            parameters = replace_lfns_with_turls(parameters, job.indata)
    return f"{transformation} {parameters}".strip()


def get_analysis_run_command(job: JobData, trf_name: str) -> str:
    """The same, under the name that the documents have for users' jobs."""
    return get_payload_command(job, trf_name)


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


def get_utility_commands(order: str | None = None, job: JobData | None = None) -> Utilities:
    """The experiment's utilities for a moment (pilot.common.orders); None: those that run beside the payload.

    Here there are none. The memory monitor is the pilot's own, and what a job asks for around its payload (preprocess,
    coprocess, postprocess) is run without being named here.
    """
    return None


def get_utility_command_setup(name: str, setup: str | None = None, job: JobData | None = None) -> str:
    """The whole command of a utility for the shell, by its name; empty: what get_utility_commands has said."""
    return ""


def get_utility_command_execution_order(name: str) -> str:
    """Whether a utility that runs beside the payload starts before it, or once it has started."""
    return UTILITY_AFTER_PAYLOAD_STARTED


def get_utility_command_kill_signal(name: str) -> int:
    """The signal that ends a utility; one that is left after utility_grace is killed."""
    return signal.SIGTERM


def get_utility_command_output_filename(name: str, selector: bool | None = None) -> str:
    """The file in the job's directory that takes what a utility says; empty: <name>_stdout.txt."""
    return ""


def post_utility_command_action(name: str, job: JobData) -> None:
    """Called when a utility has ended."""


def post_prestagein_utility_command(**kwargs: str) -> None:
    """Called when a utility that ran beside stage-in has ended. label: its name; output: path of what it has said."""


def update_output_for_hpo(job: JobData, workdir: str) -> None:
    """Make the outputs of a job that tries hyperparameter points those of its points: `<name>_0`, `<name>_1` ...

    A name that none of them has made stays, and is missed at stage-out. workdir: the job's directory.
    """
    found: list[FileSpec] = []
    for spec in job.outdata:
        names = [] if is_pattern(spec.lfn) else discover_new_output(spec.lfn, workdir)
        found += [FileSpec(name, "output", spec.scope, "", spec.dataset, spec.ddmendpoint) for name in names] or [spec]
    job.outdata = found


def discover_new_output(name_pattern: str, workdir: str) -> list[str]:
    """Files in a directory that are called `<name>_N`, by their numbers."""
    numbered = re.compile(rf"{re.escape(name_pattern)}_(0|[1-9][0-9]{{0,8}})\Z")
    found = [(int(match.group(1)), match.group()) for match in map(numbered.match, os.listdir(workdir)) if match]
    return [name for _, name in sorted(found) if Path(workdir, name).is_file()]


def get_redundants() -> tuple[str, ...]:
    """Names in a job's directory that never go into the log tarball: large or meaningless outside it."""
    return ("panda_secrets.json", "tmp", "__pycache__", ".cache")
