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
# Schemes of object stores, whose raw protocols and resources are ways into them too.
BUCKET_SCHEMES = ("s3", "gs")
# Google's own service, whose buckets are named without it.
GOOGLE_HOST = "storage.googleapis.com"
# Objects of a storage that names a bucket and no path lie below this, as those of `get_path` do.
_BUCKET_PREFIX = "rucio"


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

    @property
    def root(self) -> str:
        """The URL below which files lie, without a slash at its end."""
        # "file://" has no host; its slashes are not those of a path.
        endpoint = self.endpoint if self.endpoint.endswith("://") else self.endpoint.rstrip("/")
        # In XRootD's URLs the slash after the host belongs to the host; a path with one slash is a relative one.
        slash = "//" if self.scheme in XROOTD_SCHEMES else "/"
        return f"{endpoint}{slash}{self.path.strip('/')}"


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

        An object store without any has those of `rprotocols`, else the bucket of `resource`. Raises QueuedataNotOK when
        the list is malformed.
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
        return self._of_bucket()

    def _of_bucket(self) -> list[Protocol]:
        try:
            raw = [_protocol(item) for _, item in sorted(self.rprotocols.items()) if isinstance(item, dict)]
            found = [one for one in raw if one.scheme in BUCKET_SCHEMES]
            bucket = printable(str(self.resource.get("bucket_id") or ""), "bucket_id")
            scheme, _, host = printable(str(self.resource.get("endpoint") or ""), "endpoint").partition("://")
        except ConversionFailure as exc:
            raise QueuedataNotOK(f"storage {self.name}: rprotocols or resource is wrong: {exc.diag}") from exc
        # A bucket_id that is a number is that of the storage (InfoService.get_ddmendpoint), and no bucket's name.
        if found or not scheme or not bucket or bucket.isdigit():
            return found
        if scheme == "gs" or host == GOOGLE_HOST:
            return [Protocol(f"gs://{bucket}", _BUCKET_PREFIX)]
        return [Protocol(f"s3://{host.rstrip('/')}", f"{bucket}/{_BUCKET_PREFIX}")]

    def surl(self, protocol: Protocol, scope: str, lfn: str) -> str:
        """Where a file lies in this storage. Raises PilotException(NONDETERMINISTICDDM) when no rule says where."""
        if not self.is_deterministic:
            text = f"storage {self.name} is not deterministic: the place of {scope}:{lfn} cannot be computed"
            raise PilotException(text, code=ErrorCodes.NONDETERMINISTICDDM)
        return f"{protocol.root}/{deterministic_path(scope, lfn)}"

    def roots(self) -> list[str]:
        """The URLs below which this storage keeps its files, by whatever protocol. Raises as `protocols` does."""
        found = (one.root for activity in self.arprotocols for one in self.protocols((activity,)))
        return list(dict.fromkeys(found))

    def surls(self, activities: tuple[str, ...], scope: str, lfn: str, *, read: bool) -> list[str]:
        """All places of a file in this storage, best first; of a file that somebody has given its own way, this alone.

        Raises as `protocols` and `surl` do.
        """
        signed = self.signed_url(lfn, read=read)
        return [signed] if signed else [self.surl(one, scope, lfn) for one in self.protocols(activities)]

    def signed_url(self, lfn: str, *, read: bool) -> str:
        """The URL that somebody has signed for this file: `resource {"signed": {LFN: {"get": URL, "put": URL}}}`.

        Empty when there is none.
        """
        signed = self.resource.get("signed")
        found = signed.get(lfn) if isinstance(signed, dict) else None
        url = found.get("get" if read else "put") if isinstance(found, dict) else None
        return url if isinstance(url, str) else ""


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
