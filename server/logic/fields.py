"""The arguments of updateJob and update_job: one table for both APIs, and what becomes of each value.

Names, lengths and units are those of wire.md, section 5.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from server.db.jobs import Value
from server.db.tables import MEASUREMENTS
from server.logic.errors import BadField
from server.logic.names import shown


class Kind(Enum):
    """What a field holds."""

    INTEGER = "a whole number"
    NUMBER = "a number"
    TEXT = "a text"
    TIME = "a time"


@dataclass(frozen=True)
class Field:
    """One argument.

    Attributes:
        legacy: its name in updateJob; empty if only v1 has it.
        v1: its name in update_job; empty if only the legacy API has it.
        kind: what it holds.
        column: where it is stored; empty if it is not a column.
        length: texts are cut to this many characters.
        divisor: numbers are divided by this before they are stored.
    """

    legacy: str
    v1: str
    kind: Kind
    column: str = ""
    length: int = 0
    divisor: int = 1


def _measurement(name: str) -> Field:
    """max/avg are kB. tot* are bytes and stored as kB; rate* are stored as given (v1 divides them: see `collect`)."""
    kind = name.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    snake = f"{kind}_{name.removeprefix(kind).lower()}"
    return Field(name, snake, Kind.NUMBER, name, divisor=1024 if kind == "tot" else 1)


_DIAG = 500

FIELDS: tuple[Field, ...] = (
    Field("token", "", Kind.TEXT),
    Field("timestamp", "", Kind.TEXT),
    Field("timeout", "timeout", Kind.INTEGER),
    Field("workdir", "", Kind.TEXT),
    Field("remainingSpace", "", Kind.TEXT),
    Field("messageLevel", "", Kind.TEXT),
    Field("computingElement", "", Kind.TEXT),
    Field("siteName", "site_name", Kind.TEXT),
    Field("attemptNr", "attempt_nr", Kind.INTEGER),
    Field("xml", "job_output_report", Kind.TEXT),
    Field("metaData", "meta_data", Kind.TEXT),
    Field("pilotLog", "pilot_log", Kind.TEXT),
    Field("stdout", "stdout", Kind.TEXT),
    Field("startTime", "start_time", Kind.TIME, "startTime"),
    Field("endTime", "end_time", Kind.TIME, "endTime"),
    Field("transExitCode", "trans_exit_code", Kind.INTEGER, "transExitCode"),
    Field("pilotErrorCode", "pilot_error_code", Kind.INTEGER, "pilotErrorCode"),
    Field("pilotErrorDiag", "pilot_error_diag", Kind.TEXT, "pilotErrorDiag", _DIAG),
    Field("exeErrorCode", "exe_error_code", Kind.INTEGER, "exeErrorCode"),
    Field("exeErrorDiag", "exe_error_diag", Kind.TEXT, "exeErrorDiag", _DIAG),
    Field("node", "node", Kind.TEXT, "node", 128),
    Field("schedulerID", "scheduler_id", Kind.TEXT, "schedulerID", 128),
    Field("pilotID", "pilot_id", Kind.TEXT, "pilotID", 200),
    Field("batchID", "batch_id", Kind.TEXT, "batchID", 80),
    Field("cpuConsumptionTime", "cpu_consumption_time", Kind.INTEGER, "cpuConsumptionTime"),
    Field("cpuConsumptionUnit", "cpu_consumption_unit", Kind.TEXT, "cpuConsumptionUnit", 128),
    Field("cpuConversionFactor", "cpu_conversion_factor", Kind.NUMBER, "cpuConversion"),
    Field("pilotTiming", "pilot_timing", Kind.TEXT, "pilotTiming", 100),
    Field("nEvents", "n_events", Kind.INTEGER, "nEvents"),
    Field("nInputFiles", "n_input_files", Kind.INTEGER, "nInputFiles"),
    Field("jobMetrics", "job_metrics", Kind.TEXT, "jobMetrics", _DIAG),
    Field("jobSubStatus", "job_sub_status", Kind.TEXT, "jobSubStatus", 80),
    Field("coreCount", "core_count", Kind.INTEGER, "actualCoreCount"),
    Field("meanCoreCount", "mean_core_count", Kind.NUMBER, "meanCoreCount"),
    Field("cpu_architecture_level", "cpu_architecture_level", Kind.TEXT, "cpu_architecture_level", 20),
    Field("grid", "grid", Kind.TEXT, "grid", 50),
    Field("source_site", "source_site", Kind.TEXT, "sourceSite", 36),
    Field("destination_site", "destination_site", Kind.TEXT, "destinationSite", 36),
    Field("corruptedFiles", "corrupted_files", Kind.TEXT, "corruptedFiles", _DIAG),
    *(_measurement(name) for name in MEASUREMENTS),
    Field("claim_id", "claim_id", Kind.TEXT),
    Field("request_id", "request_id", Kind.TEXT),
)

LEGACY: Mapping[str, Field] = {f.legacy: f for f in FIELDS if f.legacy}
V1: Mapping[str, Field] = {f.v1: f for f in FIELDS if f.v1}

#: What stands for "not set" in either API.
_UNSET = (None, "", "NULL", "None")

#: Columns of 32 bits; the others of Kind.INTEGER hold 64.
_WIDE = frozenset({"cpuConsumptionTime", "nEvents"})
#: Memory and I/O figures are capped here (wire.md section 5).
_MOST = 10**10 - 1
#: Long texts: the end is what is worth keeping. 64 KiB of a log, a job report as large as a body may be.
LOG_LENGTH = 65536

_METRIC = re.compile(r"(?:^|\s)(leak|chi2)=([-+0-9.eE]+)(?=\s|$)")


@dataclass
class JobReport:
    """An update as a pilot sent it, its values checked and in our own names.

    Attributes:
        job_id: PandaID.
        status: the state reported, as sent.
        attempt: attempt number, if it was sent.
        columns: what goes into the job's row.
        output_report: the text about its output files.
        metadata: its job report.
        pilot_log: the end of its log.
        stdout: the end of the payload's output.
    """

    job_id: int
    status: str
    attempt: int | None = None
    claim_id: str = ""
    columns: dict[str, Value] = field(default_factory=dict)
    output_report: str = ""
    metadata: str = ""
    pilot_log: str = ""
    stdout: str = ""


def collect(job_id: int, status: str, values: Mapping[str, object], known: Mapping[str, Field]) -> JobReport:
    """Check and convert the arguments of an update.

    Args:
        values: name -> value, without job and state.
        known: LEGACY or V1: whose names these are.

    Raises:
        BadField: a value cannot be what its field holds; nothing may be changed then.
    """
    report = JobReport(job_id, status)
    v1 = known is V1
    for name, value in values.items():
        if value in _UNSET:
            continue
        known_field = known[name]
        if known_field.column:
            converted = _converted(name, value, known_field, v1=v1)
            if converted is not None:
                report.columns[known_field.column] = converted
        elif known_field.legacy in _OTHERS:
            _keep(report, name, known_field.legacy, value)
    _add_leak(report)
    return report


_OTHERS = frozenset({"attemptNr", "xml", "metaData", "pilotLog", "stdout", "claim_id"})


def _keep(report: JobReport, name: str, legacy: str, value: object) -> None:
    """Fields that are not columns of the job."""
    if legacy == "attemptNr":
        report.attempt = read_integer(name, value, wide=False)
        return
    text = read_text(name, value)
    if legacy == "xml":
        report.output_report = text
    elif legacy == "metaData":
        report.metadata = text
    elif legacy == "pilotLog":
        report.pilot_log = text[-LOG_LENGTH:]
    elif legacy == "stdout":
        report.stdout = text[-LOG_LENGTH:]
    else:
        report.claim_id = text


def _converted(name: str, value: object, known: Field, *, v1: bool) -> Value:
    if known.kind is Kind.TEXT:
        return read_text(name, value)[: known.length]
    if known.kind is Kind.TIME:
        return read_time(name, value)
    if known.kind is Kind.INTEGER:
        return read_integer(name, value, wide=known.column in _WIDE)
    number = _number(name, value)
    if known.column not in MEASUREMENTS:
        return number
    divisor = 1024 if v1 and known.column.startswith("rate") else known.divisor
    return min(round(number / divisor), _MOST)


def read_text(name: str, value: object) -> str:
    """A text; NUL, which databases refuse, becomes visible.

    Raises:
        BadField: it is none, and no number either.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadField(name, f"must be a text, not {shown(value)}")
    return str(value).replace("\x00", "\N{SYMBOL FOR NULL}")


def _is_plain(text: str) -> bool:
    """Python takes the digits of all scripts for numbers, and underscores between them; no pilot means that."""
    return text.isascii() and "_" not in text


def _number(name: str, value: object) -> float:
    try:
        if type(value) is int or type(value) is float or (isinstance(value, str) and _is_plain(value)):
            number = float(value)
        else:  # True and False are numbers to Python alone
            raise ValueError
    except (ValueError, OverflowError):
        raise BadField(name, f"must be a number, not {shown(value)}") from None
    if not math.isfinite(number):
        raise BadField(name, f"must be a finite number, not {shown(value)}")
    return number


def read_integer(name: str, value: object, *, wide: bool) -> int:
    """A whole number of 32 bits, or of 64 if it is wide.

    Raises:
        BadField: it is none.
    """
    number = _number(name, value)
    limit = 2**63 if wide else 2**31
    if abs(number) >= limit:
        raise BadField(name, f"is out of range: {shown(value)}")
    return int(number)


#: Pilots give times as seconds since 1970 or as text in UTC; anything outside these years is no time of a job.
_YEARS = (datetime(2000, 1, 1, tzinfo=UTC).timestamp(), datetime(2200, 1, 1, tzinfo=UTC).timestamp())


def read_time(name: str, value: object) -> float:
    """A time as seconds since 1970, from such a number or from text in UTC.

    Raises:
        BadField: it is none.
    """
    try:
        seconds = _number(name, value)
    except BadField:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            raise BadField(name, f"must be a time like 2026-01-31 23:59:59, not {shown(value)}") from None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not _YEARS[0] <= seconds < _YEARS[1]:
        raise BadField(name, f"is no time a job can have: {shown(value)}")
    return seconds


def _add_leak(report: JobReport) -> None:
    """The memory leak a pilot has fitted comes inside jobMetrics."""
    metrics = report.columns.get("jobMetrics")
    if not isinstance(metrics, str):
        return
    for key, text in _METRIC.findall(metrics):
        try:
            number = float(text)
        except ValueError:
            continue
        if math.isfinite(number):
            report.columns["memory_leak" if key == "leak" else "memory_leak_x2"] = number
