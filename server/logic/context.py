"""What every decision needs beside its own arguments: settings, database, bell, clock, and who is asking."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from server.counters import Counters
from server.db.database import Database
from server.db.wakeup import Bell
from server.logic.policy import PolicyKeeper
from server.settings import Settings


class Role(StrEnum):
    """What a caller may be (a token lists one or more)."""

    PILOT = "pilot"
    HARVESTER = "harvester"
    USER = "user"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Identity:
    """Who is asking.

    Attributes:
        name: the user's or site's; empty on an open loopback server, where everybody may do everything.
        roles: what the caller may do.
        token: the number of the token that the caller's is, or was issued in exchange for; empty for other credentials.
        until: when that token ends (seconds since 1970); None for never.
        queue, label: all that a pilot may ask jobs for; empty for anything.
        rights: letters of GRIDPREF (wire.md section 6): k key pairs, p proxies and tokens, t token keys of everybody.
        limited: the credential is a limited proxy, which v1 does not take.
    """

    name: str
    roles: frozenset[Role]
    token: str = ""
    until: float | None = None
    queue: str = ""
    label: str = ""
    rights: frozenset[str] = frozenset()
    limited: bool = False

    def may_act_for(self, owner: str) -> bool:
        """Whether this caller may change or see what belongs to a user."""
        return not self.name or Role.OPERATOR in self.roles or self.name == owner


#: Everybody, on a loopback server without tokens.
ANYBODY = Identity("", frozenset(Role))


@dataclass
class RememberedConfig:
    """What this process last read of the configuration table; `configuration` alone looks at it.

    Attributes:
        values: by application, component, key and VO.
        read_time: when it was read, in seconds since 1970; None: not yet.
    """

    values: Mapping[tuple[str, str, str, str], str] = field(default_factory=dict)
    read_time: float | None = None


@dataclass(frozen=True)
class Context:
    """The surroundings of a decision; one for each process.

    Attributes:
        clock: seconds since 1970.
        config: a copy of the operators' configuration.
        counters: what this process counts of its work, for those who watch over the service.
        dice: numbers from 0 to 1, without 1.
        policy: what changes seldom, as this process has read it last.
    """

    settings: Settings
    database: Database
    bell: Bell
    clock: Callable[[], float] = time.time
    config: RememberedConfig = field(default_factory=RememberedConfig)
    counters: Counters = field(default_factory=Counters)
    dice: Callable[[], float] = random.random
    policy: PolicyKeeper = field(default_factory=PolicyKeeper)
