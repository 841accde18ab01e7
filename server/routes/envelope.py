"""What methods answer: envelopes in v1, and in the legacy API answers whose encoding is fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reply:
    """An envelope: the three keys every client knows, and what only ours read."""

    data: object = None
    success: bool = True
    message: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """A legacy answer in a fixed encoding, whatever the caller accepts: JSON or url-encoded."""

    content: object
    as_json: bool


def failure(message: str, data: object = None, **extra: object) -> Reply:
    """An envelope that says no, and why."""
    return Reply(data=data, success=False, message=message, extra=extra)
