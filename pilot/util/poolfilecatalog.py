"""PoolFileCatalog.xml: which file lies where, in the form that POOL, and with it frameworks of the field, read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from pilot.util.filehandling import write_atomically

_HEAD = """<?xml version="1.0" encoding="UTF-8" standalone="no" ?>
<!DOCTYPE POOLFILECATALOG SYSTEM "InMemory">
<POOLFILECATALOG>
"""
_FILE = """  <File ID={guid}>
    <physical>
      <pfn filetype="ROOT_All" name={pfn}/>
    </physical>
    <logical>
      <lfn name={lfn}/>
    </logical>
  </File>
"""
_TAIL = "</POOLFILECATALOG>\n"


@dataclass(frozen=True)
class CatalogueEntry:
    """guid: unique in a catalogue; lfn: the file's name; pfn: where a program opens it, a name or a URL."""

    guid: str
    lfn: str
    pfn: str


def catalogue(entries: Iterable[CatalogueEntry]) -> str:
    """The text of a catalogue."""
    files = (_FILE.format(guid=quoteattr(e.guid), pfn=quoteattr(e.pfn), lfn=quoteattr(e.lfn)) for e in entries)
    return _HEAD + "".join(files) + _TAIL


def write_catalogue(path: Path, entries: Iterable[CatalogueEntry]) -> None:
    """Write a catalogue in one step: whoever reads it sees all of it. Raises OSError."""
    write_atomically(path, catalogue(entries).encode("utf-8"))
