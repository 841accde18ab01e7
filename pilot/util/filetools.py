"""Files for plugins and scripts: read, written, copied, removed and packed under the documented names.

Import them from pilot.util.filehandling, as chapter 7.3.2 of PanDA's documents has it.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar, Union

from pilot.common.exception import FileHandlingFailure, MKDirFailure, NoSuchFile, PilotException
from pilot.util.config import DEFAULT_FILES, read
from pilot.util.container import execute
from pilot.util.filehandling import (
    ADLER32,
    MD5,
    calculate_checksum,
    directory_size,
    read_json,
    remove_tree,
)
from pilot.util.logs import BlottingFormatter
from pilot.util.tarball import Bounds, Content, is_core, tar_directory

__all__ = [
    "add_to_total_size",
    "calculate_adler32_checksum",
    "calculate_md5_checksum",
    "convert",
    "copy",
    "copy_pilot_source",
    "create_symlink",
    "dump",
    "establish_logging",
    "get_checksum_type",
    "get_checksum_value",
    "get_disk_usage",
    "get_local_file_size",
    "get_nonexistant_path",
    "get_pilot_work_dir",
    "mkdirs",
    "move",
    "open_file",
    "read_file",
    "read_list",
    "remove",
    "remove_core_dumps",
    "remove_dir_tree",
    "remove_empty_directories",
    "remove_files",
    "rmdirs",
    "tar_files",
    "touch",
    "update_extension",
    "write_file",
]

log = logging.getLogger(__name__)

T = TypeVar("T")
# Names of checksum types as the documents give them, and how many hexadecimal digits each has.
_DOCUMENTED_TYPES = {ADLER32: "ad32", "ad": "ad32", "ad32": "ad32", MD5: "md5", "md": "md5"}
_DIGITS = {8: "ad32", 32: "md5"}
# The two documented forms of a log line.
_LOG_FORMATS = (
    "%(asctime)s | %(levelname)-8s | %(name)-32s | %(funcName)-25s | %(message)s",
    'ts=%(asctime)s level=%(levelname)-8s event=%(name)-32s.%(funcName)-25s msg="%(message)s"',
)
# A command that shows a file is ended after so long (s): it is there for the log alone.
_DUMP_LIMIT = 60.0
# How a core dump is called, and how much of it tells that it is one (bytes).
_CORE = re.compile(r"core(\.\d+)?\Z")
_CORE_HEAD = 64
Text = Union[str, bytes]


# ---- checksums and sizes


def calculate_adler32_checksum(filename: str) -> str:
    """The adler32 checksum of a file, 8 digits. Raises FileHandlingFailure."""
    return calculate_checksum(filename, ADLER32)


def calculate_md5_checksum(filename: str) -> str:
    """The MD5 checksum of a file, 32 digits. Raises FileHandlingFailure."""
    return calculate_checksum(filename, MD5)


def get_checksum_value(checksum: str | Mapping[str, str]) -> str:
    """The value of a checksum: of {type: value}, as files are described, or the value itself. Empty for none."""
    return checksum if isinstance(checksum, str) else next(iter(checksum.values()), "")


def get_checksum_type(checksum: str | Mapping[str, str]) -> str:
    """ "ad32", "md5" or "unknown", of {type: value} or of a value, which its length tells."""
    if isinstance(checksum, str):
        is_number = all(digit in "0123456789abcdef" for digit in checksum.lower())
        return _DIGITS.get(len(checksum), "unknown") if is_number else "unknown"
    return _DOCUMENTED_TYPES.get(next(iter(checksum), ""), "unknown")


def get_local_file_size(filename: str) -> int | None:
    """Bytes of a file; None when it is not there."""
    try:
        return os.path.getsize(filename)
    except OSError:
        return None


def add_to_total_size(path: str, total_size: int) -> int:
    """A total (bytes) and the size of one more file; a file that is not there adds nothing."""
    return total_size + (get_local_file_size(path) or 0)


def get_disk_usage(start_path: str = ".") -> int:
    """Bytes on disk below a directory, links not followed."""
    return directory_size(Path(start_path))


# ---- reading and writing


def open_file(filename: str, mode: str) -> IO[str] | IO[bytes]:
    """Open a file; whoever calls closes it. Raises FileHandlingFailure."""
    try:
        return open(filename, mode, encoding=None if "b" in mode else "utf-8")
    except (OSError, ValueError) as exc:
        raise FileHandlingFailure(f"{filename} cannot be opened (mode {mode}): {exc}") from exc


def read_file(filename: str, mode: str = "r") -> Text:
    """The contents of a file: text, or bytes with mode "rb". Raises FileHandlingFailure."""
    with open_file(filename, mode) as stream:
        try:
            return stream.read()
        except (OSError, ValueError) as exc:
            raise FileHandlingFailure(f"{filename} cannot be read: {exc}") from exc


def write_file(path: str, contents: object, mute: bool = True, mode: str = "w", unique: bool = False) -> bool:
    """Write a file and return True. contents: bytes for a mode with "b", else text or what str() makes of it.

    mute: do not tell the log. unique: a file that is there is left alone, and its name gets an index: out-1.txt.
    Raises FileHandlingFailure.
    """
    target = get_nonexistant_path(path) if unique else path
    with open_file(target, mode) as stream:
        try:
            stream.write(contents if isinstance(contents, bytes) else str(contents))  # type: ignore[arg-type]
        except (OSError, TypeError) as exc:  # TypeError: text for a file of bytes, or the other way round
            raise FileHandlingFailure(f"{target} cannot be written: {exc}") from exc
    if not mute:
        log.info("wrote %s", target)
    return True


def read_list(filename: str) -> list[object]:
    """A list from a JSON file. Raises FileHandlingFailure when it cannot be read, or holds no list."""
    found = read_json(filename)
    if not isinstance(found, list):
        raise FileHandlingFailure(f"{filename} holds no list")
    return list(found)


def convert(data: T) -> T:
    """Data with all its bytes as text (UTF-8), in dictionaries, lists, tuples and sets too."""
    if isinstance(data, bytes):
        return data.decode("utf-8", "replace")  # type: ignore[return-value]  # bytes become str, and nothing else changes
    if isinstance(data, Mapping):
        return {convert(key): convert(value) for key, value in data.items()}  # type: ignore[return-value]
    if isinstance(data, (list, tuple, set)):
        return type(data)(convert(item) for item in data)
    return data


def touch(path: str) -> None:
    """Make an empty file, or give one that is there the time of now. Raises FileHandlingFailure."""
    try:
        Path(path).touch()
    except OSError as exc:
        raise FileHandlingFailure(f"{path} cannot be touched: {exc.strerror}") from exc


def dump(path: str, cmd: str = "cat") -> str:
    """Put a file's contents into the log and return them; cmd: another command that shows it ("head -5").

    Raises FileHandlingFailure when it cannot be shown.
    """
    if cmd == "cat":
        text = Path(path).read_text(encoding="utf-8", errors="replace") if os.path.isfile(path) else None
    else:
        code, said, _ = execute([*shlex.split(cmd), path], timeout=_DUMP_LIMIT)
        text = said if code == 0 else None
    if text is None:
        raise FileHandlingFailure(f"{path} cannot be shown with {cmd}")
    log.info("%s:\n%s", path, text)
    return text


def establish_logging(
    debug: bool = True, nopilotlog: bool = False, filename: str = "pilotlog.txt", loglevel: int = 0
) -> None:
    """Send Python's log to standard output and, unless nopilotlog, to a file, in UTC and with secrets blotted out.

    loglevel: 0 for lines in columns, 1 for key=value. What was set up before is replaced. Raises OSError.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if not nopilotlog:
        handlers.append(logging.FileHandler(filename, encoding="utf-8"))
    formatter = BlottingFormatter(_LOG_FORMATS[1 if loglevel == 1 else 0])
    formatter.converter = time.gmtime
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=handlers, force=True)


# ---- copying, moving, naming


def copy(path1: str, path2: str) -> None:
    """Copy a file to another name, or into a directory. Raises NoSuchFile, FileHandlingFailure."""
    _require(path1)
    try:
        shutil.copy2(path1, path2)
    except (OSError, shutil.Error) as exc:
        raise FileHandlingFailure(f"{path1} cannot be copied to {path2}: {exc}") from exc


def move(path1: str, path2: str) -> None:
    """Move a file to another name, or into a directory. Raises NoSuchFile, FileHandlingFailure."""
    _require(path1)
    try:
        shutil.move(path1, path2)
    except (OSError, shutil.Error) as exc:
        raise FileHandlingFailure(f"{path1} cannot be moved to {path2}: {exc}") from exc


def _require(path: str) -> None:
    if not os.path.exists(path):
        raise NoSuchFile(f"{path} is not there")


def create_symlink(from_path: str = "", to_path: str = "") -> None:
    """Make a link `to_path` that leads to `from_path`; one that cannot be made is told to the log."""
    try:
        os.symlink(from_path, to_path)
    except OSError as exc:
        log.warning("no link %s to %s could be made: %s", to_path, from_path, exc.strerror)


def get_nonexistant_path(fname_path: str) -> str:
    """The path, or, where there is such a file, the first free one with an index: out-1.txt, out-2.txt."""
    stem, extension = os.path.splitext(fname_path)
    path, index = fname_path, 0
    while os.path.lexists(path):
        index += 1
        path = f"{stem}-{index}{extension}"
    return path


def update_extension(path: str = "", extension: str = "") -> str:
    """The path with another extension, given with or without its dot."""
    return f"{os.path.splitext(path)[0]}.{extension.lstrip('.')}" if extension else os.path.splitext(path)[0]


def mkdirs(workdir: str, chmod: int | None = 0o770) -> None:
    """Make a directory with those above it. chmod: its mode, None for that of the user's mask. Raises MKDirFailure."""
    try:
        os.makedirs(workdir)
        if chmod is not None:
            os.chmod(workdir, chmod)
    except OSError as exc:
        raise MKDirFailure(f"directory {workdir} cannot be made: {exc.strerror}") from exc


def get_pilot_work_dir(workdir: str) -> str:
    """A name for a pilot's directory below `workdir`, by process and time as chapter 7.3.1 has it; nothing is made."""
    return os.path.join(workdir, f"PanDA_Pilot2_{os.getpid()}_{int(time.time())}")


def copy_pilot_source(workdir: str) -> str:
    """Copy this pilot (package, pilot.py, default.cfg) into a directory; return what went wrong, or nothing."""
    package = Path(__file__).resolve().parents[1]
    try:
        shutil.copytree(package, Path(workdir, package.name), ignore=shutil.ignore_patterns("__pycache__"))
        default = next(path for path in DEFAULT_FILES if path.is_file())
        for path in (default, default.with_name("pilot.py")):
            shutil.copy2(path, workdir)
    except (OSError, shutil.Error, StopIteration) as exc:
        return f"the pilot could not be copied to {workdir}: {exc}"
    return ""


# ---- removing and packing


def remove(path: str) -> int:
    """Remove a file: 0 when it is gone, -1 when it could not be removed."""
    try:
        os.remove(path)
    except OSError as exc:
        log.warning("%s could not be removed: %s", path, exc.strerror)
        return -1
    return 0


def remove_files(workdir: str, files: Iterable[str]) -> int:
    """Remove files of a directory: 0 when all that were there are gone, -1 otherwise."""
    paths = [os.path.join(workdir, name) for name in files]
    return min((remove(path) for path in paths if os.path.lexists(path)), default=0)


def remove_dir_tree(path: str) -> int:
    """Remove a directory with all that is in it: 0 when it is gone, -1 otherwise. A link to one is left alone."""
    problem = remove_tree(Path(path))
    if problem:
        log.warning("%s could not be removed: %s", path, problem)
    return -1 if problem else 0


def rmdirs(path: str) -> bool:
    """Remove a directory with all that is in it; whether it is gone."""
    return remove_dir_tree(path) == 0


def remove_empty_directories(src_dir: str) -> None:
    """Remove the empty directories below `src_dir`, those too that become empty by it; not `src_dir` itself."""
    for folder, _, _ in os.walk(src_dir, topdown=False):
        # One that is not empty, or not ours, stays.
        with suppress(OSError):
            if folder != src_dir:
                os.rmdir(folder)


def remove_core_dumps(workdir: str, pid: int | None = None) -> bool:
    """Remove core dumps from a directory; whether one of them was that of process `pid`.

    What is called core or core.PID and does not begin as a core dump does is somebody's own file, and stays.
    """
    found = [name for name in os.listdir(workdir) if _CORE.match(name) and _is_core(Path(workdir, name))]
    remove_files(workdir, found)
    return pid is not None and f"core.{pid}" in found


def _is_core(path: Path) -> bool:
    if not path.is_file() or path.is_symlink():
        return False
    with suppress(OSError), path.open("rb") as stream:
        return is_core(stream.read(_CORE_HEAD))
    return False


def tar_files(wkdir: str, excludedfiles: Iterable[str], logfile_name: str, attempt: int = 0) -> int:
    """Pack a directory into a tarball in it: 0 when it is made, 1 otherwise.

    excludedfiles: names directly in the directory that are left out. attempt: from 1 on a part of the name that the
    tarball unpacks to. What is packed, and how, is as for a job's log: plain files, none of them endless.
    """
    settings = read().file
    root = Path(wkdir).resolve().name + (f"_{attempt}" if attempt else "")
    skip = [logfile_name, *excludedfiles]
    try:
        bounds = Bounds(settings.log_compression, settings.log_file_limit, settings.log_size_limit, settings.log_files)
        tar_directory(Content(Path(wkdir), skip=skip), Path(wkdir, logfile_name), root, bounds)
    except PilotException as exc:
        log.warning("%s", exc)
        return 1
    return 0
