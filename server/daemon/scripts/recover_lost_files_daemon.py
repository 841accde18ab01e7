"""recover_lost_files_daemon: has files made again that a storage has lost, as requests in a directory ask for it.

A request is a file NAME.json below `recovery` in the data directory, {"files": ["scope:lfn", ...], "dry_run": false}.
What became of it is in NAME.result, and the request is removed. Write it under another name and rename it then: what is
half written cannot be read.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from server.db.database import DatabaseUnavailable, Taken
from server.db.files import Name
from server.logic.context import ANYBODY, Context
from server.logic.errors import BadField
from server.logic.names import shown
from server.logic.recovery import read_names, recover_files

logger = logging.getLogger(__name__)

#: Results that are older are removed (s).
_KEPT = 30 * 86400


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Deal with the requests that are there."""
    folder = context.settings.data_path() / "recovery"
    folder.mkdir(exist_ok=True)
    for request in sorted(folder.glob("*.json")):
        try:
            names, dry_run = _read(request)
            recovery = recover_files(context, names, ANYBODY, dry_run=dry_run)
            result: object = {"dry_run": dry_run, **vars(recovery)}
            logger.warning(
                "recovery request %s%s: %d jobs are done again, %d jobs wait again, %d files are left",
                request.name,
                " (dry run)" if dry_run else "",
                *map(len, (recovery.heirs, recovery.waiting, recovery.left)),
            )
        except (Taken, DatabaseUnavailable) as error:  # it is tried again; those behind it must not wait
            logger.warning("recovery request %s has to wait: %s", request.name, error)
            continue
        except (BadField, OSError) as error:
            result = {"error": str(error)}
            logger.error("recovery request %s cannot be used: %s", request.name, error)
        # the result first: after a crash in between the request is read again, and finds its files being made
        _write(request.with_suffix(".result"), json.dumps(result, indent=1))
        request.unlink()
    for old in folder.glob("*.result"):
        if old.stat().st_mtime < time.time() - _KEPT:
            old.unlink()
    return False


def _read(request: Path) -> tuple[list[Name], bool]:
    try:
        content = json.loads(request.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadField(request.name, f"is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("files"), list):
        raise BadField(request.name, 'must be like {"files": ["scope:lfn"]}')
    dry_run = content.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise BadField("dry_run", f"must be true or false, not {shown(dry_run)}")
    return read_names(content["files"]), dry_run


def _write(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)
