"""Descriptions from addresses and files, kept in a file for a while, under the documented names.

Import them from pilot.info.dataloader, as chapter 7.3.2 of PanDA's documents has it. The pilot's own way, which also
checks what it is given and uses an old copy when nobody answers, is pilot.info.dataloader.load.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pilot.util.filehandling import write_atomically
from pilot.util.https import Json, parse_json
from pilot.util.requesting import request

__all__ = ["DataLoader", "merge_dict_data"]

log = logging.getLogger(__name__)

_WEB = re.compile(r"https?://", re.IGNORECASE)
# One source: url, and perhaps fname, cache_time, nretry, sleep_time, as load_url_data takes them.
SourceEntry = Mapping[str, Json]


class DataLoader:
    """Loads data from the first of several sources that has it."""

    @classmethod
    def get_file_last_update_time(cls, fname: str) -> float | None:
        """When a file was written last (s since 1970), None when it is not there."""
        with suppress(OSError):
            return os.stat(fname).st_mtime
        return None

    @classmethod
    def is_file_expired(cls, fname: str, cache_time: float = 0) -> bool:
        """Whether a file is older than `cache_time` seconds, or not there."""
        written = cls.get_file_last_update_time(fname)
        return written is None or time.time() - written > cache_time

    @classmethod
    def load_url_data(
        cls, url: str | None, fname: str | None = None, cache_time: float = 0, nretry: int = 3, sleep_time: float = 60
    ) -> str | None:
        """What is at an address (http, https) or in a file, as text; None, and a line in the log, without one.

        fname: a file that keeps it, and has it already if it is not older than cache_time (s). Without an address it is
        all there is. nretry: tries of an address in all; sleep_time: seconds between two of them.
        """
        if fname and (not url or not cls.is_file_expired(fname, cache_time)):
            return _contents(fname)
        found = _fetched(url, nretry, sleep_time) if url and _WEB.match(url) else _contents(url or "")
        if fname and found is not None:
            _keep(Path(fname), found)
        return found

    @classmethod
    def load_data(
        cls,
        sources: Mapping[str, SourceEntry],
        priority: Sequence[str],
        cache_time: float = 60,
        parser: Callable[[str], Json] | None = None,
    ) -> Json:
        """The data of the first source, in the order of `priority`, that has some; None when none has.

        sources: {name: {"url": ..., "fname": ..., "cache_time": ..., "nretry": ..., "sleep_time": ...}}, the address
        alone is needed. parser: makes data of a text, raising ValueError; without one it is read as JSON.
        """
        for name in priority or list(sources):
            entry = {"cache_time": cache_time, **sources.get(name, {})}
            text = cls.load_url_data(**entry)  # type: ignore[arg-type]  # its entries are those arguments
            try:
                data = (parser or parse_json)(text) if text else None
            except ValueError as exc:
                log.warning("source %s has no data: %s", name, exc)
                continue
            if data:
                return data
        return None


def _fetched(url: str, nretry: int, sleep_time: float) -> str | None:
    for left in reversed(range(max(1, nretry))):
        found = request(url, plain=True)
        if isinstance(found, str):
            return found
        if left:
            # Nothing tells when a server that has just failed will be better.
            time.sleep(sleep_time)
    return None


def _contents(path: str) -> str | None:
    try:
        return Path(path[7:] if path.startswith("file://") else path).read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        log.warning("%s cannot be read: %s", path, exc.strerror)
        return None


def _keep(path: Path, text: str) -> None:
    try:
        write_atomically(path, text.encode())
    except OSError as exc:
        log.warning("no copy is kept: %s cannot be written: %s", path, exc.strerror)


def merge_dict_data(
    d1: Mapping[str, Json],
    d2: Mapping[str, Json],
    keys: Sequence[str] = (),
    common: bool = True,
    left: bool = True,
    right: bool = True,
    rec: bool = False,
) -> dict[str, Json]:
    """A copy of d1 with the contents of d2.

    keys: only these are taken from d2, all if there are none. common: take those of d2 that d1 has, too. left, right:
    keep those that only d1, or only d2, has. rec: go into dictionaries that both have.
    """
    merged: dict[str, Json] = {}
    for key in dict.fromkeys([*d1, *d2]):
        in_first, in_second = key in d1, key in d2 and (not keys or key in keys)
        if in_first and in_second:
            one, two = d1[key], d2[key]
            if common and rec and isinstance(one, dict) and isinstance(two, dict):
                merged[key] = merge_dict_data(one, two, (), common, left, right, rec)
            else:
                merged[key] = two if common else one
        elif in_first and left:
            merged[key] = d1[key]
        elif in_second and right:
            merged[key] = d2[key]
    return merged
