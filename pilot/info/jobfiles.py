"""What a job's definition says of its files as a whole: how inputs are read, and what kind of job they make it."""

from __future__ import annotations

import re

from pilot.info.filespec import COPY, DIRECT, LOCAL_TOKEN, REMOTE_IO, FileSpec

_ACCESSMODE = re.compile(r"(?:\A|\s)--access[mM]ode[= ](direct|copy)(?=\s|\Z)")
# Options of the field's transformations that say the same as an access mode.
_DIRECT_OPTIONS = re.compile(r"(?:\A|\s)--(?:directIn|usePFCTurl)(?=\s|\Z)")
# A library that a build job makes of a user's code.
_LIBRARY = ".lib.tgz"


class JobFiles:
    """The part of a job that looks at its lists of files. transfertype, accessmode: how inputs are to be read."""

    jobparams: str
    transfertype: str
    accessmode: str
    indata: list[FileSpec]
    outdata: list[FileSpec]

    def set_accessmode(self) -> None:
        """Take `--accessmode=direct|copy` out of the job's parameters, where test systems force one with it."""
        found = _ACCESSMODE.search(self.jobparams)
        if found is None:
            return
        self.accessmode = found.group(1)
        before, after = self.jobparams[: found.start()].rstrip(), self.jobparams[found.end() :].lstrip()
        self.jobparams = f"{before} {after}".strip()

    def access_wanted(self) -> str:
        """How the job wants its inputs: direct, copy, or empty when it says nothing.

        transferType wins over an access mode in the parameters, and that over the options of transformations.
        """
        if self.transfertype:
            return DIRECT if self.transfertype == DIRECT else COPY
        return self.accessmode or (DIRECT if _DIRECT_OPTIONS.search(self.jobparams) else "")

    def has_remoteio(self) -> bool:
        """Whether at least one input is read where it lies."""
        return any(spec.status == REMOTE_IO for spec in self.indata)

    def only_copy_to_scratch(self) -> bool:
        """Whether all inputs are in the job's directory, so that the payload needs to know nothing of TURLs."""
        return not self.has_remoteio()

    def is_local(self) -> bool:
        """Whether the job wants all of its inputs in its directory (prodDBlockToken is `local`)."""
        return any(spec.storage_token == LOCAL_TOKEN for spec in self.indata)

    def is_build_job(self) -> bool:
        """Whether the job makes a library of a user's code, which other jobs then use."""
        return any(_LIBRARY in spec.lfn for spec in self.outdata)

    def get_lfns_and_guids(self) -> tuple[list[str], list[str]]:
        """Names and GUIDs of the inputs, in the same order."""
        return [spec.lfn for spec in self.indata], [spec.guid for spec in self.indata]

    def get_job_option_for_input_name(self, input_name: str) -> str | None:
        """`--inputHitsFile` where the parameters have `--inputHitsFile=@NAME`; None when there is none."""
        found = re.search(rf"(?:\A|\s)(--\w+)=['\"]?@{re.escape(input_name)}(?=['\"\s]|\Z)", self.jobparams)
        return found.group(1) if found else None

    @property
    def infilesguids(self) -> str:
        """The GUIDs of the inputs, joined by commas, as the job's definition has them."""
        return ",".join(spec.guid for spec in self.indata)

    @property
    def datasetin(self) -> str:
        """The datasets of the inputs, joined by commas, as the job's definition has them."""
        return ",".join(spec.dataset for spec in self.indata)
