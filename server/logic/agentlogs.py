"""Files that Harvester's agents send: logs, piece by piece, and checkpoints of hyperparameter searches.

Logs lie below the data directory, like live logs, and nothing is decided on them. Checkpoints lie beside the sandboxes,
from where payloads fetch them at /cache/<name>.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from typing import IO

from server.logic import sandboxes
from server.logic.context import Context, Identity
from server.logic.errors import BadField, NotFound
from server.logic.harvesters import speak_for
from server.logic.livelog import write_piece
from server.logic.names import complaint_about_file, shown

_FOLDER = "agentlogs"
#: Largest piece, packed and unpacked, in bytes.
_PIECE_LIMIT = 16 * 1024 * 1024
#: What stands between the name of the sender and that of its log (harvester.md section 2.1).
_SEPARATOR = "__"


def store_piece(context: Context, name: str, content: IO[bytes], identity: Identity, *, append: bool) -> str:
    """Store a log, or a piece at its end; returns the name under which it lies.

    Args:
        name: <harvester>__<log>.
        content: packed with zlib, or plain.
        append: add it to what is there, instead of taking its place.

    Raises:
        BadField: the name cannot be used, the piece is damaged, or the log would be too large.
        NotAllowed: the sender is somebody else's Harvester.
        DispatcherError: the disk does not take it.
    """
    if complaint := complaint_about_file(name):
        raise BadField("file", f"cannot be stored: {complaint}")
    if _SEPARATOR not in name:
        raise BadField("file", f"must be called SENDER{_SEPARATOR}LOG, not {shown(name)}")
    piece = _unpacked(content.read(_PIECE_LIMIT + 1))
    with context.database.durable() as connection:
        speak_for(connection, name.partition(_SEPARATOR)[0], identity, context.clock())
    folder = context.settings.data_path() / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # pieces of one log do not mix, whoever sends them
        size = os.fstat(file.fileno()).st_size if append else 0
        if size + len(piece) > context.settings.live_log_limit:
            raise BadField("file", f"is full: {context.settings.live_log_limit} bytes of a log are kept here")
        file.truncate(size)
        file.seek(size)
        write_piece(file, piece, size)
    return name


def _unpacked(raw: bytes) -> bytes:
    if len(raw) > _PIECE_LIMIT:
        raise BadField("file", f"has more than {_PIECE_LIMIT} bytes")
    if not raw or raw[0] & 0x0F != zlib.DEFLATED or int.from_bytes(raw[:2], "big") % 31:  # RFC 1950: no zlib's head
        return raw
    unpacker = zlib.decompressobj()
    try:
        piece = unpacker.decompress(raw, _PIECE_LIMIT + 1)
    except zlib.error as error:
        raise BadField("file", f"is damaged: {error}") from None
    if len(piece) > _PIECE_LIMIT or not unpacker.eof:
        raise BadField("file", f"unpacks to more than {_PIECE_LIMIT} bytes, or is not whole")
    return piece


def read_log(context: Context, name: str) -> str:
    """A log, as text.

    Raises:
        NotFound: there is none of that name.
    """
    path = context.settings.data_path() / _FOLDER / name
    if complaint_about_file(name) or not path.is_file():
        raise NotFound(f"There is no log {shown(name)} here.")
    return path.read_text(encoding="utf-8", errors="replace")


def list_logs(context: Context) -> list[dict[str, object]]:
    """Names and sizes in bytes of all logs."""
    folder = context.settings.data_path() / _FOLDER
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    sizes: dict[str, int] = {}
    for path in found:
        with contextlib.suppress(FileNotFoundError):  # it was swept away this moment
            sizes[path.name] = path.stat().st_size
    return [{"name": name, "size": size} for name, size in sizes.items()]


def sweep(context: Context) -> None:
    """Remove logs that nobody writes to any more."""
    oldest = context.clock() - context.settings.live_log_days * 86400
    folder = context.settings.data_path() / _FOLDER
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # another machine sweeps the same folder
            if path.stat().st_mtime < oldest:
                path.unlink()


def checkpoint_name(task_id: int, sub_id: str) -> str:
    """The name of a checkpoint in the cache.

    Raises:
        BadField: the part of the task has no such number.
    """
    if task_id < 0 or not (sub_id.isascii() and sub_id.isdigit() and len(sub_id) <= 18):
        raise BadField("sub_id", f"and task_id must be whole numbers, not {shown(sub_id)} and {task_id}")
    return f"hpo_cp_{task_id}_{int(sub_id)}"


def store_checkpoint(context: Context, name: str, content: IO[bytes], identity: Identity) -> str:
    """Store a checkpoint in the place of the one before; returns its name.

    Raises:
        BadField: it is too large.
        Conflict: the one before is somebody else's.
    """
    sandboxes.store_sandbox(context, name, content, identity, replaces=True)
    return name


def remove_checkpoint(context: Context, name: str, identity: Identity) -> None:
    """Remove a checkpoint. One that is not there is removed already.

    Raises:
        Conflict: it is somebody else's.
    """
    sandboxes.remove_sandbox(context, name, identity)
