"""The live log: what the payload of a running job has written so far, sent by its pilot piece by piece.

Each attempt has one file below the data directory, a JSON object a line, and no row in the database: a log may be lost
in a crash of the machine, and nothing is decided on it. The pilot says how long it believes the file to be, so that a
piece that is sent again after a lost answer is not stored twice, and two pilots cannot write between each other.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from io import FileIO
from pathlib import Path

from server.db import jobs
from server.db.records import look_up
from server.logic import updates
from server.logic.context import Context, Identity
from server.logic.errors import BadField, DispatcherError, NotAllowed, NotFound
from server.logic.fields import JobReport
from server.logic.names import has_control_characters, shown
from server.logic.states import OVER, Status

#: Shortest time between two pieces of a job (s): what is written in between comes with the next.
INTERVAL = 1.0
#: Largest piece (bytes as stored): with the interval this bounds what one pilot can make the disk write.
PIECE_LIMIT = 262_144
#: Most records in a piece: one for each file that is followed, and a few for gaps.
_RECORDS = 100
#: Longest name of a followed file (characters).
_NAME_LENGTH = 255
#: Offsets fit the integers of every language that may read them.
_OFFSET_LIMIT = 2**53
#: So much is handed to a reader at once (bytes).
_READ_LIMIT = 1_048_576


class Word(StrEnum):
    """What became of a piece."""

    STORED = "stored"
    ELSEWHERE = "elsewhere"  # the file is not as long as the pilot believes
    TOO_SOON = "too_soon"
    FULL = "full"
    STRANGE = "tobekilled"  # the job is not, or no longer, this pilot's


@dataclass(frozen=True)
class Appended:
    """position: how long the file is now (bytes)."""

    word: Word
    position: int = 0


def append(
    context: Context, report: JobReport, position: int, records: Iterable[object], identity: Identity
) -> Appended:
    """Add a piece to the log of a job.

    Args:
        report: whose log, with attempt and claim as updateJob has them; both are needed.
        position: the length that the pilot believes the log to have (bytes).
        records: objects {name, offset, text, dropped}, see `_record`.

    Raises:
        BadField: a record cannot be stored; then none is.
        DispatcherError: the disk does not take it.
    """
    now = context.clock()
    lines = b"".join(_line(number, record, now) for number, record in enumerate(_bounded(records)))
    if len(lines) > PIECE_LIMIT:
        raise BadField("records", f"have {len(lines)} bytes; {PIECE_LIMIT} is the most at a time")
    with context.database.reading() as connection:
        job = jobs.read_live(connection, report.job_id)
    claimed = job is not None and bool(report.claim_id) and report.attempt is not None
    if job is None or not claimed or updates.is_strange(job, report, identity):
        return Appended(Word.STRANGE)
    path = _path(context, job.PandaID, job.attemptNr)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        state = os.fstat(file.fileno())
        if state.st_size != position:
            return Appended(Word.ELSEWHERE, state.st_size)
        if state.st_size and 0 <= now - state.st_mtime < INTERVAL:
            return Appended(Word.TOO_SOON, state.st_size)
        if state.st_size + len(lines) > context.settings.live_log_limit:
            return Appended(Word.FULL, state.st_size)
        write_piece(file, lines, state.st_size)
        os.utime(file.fileno(), (now, now))
        return Appended(Word.STORED, state.st_size + len(lines))


def write_piece(file: FileIO, piece: bytes, before: int) -> None:
    """Write a piece of a log whole or not at all: half a line would be read as nonsense for ever.

    Args:
        file: at its end, without a buffer: what the disk did not take must not be written after all at the close.
        before: how long it is, in bytes.

    Raises:
        DispatcherError: the disk does not take it.
    """
    left = memoryview(piece)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        os.ftruncate(file.fileno(), before)
        raise DispatcherError(f"The log cannot be stored here: {error.strerror}.") from error


def _path(context: Context, job_id: int, attempt: int) -> Path:
    """Made of numbers alone: no name from outside is part of it."""
    return directory(context) / f"{job_id}-{attempt}.jsonl"


def directory(context: Context) -> Path:
    """Where the logs lie."""
    return context.settings.data_path() / "livelog"


def _bounded(records: Iterable[object]) -> list[object]:
    found = list(records)
    if len(found) > _RECORDS:
        raise BadField("records", f"are {len(found)}; {_RECORDS} is the most at a time")
    return found


def _line(number: int, record: object, now: float) -> bytes:
    return json.dumps({"time": now, **_record(number, record)}, ensure_ascii=False).encode() + b"\n"


def _record(number: int, record: object) -> dict[str, object]:
    """A record, checked: name of the file, offset of the text in it (bytes), the text, and how many bytes before it
    were left out.
    """
    where = f"records[{number}]"
    if not isinstance(record, dict):
        raise BadField(where, f"must be an object, not {shown(record)}")
    name, text = record.get("name"), record.get("text")
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_LENGTH or has_control_characters(name):
        raise BadField(f"{where}.name", f"must be a name of at most {_NAME_LENGTH} characters, not {shown(name)}")
    if not isinstance(text, str):
        raise BadField(f"{where}.text", f"must be a text, not {shown(text)}")
    offset, dropped = _count(record, "offset", where), _count(record, "dropped", where)
    return {"name": name, "offset": offset, "dropped": dropped, "text": text}


def _count(record: Mapping[str, object], key: str, where: str) -> int:
    value = record.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _OFFSET_LIMIT:
        raise BadField(f"{where}.{key}", f"must be a number of bytes, not {shown(value)}")
    return value


def read(context: Context, job_id: int, attempt: int | None, position: int, identity: Identity) -> Mapping[str, object]:
    """What a user reads: records from a position on, the position to go on from, and whether more may come.

    Args:
        attempt: None for the present one.
        position: where the last answer ended; 0 for the beginning.

    Raises:
        NotFound: there is no such job.
        NotAllowed: it belongs to somebody else.
    """
    with context.database.reading() as connection:
        job = look_up(connection, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    if not identity.may_act_for(job.prodUserName):
        raise NotAllowed(f"Job {job_id} belongs to {job.prodUserName}.")
    wanted = job.attemptNr if attempt is None else attempt
    records, end = _read_from(_path(context, job_id, wanted), max(position, 0))
    over = wanted != job.attemptNr or Status(job.jobStatus) in OVER
    return {"attempt": wanted, "status": job.jobStatus, "over": over, "records": records, "position": end}


def _read_from(path: Path, position: int) -> tuple[list[object], int]:
    """The whole lines from a position on, as many as fit an answer, and where they end."""
    try:
        with path.open("rb") as file:
            file.seek(max(position - 1, 0))
            if position and file.read(1) != b"\n":
                file.readline()  # the middle of a line: a reader's mistake
            begin = file.tell()
            text = file.read(_READ_LIMIT)
    except FileNotFoundError:
        return [], position
    whole = text[: text.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], begin + len(whole)


def sweep(context: Context) -> int:
    """Remove logs that nobody has written to for live_log_days; returns how many."""
    oldest = context.clock() - context.settings.live_log_days * 86400
    old = [path for path in directory(context).glob("*.jsonl") if path.stat().st_mtime < oldest]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
