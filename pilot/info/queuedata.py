"""The description of a panda queue: the keys pilots need of it (wire.md, section 1), cast and validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pilot.common.exception import ConversionFailure, QueuedataNotOK
from pilot.info.basedata import BaseData
from pilot.util.https import Json

_OUTSIDE_NAMES = {
    "resource": "panda_resource",
    "site": "atlas_site",
    "platform": "cmtconfig",
}


class QueueData(BaseData):
    """Settings of one panda queue. Sizes in MB as on the wire, times in seconds.

    maxwdir and maxinputsize are 0 when there is no limit; timefloor is minutes on the wire and seconds here.
    container_type maps who starts containers to the runtime: {"pilot": "singularity"}.
    """

    _keys: ClassVar[dict[type, tuple[str, ...]]] = {
        int: (
            "timefloor", "maxwdir", "pledgedcpu", "es_stageout_gap", "corecount", "maxrss", "maxtime", "maxinputsize",
        ),
        str: (
            "name", "type", "appdir", "catchall", "platform", "container_options", "container_type_text", "resource",
            "state", "status", "site", "resource_type", "environ", "cloud", "capability",
        ),
        dict: ("copytools", "acopytools", "astorages", "aprotocols", "acopytools_schemas", "params"),
        bool: ("allow_lan", "allow_wan", "direct_access_lan", "direct_access_wan", "is_cvmfs", "use_pcache"),
    }  # fmt: skip

    timefloor: int = 0
    maxwdir: int = 0
    pledgedcpu: int = 0
    es_stageout_gap: int = 0
    corecount: int = 1
    maxrss: int = 0
    maxtime: int = 0
    maxinputsize: int = 0
    name: str = ""
    type: str = ""
    appdir: str = ""
    catchall: str = ""
    platform: str = ""
    container_options: str = ""
    container_type_text: str = ""
    resource: str = ""
    state: str = ""
    status: str = ""
    site: str = ""
    resource_type: str = ""
    environ: str = ""
    cloud: str = ""
    capability: str = ""
    allow_lan: bool = True
    allow_wan: bool = False
    direct_access_lan: bool = False
    direct_access_wan: bool = False
    is_cvmfs: bool = True
    use_pcache: bool = False

    def __init__(self, data: Mapping[str, Json]) -> None:
        """Take the description of one queue. Raises QueuedataNotOK, naming the field."""
        self.copytools: dict[str, Json] = {}
        self.acopytools: dict[str, Json] = {}
        self.astorages: dict[str, Json] = {}
        self.aprotocols: dict[str, Json] = {}
        self.acopytools_schemas: dict[str, Json] = {}
        self.params: dict[str, Json] = {}
        self.container_type: dict[str, str] = {}
        try:
            self._load_data(data, {**_OUTSIDE_NAMES, "container_type_text": "container_type"})
        except ConversionFailure as exc:
            raise QueuedataNotOK(f"the queue description is wrong: {exc.diag}") from exc

    def clean(self) -> None:
        """Derive what needs more than one field."""
        self.name = self.name or self.resource
        for item in self.container_type_text.split(";"):
            runtime, _, who = item.partition(":")
            if runtime.strip() and who.strip():
                self.container_type[who.strip()] = runtime.strip()

    def clean__timefloor(self, raw: Json, value: int) -> int:
        """Minutes outside, seconds inside."""
        return value * 60

    def clean__corecount(self, raw: Json, value: int) -> int:
        """An unset core count means one core."""
        return max(value, 1)

    def clean__maxwdir(self, raw: Json, value: int) -> int:
        """0, negative and absent mean that there is no limit."""
        return max(value, 0)

    def clean__maxinputsize(self, raw: Json, value: int) -> int:
        """The same; -1 is what queues say for no limit."""
        return max(value, 0)

    def activity_list(self, table: str, activities: tuple[str, ...]) -> list[str]:
        """The names that `acopytools` or `astorages` lists for the first of the activities that it knows.

        Raises QueuedataNotOK when the entry is neither a list of names nor one name.
        """
        entries: dict[str, Json] = getattr(self, table)
        for activity in (*activities, "default"):
            found = entries.get(activity)
            if not found:
                continue
            names = [found] if isinstance(found, str) else found
            if not isinstance(names, list):
                raise QueuedataNotOK(f"the queue description is wrong: {table}[{activity}] is not a list of names")
            return [str(name) for name in names]
        return []

    def resolve_allowed_schemas(self, activity: str | list[str], copytool: str = "default") -> list[str]:
        """The schemes that a copytool may use for the first of the activities that `acopytools_schemas` knows.

        It is {copytool: {activity: [schemes]}} or {copytool: [schemes]}. Empty: all that the copytool speaks.
        """
        activities = [activity] if isinstance(activity, str) else activity
        for tool in (copytool, "default"):
            allowed = self.acopytools_schemas.get(tool)
            if isinstance(allowed, dict):
                allowed = next((allowed[one] for one in (*activities, "default") if allowed.get(one)), None)
            if isinstance(allowed, (str, list)) and allowed:
                return [allowed] if isinstance(allowed, str) else [str(scheme) for scheme in allowed]
        return []

    def catchall_value(self, key: str) -> str:
        """The value of `key=value` in catchall, "True" for a bare word, empty when it is not there."""
        for item in self.catchall.split(","):
            name, equals, value = item.strip().partition("=")
            if name == key:
                return value if equals else "True"
        return ""
