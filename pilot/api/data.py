"""Stage-in and stage-out: what the pilot and scripts of its users move files with."""

from __future__ import annotations

import os
from pathlib import Path

from pilot.api.choice import Place
from pilot.api.staging import (
    LOG_ACTIVITIES,
    OUTPUT_ACTIVITIES,
    STAGEIN_ACTIVITIES,
    Activities,
    Moving,
    StagingClient,
    Tools,
)
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, SizeTooLarge
from pilot.info.filespec import FileSpec
from pilot.info.storagedata import deterministic_path
from pilot.util.workernode import local_space

__all__ = [
    "LOG_ACTIVITIES",
    "OUTPUT_ACTIVITIES",
    "STAGEIN_ACTIVITIES",
    "StageInClient",
    "StageOutClient",
    "StagingClient",
    "Tools",
]


class StageInClient(StagingClient):
    """Brings input files into the job's directory."""

    mode = "stage-in"
    activities = STAGEIN_ACTIVITIES

    def transfer(
        self, files: list[FileSpec], activity: Activities = None, *, input_dir: str = "", use_vp: bool = False
    ) -> list[FileSpec]:
        """Bring all files in, verified; input_dir: take them from this directory instead of from storage.

        use_vp: whether for a job of virtual placement. Returns the files. Raises PilotException for the first file that
        no place gives.
        """
        activities = self._activities(activity)
        try:
            if not input_dir:
                self._look_up(files, activities, use_vp=use_vp)
            self.check_availablespace(files)
            found = [Moving(spec, self._places(spec, activities, input_dir)) for spec in files]
            self._move_all(found, self.settings.stagein_attempts)
        finally:
            self._pool.close()
        return files

    def _places(self, spec: FileSpec, activities: tuple[str, ...], input_dir: str) -> list[Place]:
        if input_dir:
            return [Place(spec.ddmendpoint, str(Path(input_dir, spec.lfn)), "mv", "--input-dir")]
        return self.places(spec, activities)

    def check_availablespace(self, files: list[FileSpec]) -> None:
        """Raises SizeTooLarge over the queue's limit, PilotException(NOLOCALSPACE) when they do not fit."""
        total = sum(spec.filesize for spec in files)
        limit = (self.infosys.queuedata.maxinputsize or self.settings.input_limit) * 2**20
        if total > limit:
            raise SizeTooLarge(f"the input files have {total} bytes, the queue allows {limit}")
        free = local_space(self.workdir)
        if total > free:
            text = f"the input files have {total} bytes, but only {free} are free at {self.workdir}"
            raise PilotException(text, code=ErrorCodes.NOLOCALSPACE)


class StageOutClient(StagingClient):
    """Takes output and log files to storage."""

    mode = "stage-out"
    activities = OUTPUT_ACTIVITIES

    def transfer(
        self, files: list[FileSpec], activity: Activities = None, *, output_dir: str = "", attempts: int = 1
    ) -> list[FileSpec]:
        """Take all files out, verified; output_dir: put them into this directory instead of into storage.

        Returns the files. Raises PilotException for the first file that no place takes.
        """
        activities = self._activities(activity)
        found = [Moving(spec, self._places(spec, activities, output_dir)) for spec in files]
        self._move_all(found, attempts)
        return files

    def _places(self, spec: FileSpec, activities: tuple[str, ...], output_dir: str) -> list[Place]:
        if output_dir:
            return [Place(spec.ddmendpoint, os.path.abspath(os.path.join(output_dir, spec.lfn)), "mv", "--output-dir")]
        return self.places(spec, activities)

    @classmethod
    def get_path(cls, scope: str, lfn: str, prefix: str = "rucio") -> str:
        """Path of a file below a storage's prefix: prefix/scope/xx/yy/LFN."""
        return f"{prefix}/{deterministic_path(scope, lfn)}"
