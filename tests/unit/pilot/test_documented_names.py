"""The names that users import: docs/compatibility.md lists them, and each is there with the arguments it lists.

The document has four lists. Names and attributes are here; names left out are not, each group for its reason; and more
names are ours. Together the first three hold every public name of chapter 7.3.2 once.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections import Counter
from pathlib import Path

import pytest

from pilot.api.memorymonitor import MemoryMonitoring
from pilot.info.jobdata import JobData
from pilot.info.jobinfo import JobInfoProvider
from pilot.info.queuedata import QueueData
from pilot.info.storagedata import StorageData
from tests.unit.pilot.builders import definition, storage

DOCUMENT = Path(__file__).parents[3] / "docs" / "compatibility.md"
_CALL = re.compile(r"([\w.]+)(\(.*\))?\Z")

# How many public names the documents have in each module, with classes, methods and attributes.
DOCUMENTED = {
    "pilot.api.analytics": 17,
    "pilot.api.benchmark": 1,
    "pilot.api.data": 33,
    "pilot.api.memorymonitor": 8,
    "pilot.api.services": 1,
    "pilot.common.errorcodes": 139,
    "pilot.common.exception": 38,
    "pilot.control.data": 17,
    "pilot.control.job": 65,
    "pilot.control.monitor": 4,
    "pilot.control.payload": 9,
    "pilot.control.payloads.eventservice": 4,
    "pilot.control.payloads.generic": 24,
    "pilot.copytool.common": 7,
    "pilot.copytool.gfal": 8,
    "pilot.copytool.lsm": 10,
    "pilot.copytool.mv": 9,
    "pilot.copytool.rucio": 8,
    "pilot.copytool.xrdcp": 5,
    "pilot.info.basedata": 7,
    "pilot.info.configinfo": 4,
    "pilot.info.dataloader": 6,
    "pilot.info.extinfo": 7,
    "pilot.info.infoservice": 11,
    "pilot.info.jobdata": 114,
    "pilot.info.jobinfo": 5,
    "pilot.info.jobinfoservice": 1,
    "pilot.info.queuedata": 37,
    "pilot.info.storagedata": 15,
    "pilot.resource.alcf": 1,
    "pilot.resource.bnl": 1,
    "pilot.resource.generic": 1,
    "pilot.resource.nersc": 1,
    "pilot.resource.summit": 1,
    "pilot.resource.titan": 7,
    "pilot.user.generic.common": 19,
    "pilot.user.generic.container": 3,
    "pilot.user.generic.jobmetrics": 1,
    "pilot.user.generic.loopingjob_definitions": 2,
    "pilot.user.generic.memory": 2,
    "pilot.user.generic.proxy": 1,
    "pilot.user.generic.setup": 3,
    "pilot.util.auxiliary": 30,
    "pilot.util.config": 1,
    "pilot.util.container": 3,
    "pilot.util.disk": 1,
    "pilot.util.filehandling": 47,
    "pilot.util.harvester": 14,
    "pilot.util.https": 17,
    "pilot.util.jobmetrics": 2,
    "pilot.util.loopingjob": 5,
    "pilot.util.math": 13,
    "pilot.util.monitoring": 19,
    "pilot.util.monitoringtime": 3,
    "pilot.util.parameters": 2,
    "pilot.util.processes": 26,
    "pilot.util.proxy": 1,
    "pilot.util.timer": 8,
    "pilot.util.timing": 20,
    "pilot.util.workernode": 9,
    "pilot.workflow.generic": 3,
}


def listed(kind: str) -> list[str]:
    """The lines of the document's lists of one kind; a line that begins with blanks goes on with the one before it."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in re.sub(r"\n\s+", " ", block).splitlines() if line]


def spelled_out(line: str) -> list[str]:
    """The full names of a line `owner: name name`."""
    owner, _, names = line.partition(":")
    return [f"{owner}.{name}" for name in names.split()]


def left_out() -> dict[str, str]:
    """Names that are left out, with the reason that stands above them."""
    found: dict[str, str] = {}
    reason = ""
    begins_anew = True
    for line in listed("left out"):
        if line.startswith("#"):
            reason = line.lstrip("# ") if begins_anew else f"{reason} {line.lstrip('# ')}"
            begins_anew = False
            continue
        begins_anew = True
        for name in spelled_out(line):
            assert name not in found, f"{name} is left out twice"
            found[name] = reason
    return found


NAMES, MORE = listed("names"), listed("more names")
ATTRIBUTES = [name for line in listed("attributes") for name in spelled_out(line)]
LEFT_OUT = left_out()


def resolved(dotted: str) -> object:
    """The object behind a dotted name: the longest part that can be imported, and attributes of it."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            found = getattr(found, name)
        return found
    raise AssertionError(f"{dotted} cannot be imported")


def module_of(name: str) -> str:
    """The module that the documents have a name in."""
    return max((module for module in DOCUMENTED if name.startswith(f"{module}.")), key=len, default="none")


def test_every_documented_name_is_in_exactly_one_list() -> None:
    here = [line.partition("(")[0] for line in NAMES]
    counted = Counter([*here, *ATTRIBUTES, *LEFT_OUT])
    assert [name for name, times in counted.items() if times > 1] == []
    assert Counter(module_of(name) for name in counted) == DOCUMENTED


def test_what_is_left_out_is_not_there_and_has_a_reason() -> None:
    there = []
    for name, reason in LEFT_OUT.items():
        assert len(reason) > 20, f"{name} is left out without a reason"
        try:
            resolved(name)
        except AttributeError:
            continue
        there.append(name)
    assert there == [], "these are here: they belong into the list of names"


def test_attributes_are_there(tmp_path: Path) -> None:
    made = {
        "JobData": JobData(definition()),
        "JobInfoProvider": JobInfoProvider(JobData(definition())),
        "QueueData": QueueData({"nickname": "Q", "state": "ACTIVE"}),
        "StorageData": StorageData(storage(tmp_path)),
        "MemoryMonitoring": MemoryMonitoring(),
    }
    for name in ATTRIBUTES:
        owner, _, attribute = name.rpartition(".")
        assert hasattr(made.get(owner.rpartition(".")[2], resolved(owner)), attribute), name


@pytest.mark.parametrize("line", [*NAMES, *MORE])
def test_a_documented_name_is_there_with_its_arguments(line: str) -> None:
    match = _CALL.match(line)
    assert match is not None, line
    found = resolved(match.group(1))
    if match.group(2) is None:
        return
    assert callable(found)
    has = {name: one for name, one in inspect.signature(found).parameters.items() if name not in ("self", "cls")}
    places = list(has)
    kinds = {one.kind for one in has.values()}
    function = ast.parse(f"def f{match.group(2)}: pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    wanted = function.args
    assert not wanted.kwarg or inspect.Parameter.VAR_KEYWORD in kinds, f"{line}: there are no other arguments by name"
    assert not wanted.vararg or inspect.Parameter.VAR_POSITIONAL in kinds, f"{line}: there are no further arguments"
    first_optional = len(wanted.args) - len(wanted.defaults)
    last = -1
    for number, argument in enumerate(wanted.args):
        assert argument.arg in has, f"{line}: the arguments are {places}"
        assert places.index(argument.arg) > last, f"{line}: {argument.arg} comes too early among {places}"
        last = places.index(argument.arg)
        if number >= first_optional:
            assert has[argument.arg].default is not inspect.Parameter.empty, f"{line}: {argument.arg} is needed"
    # What the document does not have must not be needed.
    known = {argument.arg for argument in [*wanted.args, *wanted.kwonlyargs]}
    needed = [
        name for name, one in has.items()
        if name not in known and one.default is inspect.Parameter.empty
        and one.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ]  # fmt: skip
    assert not needed, f"{line}: {needed} are needed too"
