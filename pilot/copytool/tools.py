"""The copytools there are, by the names that queues give them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Callable, cast

from pilot.common.exception import PilotException
from pilot.copytool.common import CopyTool, Transfer
from pilot.info.filespec import FileSpec

# Brings several files in together and returns the failures by LFN; files that came are marked as copy_in marks them.
BulkCopyIn = Callable[[list[FileSpec], Transfer], Mapping[str, PilotException]]

# Name in a queue's settings -> module below pilot.copytool.
MODULES = {
    "mv": "mv", "https": "https", "lsm": "lsm", "rucio": "rucio", "xrdcp": "xrdcp", "gfal": "gfal", "gfalcopy": "gfal",
    "s3": "s3", "objectstore": "objectstore", "gs": "gs",
}  # fmt: skip

# Opens one file where it lies, and raises PilotException when it cannot be read there.
Opens = Callable[[FileSpec, Transfer], None]

# Scheme of a URL -> the copytool that can tell whether the file there opens; those of other schemes are not looked at.
OPENERS = {
    **dict.fromkeys(("root", "roots", "xroot", "xroots"), "xrdcp"),
    **dict.fromkeys(("https", "http", "davs", "dav"), "https"),
    "file": "mv",
}


def load(name: str) -> CopyTool:
    """The copytool of this name, imported now: what it needs itself is imported when it is used."""
    return cast(CopyTool, importlib.import_module(f"pilot.copytool.{MODULES[name]}"))


def load_bulk(name: str) -> BulkCopyIn | None:
    """The copytool's `copy_in_bulk`, if it has one: for tools whose start, or questions to a server, cost much."""
    return cast("BulkCopyIn | None", getattr(load(name), "copy_in_bulk", None))


def load_opens(name: str) -> Opens:
    """The copytool's `opens`; those in OPENERS have one."""
    return cast(Opens, load(name).opens)  # type: ignore[attr-defined]  # not a part of every copytool
