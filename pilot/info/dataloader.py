"""Load a description from the first of several sources that has it, and keep a copy for when none answers."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from pilot.common.exception import PilotException
from pilot.util.filehandling import write_atomically
from pilot.util.https import Json, parse_json
from pilot.util.lazynames import lazily

if TYPE_CHECKING:
    from pilot.info.datasources import *  # noqa: F403
else:
    __getattr__ = lazily(__name__, "pilot.info.datasources")

Fetch = Callable[[str], bytes]
Accept = Callable[[dict[str, Json]], dict[str, Json]]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """name: for messages; address: URL or path."""

    name: str
    address: str


@dataclass(frozen=True)
class Loaded:
    """A description with the source it came from."""

    data: dict[str, Json]
    source: str


class NoSourceAnswered(Exception):
    """None of the sources could be read; the text tells what each said."""


class NoSourceValid(Exception):
    """At least one source answered, but none with a description; the text tells what each said."""


def load(
    sources: Sequence[Source], fetch: Fetch, accept: Accept, cache: Path | None, max_age: float, log: Log
) -> Loaded:
    """Return the first description that a source gives.

    sources: in order of priority. fetch: reads a URL and returns its body, raising PilotException. accept: takes the
    description out of a source's object, raising ValueError when it holds none. cache: file in which the description
    is kept, and which is used when no source answers, unless it is older than max_age seconds.
    Raises NoSourceAnswered or NoSourceValid.
    """
    said: list[str] = []
    answered = False
    for source in sources:
        try:
            body = _read(source.address, fetch)
        except (PilotException, OSError) as exc:
            said.append(f"{source.name} ({source.address}): {getattr(exc, 'diag', exc)}")
            continue
        answered = True
        try:
            data = accept(_parse(body))
        except ValueError as exc:
            said.append(f"{source.name} ({source.address}): {exc}")
            continue
        if cache is not None:
            with suppress(OSError):
                write_atomically(cache, json.dumps(data).encode())
        return Loaded(data, source.name)
    if cache is not None and not answered:
        kept = _from_cache(cache, max_age, accept)
        if kept is not None:
            log(f"no source answers ({'; '.join(said)}): the copy in {cache} is used")
            return Loaded(kept, f"copy in {cache}")
    raise (NoSourceValid if answered else NoSourceAnswered)("; ".join(said) or "no source is configured")


def _read(address: str, fetch: Fetch) -> bytes:
    if address.startswith(("http://", "https://")):
        return fetch(address)
    return Path(address[7:] if address.startswith("file://") else address).read_bytes()


def _parse(body: bytes) -> dict[str, Json]:
    try:
        data = parse_json(body)
    except ValueError as exc:
        shown = body[:60].decode("utf-8", "replace")
        raise ValueError(f"not JSON ({exc}): {shown!r}") from None
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data


def _from_cache(cache: Path, max_age: float, accept: Accept) -> dict[str, Json] | None:
    try:
        if time.time() - cache.stat().st_mtime > max_age:
            return None
        return accept(_parse(cache.read_bytes()))
    except (OSError, ValueError):
        return None
