"""Give back memory that was only needed to start: pages of programs and libraries, which the file system still has.

Sites charge a slot by the resident memory of its processes, and a third of a Python process's is code that ran once.
A page that is used again comes back from the file system's cache. The guard imports this too, so it imports nothing.
"""

from __future__ import annotations

import ctypes

# madvise(2): these pages are not expected to be used soon; a clean page of a file is simply unmapped.
_MADV_DONTNEED = 4


def release_file_pages(smaps: str = "/proc/self/smaps") -> int:
    """Unmap the clean, unwritable pages of files from this process; return how many mappings were looked at.

    A mapping with anonymous pages is left alone: it holds what the loader has changed, which no file has. Systems
    without /proc or madvise keep what they have.
    """
    released = 0
    span: tuple[int, int] | None = None
    try:
        advise = ctypes.CDLL(None).madvise
        with open(smaps, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                words = line.split()
                if not words[0].endswith(":"):
                    span = _file_mapping(words)
                elif words[0] == "Anonymous:" and span is not None and words[1] == "0":
                    start, end = span
                    advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)
                    released += 1
    except (OSError, AttributeError, ValueError, IndexError):
        return released
    return released


def _file_mapping(words: list[str]) -> tuple[int, int] | None:
    """Start and end of a mapping of a file that is private and cannot be written; None for any other."""
    if len(words) < 6 or not words[5].startswith("/") or "w" in words[1] or not words[1].endswith("p"):
        return None
    start, end = words[0].split("-")
    return int(start, 16), int(end, 16)
