"""Inputs, outputs and log of a submitted job, in the friendly form or as getJob's positional lists."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.db.files import Replica
from server.logic.definition import INPUT_LISTS, OUTPUT_LISTS
from server.logic.errors import BadJob
from server.logic.names import (
    complaint_about_file,
    complaint_about_queue,
    complaint_about_scope,
    has_control_characters,
    shown,
)

#: getJob's lists of files.
KEYS = frozenset(
    {
        "inFiles",
        "GUID",
        "fsize",
        "checksum",
        "scopeIn",
        "ddmEndPointIn",
        "realDatasetsIn",
        "outFiles",
        "scopeOut",
        "scopeLog",
        "logFile",
        "logGUID",
        "realDatasets",
        "ddmEndPointOut",
        *INPUT_LISTS,
        *OUTPUT_LISTS,
    }
)
#: What describes the files of outFiles and of inFiles, and nothing else.
OUTPUT_COMPANIONS = ("scopeOut", "realDatasets", "ddmEndPointOut", *OUTPUT_LISTS)
INPUT_COMPANIONS = ("GUID", "fsize", "checksum", "scopeIn", "ddmEndPointIn", "realDatasetsIn", *INPUT_LISTS)
#: More files than this in one job is a mistake (PanDA's own limit for a job's inputs is 200 by default).
MOST_FILES = 10_000
_DATASET_LENGTH = 255

_GUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z")
_CHECKSUM = re.compile(r"(?:(?:ad|adler32):)?[0-9A-Fa-f]{8}\Z|(?:(?:md|md5):)?[0-9A-Fa-f]{32}\Z")
_UNSET = (None, "", "NULL")


@dataclass
class OutputSpec:
    """An output or log: what the payload calls it, and its name in the catalogue."""

    scope: str
    lfn: str
    local: str = ""
    dataset: str = ""
    endpoint: str = ""
    optional: bool = False
    wire: dict[str, str] = field(default_factory=dict)


@dataclass
class InputSpec:
    """An input; `replica` is what the submitter knows of it, None if another job makes it."""

    scope: str
    lfn: str
    local: str = ""
    dataset: str = ""
    replica: Replica | None = None
    wire: dict[str, str] = field(default_factory=dict)


def complaint_about_guid(guid: object) -> str:
    """What is wrong with a GUID; empty if nothing is."""
    return "" if isinstance(guid, str) and _GUID.match(guid) else f"{shown(guid)} is no GUID"


def complaint_about_checksum(checksum: object) -> str:
    """What is wrong with an adler32 or md5 checksum; empty if nothing is."""
    good = isinstance(checksum, str) and _CHECKSUM.match(checksum)
    return "" if good else f"{shown(checksum)} is neither an adler32 (8 hex digits) nor an md5 (32)"


def normal_checksum(checksum: str) -> str:
    """A checksum as getJob gives it: ad:<adler32> or md:<md5>."""
    digits = checksum.rpartition(":")[2].lower()
    return f"{'ad' if len(digits) == 8 else 'md'}:{digits}"


def read_outputs(index: int, job: Mapping[str, object], scope: str) -> tuple[list[OutputSpec], OutputSpec]:
    """The outputs and the log of a submitted job.

    Args:
        scope: of files that name none.

    Raises:
        BadJob: with the field that is wrong.
    """
    lists = _Lists(index, job)
    log = OutputSpec(_scope(index, "scopeLog", (lists.items("scopeLog") or [scope])[0]), "")
    key = _list_or_friendly(index, job, "outFiles", "outputs", OUTPUT_COMPANIONS)
    if key == "outFiles":
        outputs = _listed_outputs(lists, scope, log)
    else:
        outputs = [_output(index, item, scope) for item in _items(index, job, "outputs")]
    _name_log(lists, log)
    if log.lfn in (output.lfn for output in outputs):
        raise BadJob(
            index, "logFile", f"{shown(log.lfn)} is one of the outputs as well; give the log a name of its own"
        )
    _check_names(index, key, outputs)
    return outputs, log


def read_inputs(index: int, job: Mapping[str, object], scope: str) -> list[InputSpec]:
    """The inputs of a submitted job; see `read_outputs`."""
    key = _list_or_friendly(index, job, "inFiles", "inputs", INPUT_COMPANIONS)
    if key == "inFiles":
        inputs = _listed_inputs(_Lists(index, job), scope)
    else:
        inputs = [_input(index, item, scope) for item in _items(index, job, "inputs")]
    _check_names(index, key, inputs)
    return inputs


def _check_names(index: int, key: str, specs: Sequence[OutputSpec] | Sequence[InputSpec]) -> None:
    """All files of a kind lie in one directory, whatever their scopes: no name may come twice."""
    for what, names in (("file name", [spec.lfn for spec in specs]), ("local name", [spec.local for spec in specs])):
        twice = [name for name, number in Counter(names).items() if number > 1]
        if twice:
            raise BadJob(index, key, f"has the {what} {shown(twice[0])} twice")


def _list_or_friendly(
    index: int, job: Mapping[str, object], listed: str, friendly: str, companions: Sequence[str]
) -> str:
    """Which of the two forms a job uses for its files: one, or it could not be said which is meant."""
    if job.get(friendly) in (None, []):
        return listed
    if job.get(listed) not in _UNSET:
        raise BadJob(index, friendly, f"cannot be given together with '{listed}': use one of the two")
    lonely = next((key for key in companions if job.get(key) not in _UNSET), None)
    if lonely is not None:
        raise BadJob(
            index, lonely, f"describes the files of '{listed}'; with '{friendly}' it is said for each file there"
        )
    return friendly


def _items(index: int, job: Mapping[str, object], key: str) -> list[object]:
    items = job.get(key)
    if items is None:
        return []
    if not isinstance(items, list):
        raise BadJob(index, key, f"must be a list, not {shown(items)}")
    if len(items) > MOST_FILES:
        raise BadJob(index, key, f"has {len(items)} files; {MOST_FILES} is the most")
    return items


def _output(index: int, item: object, scope: str) -> OutputSpec:
    if isinstance(item, str):
        item = {"local": item, "lfn": item}
    known = {"local", "lfn", "scope", "dataset", "endpoint", "optional"}
    if not isinstance(item, dict) or not item.keys() <= known:
        raise BadJob(index, "outputs", f"has {shown(item)}: a file name, or an object with {_listed(known)}, is wanted")
    lfn = item.get("lfn", item.get("local"))
    local = item.get("local", lfn)
    spec = OutputSpec(
        scope=_scope(index, "outputs", item.get("scope", scope)),
        lfn=_file(index, "outputs", lfn),
        local=_file(index, "outputs", local, pattern=True),
        dataset=_dataset(index, "outputs", item.get("dataset")),
        endpoint=_endpoint(index, "outputs", item.get("endpoint")),
    )
    optional = item.get("optional", False)
    if not isinstance(optional, bool):
        raise BadJob(index, "outputs", f"'optional' of {shown(lfn)} must be true or false, not {shown(optional)}")
    spec.optional = optional
    return spec


def _input(index: int, item: object, scope: str) -> InputSpec:
    if isinstance(item, str):
        before, colon, after = item.partition(":")
        item = {"scope": before, "lfn": after} if colon else {"lfn": item}
    known = {"lfn", "local", "scope", "dataset", "endpoint", "guid", "fsize", "checksum", "surl"}
    if not isinstance(item, dict) or not item.keys() <= known:
        raise BadJob(index, "inputs", f"has {shown(item)}: a file name, or an object with {_listed(known)}, is wanted")
    lfn = _file(index, "inputs", item.get("lfn"))
    spec = InputSpec(
        scope=_scope(index, "inputs", item.get("scope", scope)),
        lfn=lfn,
        local=_file(index, "inputs", item.get("local", lfn)),
        dataset=_dataset(index, "inputs", item.get("dataset")),
    )
    if any(item.get(key) not in _UNSET for key in ("endpoint", "guid", "fsize", "checksum", "surl")):
        spec.replica = _replica(index, "inputs", item)
    return spec


def _replica(index: int, key: str, item: Mapping[str, object]) -> Replica:
    guid, size, checksum, surl = (item.get(name) for name in ("guid", "fsize", "checksum", "surl"))
    if guid not in _UNSET and (complaint := complaint_about_guid(guid)):
        raise BadJob(index, key, complaint)
    if checksum not in _UNSET and (complaint := complaint_about_checksum(checksum)):
        raise BadJob(index, key, complaint)
    if surl not in _UNSET and (not isinstance(surl, str) or len(surl) > 1024 or has_control_characters(surl)):
        raise BadJob(index, key, f"{shown(surl)} cannot be the address of a file")
    return Replica(
        endpoint=_endpoint(index, key, item.get("endpoint")) or None,
        guid=None if guid in _UNSET else str(guid),
        fsize=None if size in _UNSET else _size(index, key, size),
        checksum=None if checksum in _UNSET else normal_checksum(str(checksum)),
        surl=None if surl in _UNSET else str(surl),
    )


def _size(index: int, key: str, size: object) -> int:
    if isinstance(size, str) and size.isascii() and size.isdigit() and len(size) < 20:
        size = int(size)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**62:
        raise BadJob(index, key, f"{shown(size)} is no file size in bytes")
    return size


class _Lists:
    """getJob's comma-joined lists of one job."""

    def __init__(self, index: int, job: Mapping[str, object]) -> None:
        self.index = index
        self.job = job

    def items(self, key: str) -> list[str]:
        value = self.job.get(key)
        if value in _UNSET:
            return []
        if not isinstance(value, str):
            raise BadJob(self.index, key, f"must be a text with a comma between two items, not {shown(value)}")
        if has_control_characters(value):
            raise BadJob(self.index, key, f"must not have control characters in it: {shown(value)}")
        items = value.split(",")
        if len(items) > MOST_FILES:
            raise BadJob(self.index, key, f"has {len(items)} items; {MOST_FILES} is the most")
        return items

    def aligned(self, key: str, number: int) -> list[str]:
        """As many items as there are files; one item stands for all, none for "not set"."""
        items = ["" if item == "NULL" else item for item in self.items(key)]
        if not items:
            return [""] * number
        if len(items) == 1:
            return items * number
        if len(items) < number:
            raise BadJob(self.index, key, f"has {len(items)} items for {number} files")
        return items


def _listed_outputs(lists: _Lists, scope: str, log: OutputSpec) -> list[OutputSpec]:
    """The outputs from outFiles and its companions, which tell of the log as well; scopeOut may leave the log out."""
    names = lists.items("outFiles")
    log_names = lists.items("logFile")
    wanted = [name for name in names if name not in log_names]
    scopes = lists.aligned("scopeOut", len(wanted))
    columns = {key: lists.aligned(key, len(names)) for key in ("realDatasets", "ddmEndPointOut", *OUTPUT_LISTS)}
    optional = lists.items("allowNoOutput")
    outputs: list[OutputSpec] = []
    for position, name in enumerate(names):
        is_log = name in log_names
        spec = log if is_log else OutputSpec("", "")
        if not is_log:
            spec.scope = _scope(lists.index, "scopeOut", scopes[len(outputs)] or scope)
            outputs.append(spec)
        spec.lfn = spec.local = _file(lists.index, "outFiles", name, pattern=not is_log)
        spec.dataset = _dataset(lists.index, "realDatasets", columns["realDatasets"][position])
        spec.endpoint = _endpoint(lists.index, "ddmEndPointOut", columns["ddmEndPointOut"][position])
        spec.wire = {key: columns[key][position] for key in OUTPUT_LISTS if columns[key][position]}
        spec.optional = name in optional or optional == ["True"]
    return outputs


def _name_log(lists: _Lists, log: OutputSpec) -> None:
    """The log's name and GUID, which a job may give however it gives its outputs."""
    names = lists.items("logFile")
    if len(names) > 1:
        raise BadJob(lists.index, "logFile", "must be one file name")
    if names:
        log.lfn = log.local = _file(lists.index, "logFile", names[0])
    if guids := lists.items("logGUID"):
        if complaint := complaint_about_guid(guids[0]):
            raise BadJob(lists.index, "logGUID", complaint)
        log.wire["logGUID"] = guids[0]


def _listed_inputs(lists: _Lists, scope: str) -> list[InputSpec]:
    names = lists.items("inFiles")
    columns = {key: lists.aligned(key, len(names)) for key in INPUT_COMPANIONS}
    inputs: list[InputSpec] = []
    for position, name in enumerate(names):
        known = {key: columns[key][position] for key in INPUT_COMPANIONS}
        given = {
            "guid": known["GUID"],
            "fsize": known["fsize"],
            "checksum": known["checksum"],
            "endpoint": known["ddmEndPointIn"],
        }
        lfn = _file(lists.index, "inFiles", name)
        inputs.append(
            InputSpec(
                scope=_scope(lists.index, "scopeIn", known["scopeIn"] or scope),
                lfn=lfn,
                local=lfn,
                dataset=_dataset(lists.index, "realDatasetsIn", known["realDatasetsIn"]),
                replica=_replica(lists.index, "inFiles", given) if any(given.values()) else None,
                wire={key: known[key] for key in INPUT_LISTS if known[key]},
            )
        )
    return inputs


def _file(index: int, key: str, name: object, *, pattern: bool = False) -> str:
    if complaint := complaint_about_file(name, pattern=pattern):
        raise BadJob(index, key, complaint)
    return str(name)


def _scope(index: int, key: str, scope: object) -> str:
    if complaint := complaint_about_scope(scope):
        raise BadJob(index, key, complaint)
    return str(scope)


def _endpoint(index: int, key: str, endpoint: object) -> str:
    if endpoint in _UNSET:
        return ""
    if complaint := complaint_about_queue(endpoint):
        raise BadJob(index, key, f"storage: {complaint}")
    return str(endpoint)


def _dataset(index: int, key: str, dataset: object) -> str:
    if dataset in _UNSET:
        return ""
    bad = not isinstance(dataset, str) or len(dataset) > _DATASET_LENGTH or "," in dataset
    if bad or has_control_characters(str(dataset)) or not str(dataset).isascii():
        raise BadJob(index, key, f"{shown(dataset)} cannot be the name of a dataset")
    return str(dataset)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
