"""Has the kernel killed a payload for lack of memory? The evidence, gathered while it runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from pilot.util.cgroups import MemoryGroup, memory_group, oom_victims, own_memory_group, since_boot
from pilot.util.processes import TreeSample

# The kernel's log names processes; more than so many of a payload's are not remembered.
_PIDS = 10_000


@dataclass
class OomWatch:
    """Made just before the payload starts. shared: the group that the pilot is in, as a rule the whole slot's."""

    shared: MemoryGroup | None = field(default_factory=lambda: memory_group(os.getpid()))
    own: MemoryGroup | None = None
    _before: int = 0
    _in_own: int = 0
    _since: float = field(default_factory=since_boot)
    _pids: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Count what was killed in the slot before."""
        self._before = (self.shared.oom_kills() or 0) if self.shared is not None else 0

    def notice(self, root: int, sample: TreeSample) -> int | None:
        """Take a sample of the payload below `root`; what its own group holds (kB), or None when it has none.

        A group of its own is gone with the payload, so that its counter is read while it is there.
        """
        if len(self._pids) < _PIDS:
            self._pids.update(sample.pids)
        if self.own is None:
            self.own = own_memory_group(sample.pids[-1] if sample.pids else root)
        if self.own is None:
            return None
        self._in_own = max(self._in_own, self.own.oom_kills() or 0)
        return self.own.charged()

    def evidence(self, killed: bool) -> str:
        """Why the payload's end was the kernel's doing; empty when nothing speaks for it.

        killed: its first process, or a shell's last one, was ended by SIGKILL that nobody here has sent. Without that,
        only what names the payload's own processes or group counts: others may be in the slot's group too.
        """
        victims = oom_victims(self._pids, self._since)
        said = list(victims)
        own = max(self._in_own, self.own.oom_kills() or 0) if self.own is not None else 0
        if self.own is not None and own:
            said += [self._told(self.own, own)]
        # Version 2 counts what was killed in a group in all groups above it, too.
        elif self.shared is not None and (killed or victims):
            kills = (self.shared.oom_kills() or 0) - self._before
            said += [self._told(self.shared, kills)] if kills > 0 else []
        return "; ".join(said)

    @staticmethod
    def _told(group: MemoryGroup, kills: int) -> str:
        limit = group.limit()
        allowed = f", which may hold {limit // 1024} MB" if limit is not None else ""
        return f"{kills} process(es) killed for memory in control group {group.directory}{allowed}"
