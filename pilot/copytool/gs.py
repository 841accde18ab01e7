"""Copytool for Google Cloud Storage: Google's library, in a helper.

Keys come from the file that GOOGLE_APPLICATION_CREDENTIALS names. STORAGE_EMULATOR_HOST is honoured. A service without
TLS, as an emulator is, gets no keys.
"""

from __future__ import annotations

from pilot.copytool import objects
from pilot.copytool.common import Transfer, has_scheme, user_callable
from pilot.copytool.helper import Program
from pilot.info.filespec import FileSpec
from pilot.info.storagedata import StorageData

ALLOWED_SCHEMES = ("gs",)

_ADVICE = (
    "the copytool gs needs google-cloud-storage: install it for the pilot's Python (pip install google-cloud-storage)"
)
# Never ask the cloud that this node may be in for its keys, unless the site wants it: elsewhere that is a time-out.
_ENVIRON = {"NO_GCE_CHECK": "true"}


def is_valid_for_copy_in(files: list[FileSpec]) -> bool:
    """Whether all files have a source in Google's storage."""
    return has_scheme(files, ALLOWED_SCHEMES)


def is_valid_for_copy_out(files: list[FileSpec]) -> bool:
    """Whether all files have a destination in Google's storage."""
    return has_scheme(files, ALLOWED_SCHEMES)


@user_callable
def copy_in(files: list[FileSpec], transfer: Transfer) -> None:
    """Download files. Raises PilotException, with the kinds of pilot.copytool.errors."""
    objects.copy_in(_SERVICE, files, transfer)


@user_callable
def copy_out(files: list[FileSpec], transfer: Transfer) -> None:
    """Upload files and verify them. Raises PilotException, with the kinds of pilot.copytool.errors."""
    objects.copy_out(_SERVICE, files, transfer)


def _default(transfer: Transfer) -> str:
    emulator = transfer.environ.get("STORAGE_EMULATOR_HOST", "")
    # Google's libraries take it with and without a scheme.
    return transfer.options.get("endpoint", "") or (
        emulator if "://" in emulator or not emulator else f"http://{emulator}"
    )


def _access(spec: FileSpec, transfer: Transfer, storage: StorageData | None, read: bool) -> objects.Access:
    return {}


_SERVICE = objects.Service(Program("with_gs"), _ADVICE, _default, _access, _ENVIRON)
