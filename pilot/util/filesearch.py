"""Looking for files, and into them, under the documented names.

Import them from pilot.util.filehandling, as chapter 7.3.2 of PanDA's documents has it.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pilot.util.filehandling import tail_bytes
from pilot.util.filetools import open_file

__all__ = [
    "find_executable",
    "find_last_line",
    "find_latest_modified_file",
    "find_text_files",
    "get_files",
    "get_valid_path_from_list",
    "grep",
    "is_json",
    "locate_file",
    "scan_file",
    "tail",
    "verify_file_list",
]

log = logging.getLogger(__name__)

# A file is text when its first bytes hold no NUL: what grep and git look at.
_TEXT_SAMPLE = 8192
# Lines are looked for in so much of a file's end (bytes) at first, and in four times more as long as they are too few.
_TAIL = 65536


def find_executable(name: str) -> str:
    """The full path of a command, empty when it is not on the PATH."""
    return shutil.which(name) or ""


def find_last_line(filename: str) -> str:
    """The last line of a file that holds something, without its end; empty if there is none."""
    return tail(filename, 1).strip("\n")


def tail(filename: str, nlines: int = 10) -> str:
    """The last lines of a file; empty when it is not there."""
    path, size = Path(filename), _TAIL
    while True:
        end = tail_bytes(path, size)
        lines = end.decode("utf-8", "replace").splitlines()
        if len(lines) > nlines or len(end) < size:
            return "\n".join(lines[-nlines:]) if nlines > 0 else ""
        size *= 4


def find_latest_modified_file(list_of_files: Sequence[str]) -> tuple[str, int]:
    """The file that was written last, and when (s since 1970); of none that is there: empty, and now."""
    times = [(os.stat(path).st_mtime, path) for path in verify_file_list(list_of_files)]
    if not times:
        return "", int(time.time())
    when, path = max(times)
    return path, int(when)


def find_text_files() -> list[str]:
    """All files below the current directory that hold text."""
    return [path for path in _below(".") if _is_text(path)]


def get_files(pattern: str = "*.log") -> list[str]:
    """All files below the current directory whose names fit a pattern."""
    return [path for path in _below(".") if Path(path).match(pattern)]


def _below(folder: str) -> Iterator[str]:
    for above, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(above, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def _is_text(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            sample = stream.read(_TEXT_SAMPLE)
    except OSError:
        return False
    return bool(sample) and b"\0" not in sample


def get_valid_path_from_list(paths: Iterable[str]) -> str:
    """The first path at which something is, empty if there is none."""
    return next((path for path in paths if os.path.exists(path)), "")


def verify_file_list(list_of_files: Iterable[str]) -> list[str]:
    """Those of the files that are there."""
    return [path for path in list_of_files if os.path.exists(path)]


def locate_file(pattern: str) -> str:
    """A file that fits a pattern, in which ** stands for any directories; empty if there is none."""
    return next((path for path in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(path)), "")


def is_json(input_file: str) -> bool:
    """Whether a file begins as a JSON object does. Raises FileHandlingFailure when it cannot be read."""
    with open_file(input_file, "rb") as stream:
        return stream.read(1) == b"{"


def grep(patterns: Sequence[str], file_name: str) -> list[str]:
    """The lines of a file in which one of the patterns (regular expressions) is found, without their ends.

    Raises FileHandlingFailure when it cannot be read, re.error for a pattern that is none.
    """
    wanted = [re.compile(pattern) for pattern in patterns]
    found = []
    with open_file(file_name, "rb") as stream:
        for line in stream:
            text = bytes(line).decode("utf-8", "replace").rstrip("\r\n")  # type: ignore[arg-type]  # it was opened so
            if any(pattern.search(text) for pattern in wanted):
                found.append(text)
    return found


def scan_file(path: str, error_messages: Sequence[str], warning_message: str | None = None) -> bool:
    """Whether one of the messages stands in a file; then the log says so, with the warning if one is given.

    Raises FileHandlingFailure when it cannot be read.
    """
    found = grep([re.escape(message) for message in error_messages], path) if error_messages else []
    for line in found:
        log.warning("%s: %s", path, line)
    if found and warning_message:
        log.warning("%s", warning_message)
    return bool(found)
