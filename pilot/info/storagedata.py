"""The description of a storage endpoint (RSE) and the paths of files in it (wire.md, section 1)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import ConversionFailure, PilotException, QueuedataNotOK
from pilot.info.basedata import BaseData, printable
from pilot.info.entry import Entry
from pilot.util.https import Json

# Schemes of XRootD: with and without TLS, and their older names.
XROOTD_SCHEMES = ("root", "roots", "xroot", "xroots")


@dataclass(frozen=True)
class Protocol(Entry):
    """One way into a storage: endpoint ("root://host:1094"), path below it, and what the site calls it."""

    endpoint: str
    path: str
    flavour: str = ""

    @property
    def scheme(self) -> str:
        """The scheme of the endpoint; a bare path is a local file."""
        return self.endpoint.partition("://")[0] if "://" in self.endpoint else "file"


class StorageData(BaseData):
    """Settings of one storage endpoint."""

    _keys: ClassVar[dict[type, tuple[str, ...]]] = {
        int: ("pk",),
        str: ("name", "state", "site", "type", "token"),
        dict: ("arprotocols", "rprotocols", "resource"),
        bool: ("is_deterministic",),
    }

    pk: int = 0
    name: str = ""
    state: str = ""
    site: str = ""
    type: str = ""
    token: str = ""
    is_deterministic: bool = True

    def __init__(self, data: Mapping[str, Json]) -> None:
        """Take the description of one endpoint. Raises QueuedataNotOK, naming the field."""
        self.arprotocols: dict[str, Json] = {}
        self.rprotocols: dict[str, Json] = {}
        self.resource: dict[str, Json] = {}
        try:
            self._load_data(data, {"pk": "id"})
        except ConversionFailure as exc:
            raise QueuedataNotOK(f"the storage description of {data.get('name')} is wrong: {exc.diag}") from exc

    def protocols(self, activities: tuple[str, ...]) -> list[Protocol]:
        """The protocols for the first of the activities that this storage knows, in its own order.

        Raises QueuedataNotOK when the list is malformed.
        """
        for activity in (*activities, "default"):
            found = self.arprotocols.get(activity)
            if found is None:
                continue
            if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
                raise QueuedataNotOK(f"storage {self.name}: arprotocols[{activity}] is not a list of protocols")
            try:
                return [_protocol(item) for item in found if isinstance(item, dict)]
            except ConversionFailure as exc:
                raise QueuedataNotOK(f"storage {self.name}: arprotocols[{activity}] is wrong: {exc.diag}") from exc
        return []

    def surl(self, protocol: Protocol, scope: str, lfn: str) -> str:
        """Where a file lies in this storage. Raises PilotException(NONDETERMINISTICDDM) when no rule says where."""
        if not self.is_deterministic:
            text = f"storage {self.name} is not deterministic: the place of {scope}:{lfn} cannot be computed"
            raise PilotException(text, code=ErrorCodes.NONDETERMINISTICDDM)
        # "file://" has no host; its slashes are not those of a path.
        endpoint = protocol.endpoint if protocol.endpoint.endswith("://") else protocol.endpoint.rstrip("/")
        # In XRootD's URLs the slash after the host belongs to the host; a path with one slash is a relative one.
        slash = "//" if protocol.scheme in XROOTD_SCHEMES else "/"
        return f"{endpoint}{slash}{protocol.path.strip('/')}/{deterministic_path(scope, lfn)}"


def deterministic_path(scope: str, lfn: str) -> str:
    """scope/xx/yy/LFN, where xx and yy are the first two bytes of md5("scope:LFN").

    Scopes of users and groups become a directory a part (user.jdoe -> user/jdoe), as Rucio's rule for deterministic
    storages has it; other scopes are one directory.
    """
    # Not for security: the hash only spreads files over directories.
    digest = hashlib.md5(f"{scope}:{lfn}".encode(), usedforsecurity=False).hexdigest()
    folder = scope.replace(".", "/") if scope.startswith(("user.", "group.")) else scope
    return f"{folder}/{digest[0:2]}/{digest[2:4]}/{lfn}"


def _protocol(item: Mapping[str, Json]) -> Protocol:
    endpoint, path, flavour = (printable(str(item.get(n) or ""), n) for n in ("endpoint", "path", "flavour"))
    return Protocol(endpoint, path, flavour)
