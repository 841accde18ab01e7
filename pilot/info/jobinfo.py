"""What a job's definition changes of the descriptions of its queue and storages (a documented name)."""

from __future__ import annotations

from collections.abc import Sequence

from pilot.info.jobdata import JobData
from pilot.util.https import Json


class JobInfoProvider:
    """Tells a job's own settings (--overwriteQueueData, --overwriteStorageData).

    InfoService.for_job lays them over what the sources say; nothing is asked for here.
    """

    def __init__(self, job: JobData) -> None:
        """Take the job."""
        self.job = job

    def resolve_schedconf_sources(self) -> list[str]:
        """The sources of descriptions that the job names: no definition can name any."""
        return []

    def resolve_queuedata(self, pandaqueue: str, **kwargs: object) -> dict[str, dict[str, Json]]:
        """The job's settings for its queue, by the queue's name; nothing when it has none. kwargs: not needed."""
        changed = dict(self.job.overwrite_queuedata)
        return {pandaqueue: changed} if changed else {}

    def resolve_storage_data(self, ddmendpoints: Sequence[str] = (), **kwargs: object) -> dict[str, Json]:
        """The job's settings for storages (default: for all), by their names. kwargs: not needed."""
        changed = self.job.overwrite_storagedata
        return {name: changed[name] for name in ddmendpoints or changed if name in changed}
