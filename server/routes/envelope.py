"""What a v1 method answers."""

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


def failure(message: str, data: object = None, **extra: object) -> Reply:
    """An envelope that says no, and why."""
    return Reply(data=data, success=False, message=message, extra=extra)
