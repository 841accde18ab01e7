"""The information service: descriptions of the queue and of its storages, from sources in order of priority.

Sources are, in this order: what the environment overrides, the server's cache (or --queuedata-url), a shared file
system, the information system. What a job overrides is laid over it for that job alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import NotDefined, PilotException, QueuedataFailure, QueuedataNotOK
from pilot.info import dataloader
from pilot.info.queuedata import QueueData
from pilot.info.storagedata import StorageData
from pilot.util.config import InformationSettings
from pilot.util.https import Json, parse_json

# The description of the queue that `--job FILE` uses when no other is given: nothing but local files.
LOCAL_QUEUE: dict[str, Json] = {
    "name": "LOCAL", "panda_resource": "LOCAL", "state": "ACTIVE", "status": "online", "corecount": 1,
    "copytools": {"mv": {"setup": ""}}, "acopytools": {"default": ["mv"]}, "astorages": {}, "maxwdir": 0,
}  # fmt: skip

QUEUE_OVERRIDE = "PILOTKIT_QUEUEDATA"


@dataclass(frozen=True)
class InfoService:
    """queuedata: the queue; raw_queue, raw_storages: what the sources said, storages by name.

    One for the pilot, and a changed copy for a job that overrides.
    """

    queuedata: QueueData
    raw_queue: Mapping[str, Json]
    raw_storages: Mapping[str, Json]

    @classmethod
    def build(cls, queue: Mapping[str, Json], storages: Mapping[str, Json]) -> InfoService:
        """Validate the queue's description and those of the storages that it names.

        The others, of the whole experiment perhaps, are only looked at when a job names them: a mistake in one of them
        is no reason to stop work everywhere. Raises QueuedataNotOK, naming queue or storage and field.
        """
        service = cls(QueueData(queue), queue, storages)
        for activity in service.queuedata.astorages:
            for name in service.queuedata.activity_list("astorages", (activity,)):
                if name in storages:
                    service.storage(name)
        return service

    def for_job(self, queue: Mapping[str, Json], storages: Mapping[str, Json]) -> InfoService:
        """This service with a job's own settings over it. Raises QueuedataNotOK."""
        if not queue and not storages:
            return self
        changed = dict(self.raw_storages)
        for name, raw in storages.items():
            base = changed.get(name)
            changed[name] = {**base, **raw} if isinstance(base, dict) and isinstance(raw, dict) else raw
        return self.build({**self.raw_queue, **queue}, changed)

    def storage(self, name: str) -> StorageData:
        """The description of an endpoint. Raises PilotException(NOSTORAGE) when there is none, QueuedataNotOK."""
        if name not in self.raw_storages:
            known = ", ".join(sorted(self.raw_storages)[:10]) or "none"
            text = f"storage {name} has no description (described are: {known})"
            raise PilotException(text, code=ErrorCodes.NOSTORAGE)
        raw = self.raw_storages[name]
        if not isinstance(raw, dict):
            raise QueuedataNotOK(f"the storage description of {name} is not an object")
        return StorageData({"name": name, **raw})

    def resolve_queuedata(self, pandaqueue: str) -> QueueData:
        """The description of the queue. Raises NotDefined for another one than that of this service."""
        if pandaqueue != self.queuedata.name:
            raise NotDefined(f"queue {pandaqueue} has no description here, only {self.queuedata.name} has")
        return self.queuedata

    def resolve_storage_data(self, ddmendpoints: Sequence[str] = ()) -> dict[str, StorageData]:
        """Descriptions of storages by their names (default: of all).

        Raises PilotException(NOSTORAGE), QueuedataNotOK.
        """
        return {name: self.storage(name) for name in ddmendpoints or self.raw_storages}

    def resolve_ddmendpoint_storageid(self, ddmendpoint: Sequence[str] = ()) -> dict[str, int]:
        """The numbers of storages by their names (default: of all). Raises as resolve_storage_data does."""
        return {name: storage.pk for name, storage in self.resolve_storage_data(ddmendpoint).items()}

    def get_storage_id(self, ddmendpoint: str) -> int:
        """The number of a storage. Raises NotDefined when it has no description."""
        if ddmendpoint not in self.raw_storages:
            raise NotDefined(f"storage {ddmendpoint} has no description")
        return self.storage(ddmendpoint).pk

    def get_ddmendpoint(self, storage_id: int) -> str:
        """The storage with this number. Raises NotDefined when there is none."""
        found = [name for name, number in self.resolve_ddmendpoint_storageid().items() if number == storage_id]
        if not found:
            raise NotDefined(f"no storage has the number {storage_id}")
        return found[0]


@dataclass(frozen=True)
class Sources:
    """Where a pilot looks: names for the addresses, what the command line gives instead, and the tools."""

    settings: InformationSettings
    server: str
    queue: str
    queue_address: str
    storage_address: str
    override: str
    cache_dir: Path | None
    fetch: dataloader.Fetch
    log: Callable[[str], None]


def load(sources: Sources) -> InfoService:
    """Fetch and validate the descriptions of a queue and of all storages.

    Raises QueuedataFailure when no source answers, QueuedataNotOK when an answer is no description of this queue,
    PilotException(PANDAQUEUENOTACTIVE, PANDAQUEUENOTONLINE) when the queue takes no pilots.
    """
    settings = sources.settings
    found = _load(sources, "queuedata", lambda data: _of_queue(data, sources.queue),
                  sources.queue_address or settings.queuedata_server,
                  settings.queuedata_shared, settings.queuedata_infosys)  # fmt: skip
    storages = _load(sources, "storagedata", _of_storages, sources.storage_address or settings.storagedata_server,
                     settings.storagedata_shared, settings.storagedata_infosys)  # fmt: skip
    sources.log(f"queue description from {found.source}, storage descriptions from {storages.source}")
    service = InfoService.build({**found.data, **_override(sources.override)}, storages.data)
    check_open(service.queuedata)
    return service


def local() -> InfoService:
    """The built-in description for running a job from a file."""
    return InfoService.build(LOCAL_QUEUE, {})


def check_open(queue: QueueData) -> None:
    """Raises PilotException when the queue takes no pilots.

    The states test, brokeroff and paused are the dispatcher's to judge.
    """
    if queue.state.upper() != "ACTIVE":
        text = f"queue {queue.name} is {queue.state or 'without a state'}; only ACTIVE queues run jobs"
        raise PilotException(text, code=ErrorCodes.PANDAQUEUENOTACTIVE)
    if queue.status.lower() == "offline":
        raise PilotException(f"queue {queue.name} is set offline", code=ErrorCodes.PANDAQUEUENOTONLINE)


def _load(sources: Sources, kind: str, accept: dataloader.Accept, *addresses: str) -> dataloader.Loaded:
    names = ("server cache", "shared file system", "information system")
    listed = [dataloader.Source(name, _fill(address, sources)) for name, address in zip(names, addresses) if address]
    cache = sources.cache_dir / f".{kind}.{quote(sources.queue, safe='')}.json" if sources.cache_dir else None
    try:
        return dataloader.load(listed, sources.fetch, accept, cache, sources.settings.cache_age, sources.log)
    except dataloader.NoSourceAnswered as exc:
        raise QueuedataFailure(f"no {kind} for queue {sources.queue}: {exc}") from exc
    except dataloader.NoSourceValid as exc:
        raise QueuedataNotOK(f"no usable {kind} for queue {sources.queue}: {exc}") from exc


def _fill(address: str, sources: Sources) -> str:
    return address.replace("{pandaserver}", sources.server).replace("{pandaqueue}", quote(sources.queue, safe=""))


def _of_queue(data: dict[str, Json], queue: str) -> dict[str, Json]:
    """A source holds either the description itself or an object with one description a queue. Raises ValueError."""
    if "state" in data or "copytools" in data or "nickname" in data:
        return data
    inner = data.get(queue)
    if isinstance(inner, dict):
        return inner
    raise ValueError(f"it holds no queue {queue} (it holds: {', '.join(sorted(data)[:5]) or 'nothing'})")


def _of_storages(data: dict[str, Json]) -> dict[str, Json]:
    """Descriptions by the names of the storages. Raises ValueError for an object without any, an error say."""
    if data and not any(isinstance(description, dict) for description in data.values()):
        raise ValueError(f"it holds no storage descriptions (it holds: {', '.join(sorted(data)[:5])})")
    return data


def _override(text: str) -> dict[str, Json]:
    """Settings from the environment: a JSON object, or the path of a file with one."""
    if not text:
        return {}
    try:
        data = parse_json(text if text.lstrip().startswith("{") else Path(text).read_bytes())
    except (OSError, ValueError) as exc:
        raise QueuedataNotOK(f"{QUEUE_OVERRIDE} is neither a JSON object nor a file with one: {exc}") from exc
    if not isinstance(data, dict):
        raise QueuedataNotOK(f"{QUEUE_OVERRIDE} is not a JSON object")
    return data
