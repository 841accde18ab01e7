"""What an experiment may decide its own way, by plugins named in the settings (setupper_plugins and the like).

A setting names a plugin for each VO, `VO:NAME` or `VO:module:Class`, separated by commas; `any` stands for all VOs that
have none of their own. A NAME is one of those that come with the server. Without a setting all is generic: nothing
has to be moved before or after a job, and no job goes to another queue.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, cast

from server.db.files import JobFile
from server.settings import ConfigurationError, Settings

#: A job as plugins see it: its columns.
JobRow = Mapping[str, object]

#: The VO of a setting that is for all others.
ANY_VO = "any"


@dataclass(frozen=True)
class Preparation:
    """What a setupper says of a job.

    Attributes:
        moving: LFNs of inputs that are on their way to the queue; the job waits in assigned until they have arrived.
        wait: why the setupper wants to be asked again later; empty if it is through.
        failure: why the job cannot run; empty if it can.
    """

    moving: Collection[str] = ()
    wait: str = ""
    failure: str = ""


class Setupper(Protocol):
    """Prepares the inputs of jobs: registers data, triggers its distribution, and so on."""

    def prepare(self, job: JobRow, inputs: Sequence[JobFile]) -> Preparation:
        """Called for each defined job, again every minute as long as it wants to wait."""


class Adder(Protocol):
    """Deals with the outputs of jobs that have been stored where the jobs ran."""

    def destinations(self, job: JobRow, outputs: Sequence[JobFile]) -> Mapping[str, str]:
        """LFNs that have to be moved, and the storage each goes to; the job is transferring until they are there."""

    def arrived(self, job: JobRow, moving: Sequence[JobFile]) -> Mapping[str, bool]:
        """LFNs about which something is known: there (True), or never to come (False). Asked every minute."""


class Broker(Protocol):
    """Chooses queues."""

    def other_queue(self, job: JobRow, reason: str) -> str | None:
        """The queue for a job that waits for too long in its own, or with too many others; None leaves it there."""


@dataclass(frozen=True)
class ClosedDataset:
    """A dataset that no job writes to any more.

    Attributes:
        prodUserName: whose it is.
        ready, lost: how many files are there, and how many were promised and never came.
        fsize: of those that are there, in bytes.
    """

    scope: str
    name: str
    prodUserName: str
    ready: int
    lost: int
    fsize: int


class DatasetKeeper(Protocol):
    """Deals with datasets that are complete: registers or freezes them in an experiment's catalogue, and so on."""

    def close(self, dataset: ClosedDataset) -> None:
        """Called before a dataset is closed, each time; again every ten minutes as long as it raises.

        It may be told of the same twice: when the daemon is killed, or a job names the dataset at that moment.
        """


class GenericSetupper:
    """Nothing has to be prepared."""

    def prepare(self, job: JobRow, inputs: Sequence[JobFile]) -> Preparation:
        """Nothing is moved."""
        return Preparation()


class GenericAdder:
    """Outputs are where they belong as soon as the pilot has stored them."""

    def destinations(self, job: JobRow, outputs: Sequence[JobFile]) -> Mapping[str, str]:
        """None has to be moved."""
        return {}

    def arrived(self, job: JobRow, moving: Sequence[JobFile]) -> Mapping[str, bool]:
        """Whoever moves files reports them (data/report_transfers)."""
        return {}


class DestinationAdder(GenericAdder):
    """Outputs that the pilot has stored elsewhere than the job asked for have to be moved there."""

    def destinations(self, job: JobRow, outputs: Sequence[JobFile]) -> Mapping[str, str]:
        """Those whose destination is not where they are."""
        wanted = {file.lfn: (file.wire or {}).get("destination", "") for file in outputs}
        return {file.lfn: wanted[file.lfn] for file in outputs if wanted[file.lfn] not in ("", file.endpoint)}


class GenericBroker:
    """Jobs stay where their submitters have put them."""

    def other_queue(self, job: JobRow, reason: str) -> str | None:
        """None."""
        return None


class GenericDatasetKeeper:
    """Nobody else has to know of datasets."""

    def close(self, dataset: ClosedDataset) -> None:
        """Nothing happens to it."""


_SETUPPERS: Mapping[str, type] = {"generic": GenericSetupper}
_ADDERS: Mapping[str, type] = {"generic": GenericAdder, "destination": DestinationAdder}
_BROKERS: Mapping[str, type] = {"generic": GenericBroker}
_DATASET_KEEPERS: Mapping[str, type] = {"generic": GenericDatasetKeeper}


@dataclass(frozen=True)
class Plugins:
    """The plugins of each VO."""

    setuppers: Mapping[str, Setupper]
    adders: Mapping[str, Adder]
    brokers: Mapping[str, Broker]
    dataset_keepers: Mapping[str, DatasetKeeper]

    @property
    def move_outputs(self) -> bool:
        """Whether outputs of any job may have to be moved."""
        return any(type(adder) is not GenericAdder for adder in self.adders.values())

    @property
    def rebrokers(self) -> bool:
        """Whether jobs of any VO may go to another queue."""
        return any(type(broker) is not GenericBroker for broker in self.brokers.values())

    def prepares(self, vo: str) -> bool:
        """Whether jobs of a VO have to be prepared."""
        return type(self.setupper(vo)) is not GenericSetupper

    def setupper(self, vo: str) -> Setupper:
        """A VO's setupper."""
        return self.setuppers.get(vo) or self.setuppers[ANY_VO]

    def adder(self, vo: str) -> Adder:
        """A VO's adder."""
        return self.adders.get(vo) or self.adders[ANY_VO]

    def broker(self, vo: str) -> Broker:
        """A VO's broker."""
        return self.brokers.get(vo) or self.brokers[ANY_VO]

    def dataset_keeper(self, vo: str) -> DatasetKeeper:
        """A VO's keeper of datasets."""
        return self.dataset_keepers.get(vo) or self.dataset_keepers[ANY_VO]


@lru_cache(maxsize=8)
def plugins_of(settings: Settings) -> Plugins:
    """The plugins that the settings name, made once a process.

    Raises:
        ConfigurationError: one cannot be had.
    """
    return Plugins(
        cast(Mapping[str, Setupper], _made("setupper_plugins", settings.setupper_plugins, _SETUPPERS)),
        cast(Mapping[str, Adder], _made("adder_plugins", settings.adder_plugins, _ADDERS)),
        cast(Mapping[str, Broker], _made("broker_plugins", settings.broker_plugins, _BROKERS)),
        cast(Mapping[str, DatasetKeeper], _made("dataset_plugins", settings.dataset_plugins, _DATASET_KEEPERS)),
    )


def _made(setting: str, written: str, known: Mapping[str, type]) -> Mapping[str, object]:
    made: dict[str, object] = {ANY_VO: known["generic"]()}
    for entry in filter(None, (part.strip() for part in written.split(","))):
        vo, _, name = entry.partition(":")
        if not vo or not name:
            raise ConfigurationError(f"PILOTKIT_{setting.upper()}: {entry!r} must be VO:NAME or VO:module:Class.")
        made[vo] = _class(setting, name, known)()
    return made


def _class(setting: str, name: str, known: Mapping[str, type]) -> type:
    where = f"PILOTKIT_{setting.upper()}: the plugin {name!r}"
    module, colon, attribute = name.partition(":")
    if not colon:
        if name not in known:
            raise ConfigurationError(f"{where} does not exist; there are {', '.join(known)}, and module:Class.")
        return known[name]
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{where} cannot be loaded: {error}.") from None
    if not isinstance(found, type):
        raise ConfigurationError(f"{where} is not a class.")
    return found
