"""A job as its submitter wrote it: the friendly form, or getJob's own names, checked field by field.

Nothing here knows the database: whether a name is taken or an input exists is decided in `submission`.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from server.logic import jobfiles
from server.logic.definition import DEFINITION_DEFAULTS, OPTIONAL_KEYS, SERVER_MARK
from server.logic.errors import BadJob
from server.logic.eventform import EventForm, read_events
from server.logic.hardware import complaint_about_hardware, hardware_wanted
from server.logic.jobfiles import InputSpec, OutputSpec
from server.logic.matching import ANY_LABEL
from server.logic.names import (
    complaint_about_file,
    complaint_about_queue,
    complaint_about_scope,
    has_control_characters,
    scope_of,
    shown,
)

#: The script that runs a friendly job's command on the worker node (client.md 1.3).
RUNGEN = f"{SERVER_MARK}/trf/user/runGen-00-00-02"
#: A pilot hands the job parameters to a shell as one argument, and Linux takes 128 KiB in one (MAX_ARG_STRLEN).
PARAMETERS_LENGTH = 100_000
#: Longest other text, in characters.
TEXT_LENGTH = 1000
USER_LENGTH = 128
DEFAULT_USER = "user"

#: Friendly name -> getJob's own.
FRIENDLY = {
    "queue": "computingSite",
    "user": "prodUserName",
    "name": "jobName",
    "label": "prodSourceLabel",
    "cores": "coreCount",
    "memory": "minRamCount",
    "disk": "maxDiskCount",
    "walltime": "maxWalltime",
    "priority": "currentPriority",
    "max_attempts": "maxAttempt",
    "vo": "VO",
}
_SHORT = {own: short for short, own in FRIENDLY.items()}
#: Whole numbers: default, least, most. Memory and disk are MB, times are s; PanDA allows 50 attempts.
_NUMBERS = {
    "coreCount": (1, 1, 100_000),
    "minRamCount": (0, 0, 10**9),
    "maxDiskCount": (0, 0, 10**9),
    "maxWalltime": (0, 0, 10**9),
    "currentPriority": (1000, -(10**6), 10**6),
    "maxAttempt": (1, 1, 50),
    "taskID": (0, 0, 2**62),
    "jobsetID": (0, 0, 2**62),
}
_DEFINITION_NUMBERS = {key: (value, 0, 10**9) for key, value in DEFINITION_DEFAULTS.items() if isinstance(value, int)}
#: Texts that are columns: default and longest.
_COLUMN_TEXTS = {
    "jobName": ("", 255),
    "prodSourceLabel": (ANY_LABEL, 20),
    "processingType": ("pilotkit", 64),
    "workingGroup": ("", 64),
    "VO": ("", 16),
    "countryGroup": ("", 64),
    "resource_type": ("", 16),
}
_DEFINITION_TEXTS = frozenset(key for key, value in DEFINITION_DEFAULTS.items() if isinstance(value, str)) - {
    "jobPars",
    "transformation",
    "prodUserID",
} | {"campaign"}
#: Longest description of the hardware a job needs, as its column has it.
_HARDWARE_LENGTH = 128
#: What only this server may set. A definition that some server gave out can be submitted as it is.
_OURS = frozenset({"PandaID", "StatusCode", "attemptNr", "nSent", "claim_id", "lease_end", "next_heartbeat"})
_FRIENDLY_ONLY = frozenset({"command", "sandbox", "environment", "scope", "inputs", "outputs", "events"})
_KNOWN = (
    frozenset(FRIENDLY)
    | frozenset(FRIENDLY.values())
    | frozenset(_NUMBERS)
    | frozenset(_COLUMN_TEXTS)
    | frozenset(DEFINITION_DEFAULTS)
    | OPTIONAL_KEYS
    | _OURS
    | _FRIENDLY_ONLY
    | jobfiles.KEYS
    | {"debug", "campaign"}
)

#: How jobPars say what is packed into which archive: <ZIP_MAP>out.zip:file1,file2</ZIP_MAP>.
_ZIP_MAP = re.compile(r"<ZIP_MAP>([^<]*)</ZIP_MAP>")


@dataclass
class JobForm:
    """A checked job.

    Attributes:
        index: its place in the submission.
        queue: panda queue.
        user: whose it is.
        numbers: columns of `jobs` that are whole numbers.
        texts: columns of `jobs` that are texts.
        definition: what else a pilot is given.
        outputs: its outputs, without the log.
        log: its log; an empty LFN means one made of the PandaID.
        inputs: its inputs.
        command: the shell text of a friendly job; None if the job names its own transformation.
        environment: what is set for the command.
        sandbox: file of the sandbox cache.
        events: how its events are cut into ranges; None if it brings none.
        merge: the job that merges them, as it would be if it were submitted now (`mergeform`).
    """

    index: int
    queue: str
    user: str
    numbers: dict[str, int]
    texts: dict[str, str]
    definition: dict[str, object]
    outputs: list[OutputSpec]
    log: OutputSpec
    inputs: list[InputSpec]
    debug: bool = False
    command: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    sandbox: str = ""
    events: EventForm | None = None
    merge: JobForm | None = None

    def fail(self, name: str, why: str) -> BadJob:
        """The error of a field of this job."""
        return BadJob(self.index, name, why)


class _Reader:
    """Takes fields of one submitted job by getJob's own name or the friendly one, and remembers which it was."""

    def __init__(self, index: int, job: Mapping[str, object]) -> None:
        self.index = index
        self.job = job

    def spelled(self, name: str) -> str:
        """The name the submitter used; the field's own name wins over the friendly one."""
        return name if name in self.job else _SHORT.get(name, name)

    def fail(self, name: str, why: str) -> BadJob:
        return BadJob(self.index, self.spelled(name), why)

    def text(self, name: str, default: str, length: int, *, control: bool = False) -> str:
        """A text without control characters (newline and tab are fine with `control`)."""
        value = self.job.get(self.spelled(name))
        if value is None or value == "NULL":
            return default
        if not isinstance(value, str):
            raise self.fail(name, f"must be a text, not {shown(value)}")
        if len(value) > length:
            raise self.fail(name, f"is too long: {len(value)} characters, {length} is the most")
        checked = value.replace("\n", "").replace("\t", "") if control else value
        if has_control_characters(checked):
            what = "NUL or another control character" if control else "a control character (NUL, newline ...)"
            raise self.fail(name, f"must not have {what} in it: {shown(value)}")
        if not value.isascii() and not _is_unicode(value):
            raise self.fail(name, f"is no valid Unicode text: {shown(value)}")
        return value

    def number(self, name: str, default: int, least: int, most: int) -> int:
        value = self.job.get(self.spelled(name))
        if value is None or value == "NULL":
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(name, f"must be a whole number, not {shown(value)}")
        if not least <= value <= most:
            raise self.fail(name, f"must be between {least} and {most}, not {shown(value)}")
        return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON may smuggle it in
        return False
    return True


def read_job(index: int, job: object, default_user: str) -> JobForm:
    """Check a submitted job.

    Args:
        index: its place in the submission, for messages.
        default_user: whose job it is if it does not say.

    Raises:
        BadJob: with the field that is wrong, as the submitter spelled it.
    """
    if not isinstance(job, dict):
        raise BadJob(index, "", f"must be an object like {{'queue': ..., 'command': ...}}, not {shown(job)}")
    for key in job:
        if key not in _KNOWN:
            near = difflib.get_close_matches(str(key), _KNOWN, n=1)
            raise BadJob(
                index, shown(key).strip("'"), "is not known" + (f"; did you mean '{near[0]}'?" if near else "")
            )
    reader = _Reader(index, job)
    queue = reader.text("computingSite", "", TEXT_LENGTH)
    if complaint := complaint_about_queue(queue):
        raise reader.fail("computingSite", complaint if queue else "is missing: which queue shall the job run in?")
    user = reader.text("prodUserName", reader.text("prodUserID", default_user, USER_LENGTH), USER_LENGTH)
    scope = reader.text("scope", scope_of(user), TEXT_LENGTH)
    if complaint := complaint_about_scope(scope):
        raise reader.fail("scope", complaint)
    outputs, log = jobfiles.read_outputs(index, job, scope)
    form = JobForm(
        index=index,
        queue=queue,
        user=user,
        numbers={name: reader.number(name, *limits) for name, limits in _NUMBERS.items()},
        texts={name: reader.text(name, *limits) for name, limits in _COLUMN_TEXTS.items()},
        definition=_definition(reader, user),
        outputs=outputs,
        log=log,
        inputs=jobfiles.read_inputs(index, job, scope),
        debug=_flag(reader, "debug"),
    )
    _read_events(reader, form)
    _read_command(reader, form)
    form.texts["architecture"] = _hardware(reader)
    return form


def _hardware(reader: _Reader) -> str:
    """What the job needs, from its cmtConfig."""
    wanted = hardware_wanted(reader.text("cmtConfig", "", TEXT_LENGTH))
    if complaint := complaint_about_hardware(wanted):
        raise reader.fail("cmtConfig", complaint)
    if len(wanted) > _HARDWARE_LENGTH:
        raise reader.fail("cmtConfig", f"says more of the hardware than {_HARDWARE_LENGTH} characters")
    return wanted


def _definition(reader: _Reader, user: str) -> dict[str, object]:
    definition: dict[str, object] = {"prodUserID": reader.text("prodUserID", user, USER_LENGTH)}
    for name in _DEFINITION_TEXTS:
        if name in reader.job:
            definition[name] = reader.text(name, "NULL", TEXT_LENGTH)
    for name, limits in _DEFINITION_NUMBERS.items():
        if name in reader.job:
            definition[name] = reader.number(name, *limits)
    for name in OPTIONAL_KEYS & reader.job.keys():
        value = reader.job[name]
        if isinstance(value, bool):
            value = str(value) if name != "loopingCheck" else value
        elif name != "loopingCheck" or not isinstance(value, str):
            value = reader.text(name, "", PARAMETERS_LENGTH, control=True)
        definition[name] = value
    return definition


def _read_events(reader: _Reader, form: JobForm) -> None:
    """The event ranges that the job brings; it is a job of the event service then."""
    found = read_events(reader.job.get("events"))
    if isinstance(found, str):
        raise form.fail("events", found)
    if found is not None:
        form.events = found
        form.definition["eventService"] = "True"


def _read_command(reader: _Reader, form: JobForm) -> None:
    """What is run: a friendly command through runGen, or the job's own transformation and parameters."""
    transformation = reader.text("transformation", "", TEXT_LENGTH)
    parameters = reader.text("jobPars", "", PARAMETERS_LENGTH, control=True)
    _mark_packed(form.outputs, parameters)
    if str(form.definition.get("isHPO")).lower() == "true":
        # What is stored is NAME_0, NAME_1 ...: how many there will be is known only at the job's end.
        for output in form.outputs:
            output.wire["points"] = "True"
    command = reader.text("command", "", PARAMETERS_LENGTH, control=True)
    form.sandbox = reader.text("sandbox", "", TEXT_LENGTH)
    if form.sandbox and (complaint := complaint_about_file(form.sandbox)):
        raise form.fail("sandbox", complaint)
    form.environment = _environment(reader)
    if transformation:
        form.definition |= {"transformation": transformation, "jobPars": parameters}
        return
    if not command.strip():
        raise form.fail("command", "is missing: what shall the job run?")
    form.command = command
    form.definition |= {"transformation": RUNGEN}
    if parameters:
        form.definition["jobPars"] = parameters
        form.command = None


def _mark_packed(outputs: Sequence[OutputSpec], parameters: str) -> None:
    """Note which outputs the pilot packs into another one, so that nobody expects them to be stored."""
    packed: dict[str, str] = {}
    for archives in _ZIP_MAP.findall(parameters):
        for archive in archives.split():
            name, _, members = archive.partition(":")
            packed |= dict.fromkeys(members.split(","), name)
    for output in outputs:
        if output.lfn in packed:
            output.wire["packed"] = packed[output.lfn]


def _environment(reader: _Reader) -> dict[str, str]:
    value = reader.job.get("environment")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise reader.fail("environment", f"must be an object of variables and their values, not {shown(value)}")
    for name, text in value.items():
        if not name.isidentifier() or not name.isascii():
            raise reader.fail("environment", f"{shown(name)} cannot be the name of a variable")
        if not isinstance(text, str) or has_control_characters(text) or not _is_unicode(text):
            raise reader.fail("environment", f"{name} must be a text without control characters, not {shown(text)}")
    return value


def _flag(reader: _Reader, name: str) -> bool:
    value = reader.job.get(name)
    if value in (None, "", "False", "false", "NULL", False):
        return False
    if value in ("True", "true", True):
        return True
    raise reader.fail(name, f"must be true or false, not {shown(value)}")


def parameters_of(form: JobForm, outputs: Mapping[str, str], inputs: Mapping[str, str]) -> str:
    """The job parameters of a friendly job: what runGen is called with.

    Args:
        outputs: local name -> LFN.
        inputs: LFN -> name the command expects.

    Raises:
        BadJob: they are too long for a command line.
    """
    lines = [f"export {name}={shlex.quote(value)}" for name, value in form.environment.items()]
    lines += [f"ln -sf {shlex.quote(lfn)} {shlex.quote(local)}" for lfn, local in inputs.items() if lfn != local]
    command = "\n".join([*lines, form.command or ""])
    parts = ['-j ""', f"--sourceURL {SERVER_MARK}", "-r ."]
    if form.sandbox:
        parts.append(f"-a {form.sandbox}")
    if inputs:
        parts.append(f'-i "{list(inputs)!r}"')
    parts.append(f'-o "{dict(outputs)!r}"')
    parts.append(f'-p "{quote(command)}"')
    parameters = " ".join(parts)
    if len(parameters) > PARAMETERS_LENGTH:
        raise form.fail(
            "command",
            f"is too long: {len(parameters)} characters once it is packed for a command line, {PARAMETERS_LENGTH} is "
            "the most. Put it into a script in the sandbox.",
        )
    return parameters
