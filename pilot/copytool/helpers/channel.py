"""What a helper and the pilot say to each other, a JSON object a line, and the helper's end of it.

    helper  {"ready": TEXT}             the library is there (its version), or
            {"missing": TEXT}           it is not; the helper ends
    pilot   {"call": NAME, ...}         one of the calls in the helper's CALLS, with its arguments
    helper  {"moved": N}                any figure that changes while bytes move, a few times a second
            {"done": {...}}             the result of the call, or
            {"failed": TEXT, "kind": K} what went wrong in the library's own words; kind: a value of
                                        pilot.copytool.errors.Kind, or empty when only the words tell

A helper is a module here with `start() -> str`, which imports the library and returns its version, and `CALLS`, from
names to functions `(request, moved) -> result`. The pilot closing its end ends the helper.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any, Callable

Request = Mapping[str, Any]
Moved = Callable[[int], None]
Call = Callable[[Request, Moved], Mapping[str, Any]]

# s between two words about progress: the pilot looks twice a second.
_PACE = 0.2


class Failed(Exception):
    """A call failed. kind: a value of pilot.copytool.errors.Kind, or empty when the words are to be looked through."""

    def __init__(self, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.kind = kind


def serve(name: str, descriptor: int) -> None:
    """Answer calls until the pilot closes its end, and end the process without the library's own farewells."""
    with socket.socket(fileno=descriptor) as pilot:
        try:
            module = importlib.import_module(f"pilot.copytool.helpers.{name}")
            _say(pilot, {"ready": module.start()})
        except ImportError as exc:
            _say(pilot, {"missing": str(exc)})
            os._exit(0)
        with pilot.makefile("rb") as lines:
            for line in lines:
                _say(pilot, _answer(module.CALLS, json.loads(line), _progress(pilot)))
    # Libraries with threads of their own can hang when Python takes them down.
    os._exit(0)


def _answer(calls: Mapping[str, Call], request: Request, moved: Moved) -> Mapping[str, object]:
    try:
        return {"done": calls[request["call"]](request, moved)}
    except Failed as exc:
        return {"failed": str(exc), "kind": exc.kind}
    except Exception as exc:  # the top of a call: libraries raise what they like, and the pilot has to know its words
        return {"failed": f"{type(exc).__name__}: {exc}", "kind": ""}


def _progress(pilot: socket.socket) -> Moved:
    last = 0.0

    def moved(count: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PACE:
            last = now
            _say(pilot, {"moved": count})

    return moved


def _say(pilot: socket.socket, message: Mapping[str, object]) -> None:
    pilot.sendall(json.dumps(message).encode() + b"\n")
