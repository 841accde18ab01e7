"""When each of several checks was made last (a documented name)."""

from __future__ import annotations

import time

# What is checked, by the documented form of its name: ct_ and a word.
_CHECKS = (
    "start", "proxy", "looping", "looping_last_touched", "diskspace", "memory", "process", "heartbeat", "kill", "lease",
)  # fmt: skip


class MonitoringTime:
    """The time of each check (whole seconds since 1970), at first that at which the object was made."""

    def __init__(self) -> None:
        """Begin now."""
        now = int(time.time())
        self._times = {f"ct_{name}": now for name in _CHECKS}

    def get(self, key: str) -> int:
        """When a check was made. Raises AttributeError for a name that is none."""
        if key not in self._times:
            raise AttributeError(f"there is no check {key}, only {', '.join(self._times)}")
        return self._times[key]

    def update(self, key: str, modtime: int | None = None) -> None:
        """A check was made now, or at `modtime`. Raises AttributeError for a name that is none."""
        self.get(key)
        self._times[key] = int(time.time()) if modtime is None else int(modtime)
