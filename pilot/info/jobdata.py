"""The definition of a job: here alone the dispatcher's fields (wire.md, section 4) become a job's attributes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import ClassVar

from pilot.common.exception import ConversionFailure, NotDefined, NotSameLength, PilotException
from pilot.info.basedata import BaseData, printable
from pilot.info.filespec import LFN_LIMIT, FileSpec, check_endpoint, check_lfn, check_scope, parse_checksum
from pilot.info.jobextras import is_command, read_command, read_container_options, read_lists, read_secrets
from pilot.info.jobfiles import JobFiles
from pilot.info.joboptions import JobOptions
from pilot.info.zipmap import Archive, read_zipmap, take_zipmap
from pilot.util.https import Json

# PandaIDs are 64-bit numbers in the databases of the field.
_PANDAID = re.compile(r"[1-9][0-9]{0,18}\Z")
_ATTEMPT = re.compile(r"[0-9]{1,9}\Z")
_BYTES = re.compile(r"[0-9]{1,19}\Z")
# Claims of our server are GUIDs.
_CLAIM = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
# Linux takes at most 128 KiB for one argument of a program, and the payload's command is one argument of the shell.
COMMAND_LIMIT = 131071
# Job parameters may hold more than the command: settings for the pilot, which are taken out. No job needs so much.
_PARAMETERS_LIMIT = 8 * COMMAND_LIMIT
# Larger than any file (1 EiB); a number beyond it is a mistake.
_SIZE_LIMIT = 2**60

_OUTSIDE_NAMES = {
    "taskid": "taskID", "jobparams": "jobPars", "corecount": "coreCount", "platform": "cmtConfig",
    "attemptnr": "attemptNr", "processingtype": "processingType", "transfertype": "transferType",
    "destinationdblock": "destinationDblock", "noexecstrcnv": "noExecStrCnv", "swrelease": "swRelease",
    "jobsetid": "jobsetID", "produserid": "prodUserID", "jobdefinitionid": "jobDefinitionID",
    "writetofile": "writeToFile", "is_eventservice": "eventService", "is_eventservicemerge": "eventServiceMerge",
    "is_hpo": "isHPO", "use_vp": "useVP", "maxcpucount": "maxCpuCount", "maxdiskcount": "maxDiskCount",
    "minramcount": "minRamCount", "maxwalltime": "maxWalltime", "allownooutput": "allowNoOutput",
    "imagename_jobdef": "container_name", "looping_check": "loopingCheck", "prodsourcelabel": "prodSourceLabel",
    "jobname": "jobName", "claim": "claim_id",
}  # fmt: skip


class JobData(JobFiles, JobOptions, BaseData):
    """One job as its dispatcher defined it.

    maxwalltime: seconds; maxdiskcount, minramcount: MB; maxcpucount: seconds (0: no limit).
    indata, outdata, logdata: its files. archives: those of its outputs that the pilot packs (ZIP_MAP).
    overwrite_queuedata, overwrite_storagedata: settings that the job changes. preprocess, coprocess, postprocess:
    commands around the payload, {"command": ..., "args": ...}. secrets: the user's, which nothing shows. lists: files
    that the pilot writes (writeToFile), with what is to be in each.
    """

    _keys: ClassVar[dict[type, tuple[str, ...]]] = {
        int: ("corecount", "attemptnr", "maxcpucount", "maxdiskcount", "minramcount", "maxwalltime"),
        str: (
            "taskid", "jobparams", "transformation", "destinationdblock", "platform", "produserid", "jobdefinitionid",
            "jobname", "homepackage", "jobsetid", "processingtype", "swrelease", "imagename_jobdef", "transfertype",
            "writetofile", "allownooutput", "prodsourcelabel", "claim",
        ),
        bool: (
            "is_eventservice", "is_eventservicemerge", "is_hpo", "noexecstrcnv", "debug", "use_vp", "looping_check",
        ),
    }  # fmt: skip

    jobid: str = ""
    taskid: str = ""
    jobparams: str = ""
    transformation: str = ""
    destinationdblock: str = ""
    platform: str = ""
    produserid: str = ""
    jobdefinitionid: str = ""
    jobname: str = ""
    homepackage: str = ""
    jobsetid: str = ""
    processingtype: str = ""
    swrelease: str = ""
    imagename: str = ""
    imagename_jobdef: str = ""
    accessmode: str = ""
    transfertype: str = ""
    writetofile: str = ""
    allownooutput: str = ""
    prodsourcelabel: str = ""
    zipmap: str = ""
    claim: str = ""
    corecount: int = 1
    attemptnr: int = 0
    maxcpucount: int = 0
    maxdiskcount: int = 0
    minramcount: int = 0
    maxwalltime: int = 0
    is_eventservice: bool = False
    is_eventservicemerge: bool = False
    is_hpo: bool = False
    noexecstrcnv: bool = False
    debug: bool = False
    use_vp: bool = False
    looping_check: bool = True

    def __init__(self, data: Mapping[str, Json], *, lfn_limit: int = LFN_LIMIT) -> None:
        """Take a job definition.

        Raises PilotException, with the field's name in its text: NOTDEFINED (missing), CONVERSIONFAILURE (mistyped or
        hostile), NOTSAMELENGTH (lists that do not match), LFNTOOLONG, BADOUTPUTFILENAME.
        """
        self._lfn_limit = lfn_limit
        self.indata: list[FileSpec] = []
        self.outdata: list[FileSpec] = []
        self.logdata: list[FileSpec] = []
        self.archives: list[Archive] = []
        self.overwrite_queuedata: dict[str, Json] = {}
        self.overwrite_storagedata: dict[str, Json] = {}
        self.jobid = job_identity(data)[0]
        self._load_data(data, self.get_kmap())
        self.set_accessmode()
        self.preprocess = read_command(data.get("preprocess"), "preprocess")
        self.coprocess = read_command(data.get("coprocess"), "coprocess")
        self.postprocess = read_command(data.get("postprocess"), "postprocess")
        self.containeroptions = read_container_options(data.get("containerOptions"))
        self.secrets = read_secrets(data.get("secrets"))
        self.lists = self.process_writetofile()
        self.prepare_logfile(data)
        self.prepare_infiles(data)
        self.prepare_outfiles(data)
        self.prepare_archives()
        if not self.transformation:
            raise NotDefined("field transformation is missing: the job does not say what to run")
        if len(self.jobparams.encode("utf-8", "surrogateescape")) > COMMAND_LIMIT - len(self.transformation) - 64:
            raise ConversionFailure(
                f"field jobPars: {len(self.jobparams)} characters; a command may have {COMMAND_LIMIT}"
            )

    @classmethod
    def refused(cls, data: Mapping[str, Json], jobid: str, attempt: int) -> JobData:
        """What is left of a bad definition: enough to report on it, and its log file if that much of it is good."""
        job = cls.__new__(cls)
        job._lfn_limit = LFN_LIMIT
        job.indata, job.outdata, job.logdata, job.archives = [], [], [], []
        job.overwrite_queuedata, job.overwrite_storagedata = {}, {}
        job.preprocess, job.coprocess, job.postprocess, job.containeroptions = {}, {}, {}, {}
        job.secrets, job.lists = {}, {}
        job.jobid, job.attemptnr = jobid, attempt
        with suppress(PilotException):
            job.claim = job.clean__claim(None, _text(data, "claim_id"))
            job.prepare_logfile(data)
        return job

    def clean__claim(self, raw: Json, value: str) -> str:
        """The claim travels as a header, so it must be one word."""
        if value and not _CLAIM.match(value):
            raise ConversionFailure(f"field claim_id: {value[:60]!r} is no claim")
        return value

    def clean__corecount(self, raw: Json, value: int) -> int:
        """An unset core count means one core."""
        return max(value, 1)

    def clean__transformation(self, raw: Json, value: str) -> str:
        """The transformation is a URL or a command name, and nothing that a shell could read as more."""
        if value and not is_command(value):
            raise ConversionFailure(f"field transformation: {value[:60]!r} is neither a URL nor a command")
        return value

    def clean__jobparams(self, raw: Json, value: str) -> str:
        """Take out what is meant for the pilot and not for the payload (pilot.md, section 3, step 5)."""
        if len(value) > _PARAMETERS_LIMIT:
            raise ConversionFailure(f"field jobPars: {len(value)} characters; {_PARAMETERS_LIMIT} are allowed")
        value, self.overwrite_queuedata = _take_object(value, "--overwriteQueueData=")
        value, self.overwrite_storagedata = _take_object(value, "--overwriteStorageData=")
        value, self.imagename = self.extract_container_image(value)
        value, self.zipmap = take_zipmap(value)
        return value.strip()

    @staticmethod
    def get_kmap() -> dict[str, str]:
        """The server's names of those attributes that have another here."""
        return dict(_OUTSIDE_NAMES)

    @staticmethod
    def extract_container_image(jobparams: str) -> tuple[str, str]:
        """Job parameters without --containerImage=NAME, and that name, empty if there is none."""
        return _take_word(jobparams, re.compile(r"--containerImage=('[^']*'|\"[^\"]*\"|\S+)"))

    def is_analysis(self) -> bool:
        """Whether this is a job of a user, whose lost outputs the server may recover."""
        return self.prodsourcelabel in ("user", "panda") or self.transformation.startswith(("http://", "https://"))

    def process_writetofile(self) -> dict[str, list[str]]:
        """Files that the payload finds, by name, with the names that are to be in each. Raises PilotException."""
        return read_lists(self.writetofile, self._lfn_limit)

    def prepare_infiles(self, data: Mapping[str, Json]) -> None:
        """Fill indata from the positional lists of input files. Raises PilotException."""
        lfns = _names(data, "inFiles")
        count = len(lfns)
        scopes, guids = _column(data, "scopeIn", count), _column(data, "GUID", count)
        sizes, checksums = _column(data, "fsize", count), _column(data, "checksum", count)
        endpoints, datasets = _column(data, "ddmEndPointIn", count), _column(data, "realDatasetsIn", count)
        tokens, wanted = _tokens(data, count), self.access_wanted()
        for number, lfn in enumerate(lfns):
            spec = FileSpec(
                lfn=check_lfn(lfn, "inFiles", self._lfn_limit, output=False),
                scope=check_scope(scopes[number], "scopeIn"),
                guid=guids[number],
                dataset=datasets[number],
                ddmendpoint=check_endpoint(endpoints[number], "ddmEndPointIn"),
                filesize=_size(sizes[number]),
                checksum=parse_checksum(checksums[number], "checksum"),
                storage_token=tokens[number],
                accessmode=wanted,
            )
            self.indata.append(spec)
        _refuse_repeated(self.indata, "inFiles")

    def prepare_logfile(self, data: Mapping[str, Json]) -> None:
        """Fill logdata; a job without a log file has none. Raises PilotException."""
        name = _text(data, "logFile")
        if not name:
            return
        lfns = _names(data, "outFiles")
        position = lfns.index(name) if name in lfns else None
        endpoints = _column(data, "ddmEndPointOut", len(lfns))
        datasets = _column(data, "realDatasets", len(lfns))
        self.logdata = [
            FileSpec(
                lfn=check_lfn(name, "logFile", self._lfn_limit, output=True),
                filetype="log",
                scope=check_scope(_text(data, "scopeLog"), "scopeLog"),
                guid=_text(data, "logGUID"),
                dataset="" if position is None else datasets[position],
                ddmendpoint="" if position is None else check_endpoint(endpoints[position], "ddmEndPointOut"),
            )
        ]

    def prepare_outfiles(self, data: Mapping[str, Json]) -> None:
        """Fill outdata from the positional lists, which hold the log too (but for scopeOut). Raises PilotException."""
        lfns = _names(data, "outFiles")
        log = self.logdata[0].lfn if self.logdata else ""
        endpoints, datasets = _column(data, "ddmEndPointOut", len(lfns)), _column(data, "realDatasets", len(lfns))
        outputs = [number for number, lfn in enumerate(lfns) if lfn != log]
        scopes = _output_scopes(data, outputs, len(lfns))
        for scope, number in zip(scopes, outputs):
            spec = FileSpec(
                lfn=check_lfn(lfns[number], "outFiles", self._lfn_limit, output=True, pattern=True),
                filetype="output",
                scope=check_scope(scope, "scopeOut"),
                dataset=datasets[number],
                ddmendpoint=check_endpoint(endpoints[number], "ddmEndPointOut"),
            )
            self.outdata.append(spec)
        _refuse_repeated(self.outdata, "outFiles")

    def prepare_archives(self) -> None:
        """Fill archives; what goes into one is no output of its own. Raises PilotException."""
        self.archives = read_zipmap(self.zipmap, {spec.lfn for spec in self.outdata}, self._lfn_limit)
        members = {name for archive in self.archives for name in archive.members}
        self.outdata = [spec for spec in self.outdata if spec.lfn not in members]


def job_identity(data: Mapping[str, Json]) -> tuple[str, int]:
    """PandaID and attempt number, without which nothing can be reported. Raises NotDefined or ConversionFailure."""
    if data.get("PandaID") in (None, "", "NULL"):
        raise NotDefined("field PandaID is missing")
    jobid = str(data["PandaID"])
    if not _PANDAID.match(jobid):
        raise ConversionFailure(f"field PandaID: {jobid[:60]!r} is no job number")
    attempt = str(data.get("attemptNr"))
    return jobid, int(attempt) if _ATTEMPT.match(attempt) else 0


def _text(data: Mapping[str, Json], name: str) -> str:
    raw = data.get(name)
    if raw is None or raw in ("NULL", "None"):
        return ""
    if not isinstance(raw, (str, int, float)) or isinstance(raw, bool):
        raise ConversionFailure(f"field {name}: a text is needed, but it is {type(raw).__name__}")
    return printable(str(raw), name)


def _names(data: Mapping[str, Json], name: str) -> list[str]:
    """A comma-joined list of file names; empty when there are none. Raises NotDefined for an empty name."""
    if not isinstance(data.get(name) or "", str):
        raise ConversionFailure(f"field {name}: a text with names is needed, but it is {type(data[name]).__name__}")
    text = _text(data, name)
    if not text:
        return []
    items = text.split(",")
    if not all(items):
        raise NotDefined(f"field {name}: one of the {len(items)} names is empty")
    return items


def _column(data: Mapping[str, Json], name: str, count: int) -> list[str]:
    """One value for each of `count` files; "NULL" becomes empty, an unset field is empty for all.

    One value for several files holds for all of them, as old servers send it.
    """
    text = _text(data, name)
    if not text or count == 0:
        return [""] * count
    items = ["" if item in ("NULL", "None") else item for item in text.split(",")]
    if len(items) == 1:
        items *= count
    if len(items) != count:
        raise NotSameLength(f"field {name} has {len(items)} values for {count} files")
    return items


def _tokens(data: Mapping[str, Json], count: int) -> list[str]:
    """prodDBlockToken of each input: some servers send one a dataset, which says nothing of a single file."""
    items = ["" if item == "NULL" else item for item in _text(data, "prodDBlockToken").split(",")]
    return items * count if len(items) == 1 else items if len(items) == count else [""] * count


def _output_scopes(data: Mapping[str, Json], outputs: list[int], with_log: int) -> list[str]:
    """scopeOut has no entry for the log (wire.md, section 4); some servers send one all the same.

    outputs: which of the files, the log among them, are outputs.
    """
    if _text(data, "scopeOut").count(",") + 1 == with_log > len(outputs) > 0:
        scopes = _column(data, "scopeOut", with_log)
        return [scopes[number] for number in outputs]
    return _column(data, "scopeOut", len(outputs))


def _size(text: str) -> int:
    if not text:
        return 0
    if not _BYTES.match(text) or int(text) > _SIZE_LIMIT:
        raise ConversionFailure(f"field fsize: {text[:60]!r} is no file size in bytes")
    return int(text)


def _refuse_repeated(files: list[FileSpec], name: str) -> None:
    seen: set[str] = set()
    for spec in files:
        if spec.lfn in seen:
            raise ConversionFailure(f"field {name}: {spec.lfn} is there twice")
        seen.add(spec.lfn)


def _take_object(text: str, option: str) -> tuple[str, dict[str, Json]]:
    """Take `option{...}` out of a command line. Raises ConversionFailure when what follows is no JSON object."""
    start = text.find(option)
    if start < 0:
        return text, {}
    begin = start + len(option)
    quote = text[begin : begin + 1] if text[begin : begin + 1] in ("'", '"') else ""
    try:
        value, end = json.JSONDecoder().raw_decode(text, begin + len(quote))
    except ValueError as exc:
        raise ConversionFailure(f"field jobPars: {option} is not followed by a JSON object ({exc})") from None
    except RecursionError:
        raise ConversionFailure(f"field jobPars: what follows {option} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ConversionFailure(f"field jobPars: {option} is not followed by a JSON object")
    if quote and text[end : end + 1] == quote:
        end += 1
    return text[:start].rstrip() + " " + text[end:].lstrip(), value


def _take_word(text: str, pattern: re.Pattern[str]) -> tuple[str, str]:
    """Take what `pattern` finds out of a command line and return its group without quotes."""
    found: re.Match[str] | None = pattern.search(text)
    if found is None:
        return text, ""
    return text[: found.start()].rstrip() + " " + text[found.end() :].lstrip(), found.group(1).strip("'\"")
