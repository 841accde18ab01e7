"""One credential of the pilot: the file it is in, how long it is good for, and when it is to be renewed."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Protocol

from pilot.util.filehandling import write_secret
from pilot.util.proxy import date_of, parse_proxy
from pilot.util.tokens import is_token, read_token


class Issuer(Protocol):
    """Where fresh credentials come from: a dispatcher. All raise RequestFailed; timeout: seconds for each request."""

    def renew_token(self, client_name: str, timeout: float) -> str: ...

    def get_access_token(self, client_name: str, timeout: float) -> str: ...

    def get_proxy(self, role: str, dn: str, timeout: float) -> str: ...


@dataclass(frozen=True)
class Life:
    """From when to when something is good (seconds since the epoch). ends 0: nobody knows."""

    begins: float = 0.0
    ends: float = 0.0

    def left(self, now: float) -> float:
        """Seconds to its end, endless when that is not known."""
        return self.ends - now if self.ends else float("inf")

    def outlives(self, other: Life) -> bool:
        """Whether this one ends later."""
        return self.left(0.0) > other.left(0.0)


# Of a credential that is still to be fetched: it has ended long ago.
MISSING = Life(0.0, 1.0)


def pause_after(failures: int, pause: float, pause_max: float, left: float) -> float:
    """Seconds between a renewal that failed and the next try; they double with every failure up to a maximum.

    left: seconds that are left of it. No pause takes more than half of them, but for the first one, the shortest.
    """
    return min(pause * 2.0 ** min(failures - 1, 30), pause_max, max(left / 2, pause)) if failures else 0.0


def renewal_at(life: Life, fraction: float, not_before: float = 0.0) -> float:
    """When a renewal is to be tried (seconds since the epoch); endless for a life of unknown end.

    fraction: of its life that must have passed. not_before: end of the pause after a failure.
    """
    if not life.ends:
        return float("inf")
    return max(life.begins + fraction * max(0.0, life.ends - life.begins), not_before)


@dataclass
class Kept:
    """source: the file it was found in; path: the file it is kept in, the source or a copy of it. read: its life from
    its contents, raising ValueError. fetch: a fresh one from the server for the present contents; None: there is none
    to be had.

    renewed: the server has given a fresh one. failures, not_before: tries since then that failed, and when the next may
    be made. complaint: what the last said. warned: how much of its end has been told (0 nothing, 2 that it has come).
    """

    name: str
    source: Path
    path: Path
    read: Callable[[bytes], Life]
    fetch: Callable[[Issuer, bytes], str] | None = None
    contents: bytes = b""
    life: Life = field(default_factory=Life)
    renewed: bool = False
    failures: int = 0
    not_before: float = 0.0
    complaint: str = ""
    warned: int = 0
    _seen: tuple[int, ...] = ()

    @property
    def is_renewed(self) -> bool:
        """Whether the server renews it: then it lasts as long as the pilot."""
        return self.renewed and not self.failures

    @property
    def why(self) -> str:
        """The end of a sentence on what is wrong with it: why it was not renewed."""
        return f"; it could not be renewed: {self.complaint}" if self.complaint else ""

    def read_again(self) -> bool:
        """Take what somebody else has put into the file, if it lasts longer than what is there. Whether it did.

        Raises OSError when it cannot be written to the copy.
        """
        try:
            seen = self._look()
            if seen == self._seen:
                return False
            contents = self.source.read_bytes()
            life = self.read(contents)
        except (OSError, ValueError):
            return False
        self._seen = seen
        if contents == self.contents or (self.contents and life.ends and not life.outlives(self.life)):
            return False
        self.adopt(contents, life, write=self.path != self.source)
        return True

    def adopt(self, contents: bytes, life: Life, *, write: bool) -> None:
        """Take new contents. Raises OSError when they are to be written and cannot be: then all is as before."""
        if write:
            write_secret(self.path, contents)
        self.contents, self.life = contents, life
        self.failures, self.not_before, self.complaint, self.warned = 0, 0.0, "", 0
        if self.path == self.source:
            with suppress(OSError):
                self._seen = self._look()

    def until(self) -> str:
        """The end of a sentence on a fresh one: how long it is good for."""
        return f", good until {date_of(self.life.ends)}" if self.life.ends else ""

    def _look(self) -> tuple[int, ...]:
        found = self.source.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size


def token_life(contents: bytes) -> Life:
    """The life of a token; one that does not say when it began begins when it is seen. Raises ValueError."""
    text = contents.decode("ascii").strip()
    if not is_token(text):
        raise ValueError("it is no token")
    info = read_token(text)
    return Life(info.begins or time.time(), info.ends)


def proxy_life(contents: bytes) -> Life:
    """The life of a proxy with its VOMS attributes. Raises ValueError."""
    info = parse_proxy(contents)
    return Life(info.begins, info.usable_until)


def may_replace(path: Path) -> bool:
    """Whether a file can be replaced where it is: a plain file of our own in a folder that we may write to."""
    try:
        found = path.lstat()
    except OSError:
        return False
    own = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
    return own and os.access(path.parent, os.W_OK)
