"""Replicas and protocols are objects here and dictionaries in the documented interface: both ways of reading work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Union

Value = Union[str, int, None]


class Entry:
    """Base of small dataclasses that may also be read as dictionaries: entry["pfn"], entry.get("domain")."""

    def keys(self) -> Iterator[str]:
        """The names there are; with `__getitem__` this is all that dict(entry) needs."""
        return (item.name for item in fields(self))  # type: ignore[arg-type]  # subclasses are dataclasses

    def __getitem__(self, key: str) -> Value:
        """The value of a name. Raises KeyError."""
        if key not in set(self.keys()):
            raise KeyError(key)
        value: Value = getattr(self, key)
        return value

    def get(self, key: str, default: Value = None) -> Value:
        """The value of a name, or the default."""
        return self[key] if key in set(self.keys()) else default
