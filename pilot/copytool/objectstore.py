"""Copytool for object stores, by the way that the storage or the job gives: keys (as s3), or URLs that are signed.

Signed URLs need no library and no keys on the node: they are plain HTTP (https).
"""

from __future__ import annotations

from types import ModuleType

from pilot.copytool import https, s3
from pilot.copytool.common import Transfer, has_scheme, scheme_of, user_callable
from pilot.info.filespec import FileSpec

ALLOWED_SCHEMES = ("s3", "https", "http")


def is_valid_for_copy_in(files: list[FileSpec]) -> bool:
    """Whether all files have a source with a scheme of object stores."""
    return has_scheme(files, ALLOWED_SCHEMES)


def is_valid_for_copy_out(files: list[FileSpec]) -> bool:
    """Whether all files have a destination with a scheme of object stores."""
    return has_scheme(files, ALLOWED_SCHEMES)


@user_callable
def copy_in(files: list[FileSpec], transfer: Transfer) -> None:
    """Download files. Raises PilotException, with the kinds of pilot.copytool.errors."""
    for spec in files:
        _tool(spec).copy_in([spec], transfer)


@user_callable
def copy_out(files: list[FileSpec], transfer: Transfer) -> None:
    """Upload files and verify them. Raises PilotException, with the kinds of pilot.copytool.errors."""
    for spec in files:
        _tool(spec).copy_out([spec], transfer)


def _tool(spec: FileSpec) -> ModuleType:
    return s3 if scheme_of(spec.surl) == "s3" else https
