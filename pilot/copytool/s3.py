"""Copytool for S3 and the services that speak its language: boto3, in a helper.

Keys come from the queue's own file (`secrets`), else from the dispatcher under the names that the storage's description
has, else from where AWS's tools look for them: the environment and its files.
"""

from __future__ import annotations

from pathlib import Path

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool import objects
from pilot.copytool.common import Transfer, has_scheme, user_callable
from pilot.copytool.errors import Kind, TransferError
from pilot.copytool.helper import Program
from pilot.info.filespec import FileSpec
from pilot.info.objectstore import key_names
from pilot.info.storagedata import StorageData

ALLOWED_SCHEMES = ("s3",)

_ADVICE = "the copytool s3 needs boto3: install it for the pilot's Python (pip install boto3, Debian: python3-boto3)"
_ENVIRON = {
    # Checksums of a newer kind are refused by many services, and ours are better known in the field.
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    # Never ask the cloud that this node may be in for its keys, unless the site wants it: elsewhere that is a time-out.
    "AWS_EC2_METADATA_DISABLED": "true",
    # Where an object is, the pilot decides.
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
}
# Files larger than this (bytes) are sent in parts, which can be that large themselves (with_s3.PART).
_PART = 64 * 1024 * 1024


def is_valid_for_copy_in(files: list[FileSpec]) -> bool:
    """Whether all files have a source in S3."""
    return has_scheme(files, ALLOWED_SCHEMES)


def is_valid_for_copy_out(files: list[FileSpec]) -> bool:
    """Whether all files have a destination in S3."""
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
    environ = transfer.environ
    return (
        transfer.options.get("endpoint", "")
        or environ.get("AWS_ENDPOINT_URL_S3", "")
        or environ.get("AWS_ENDPOINT_URL", "")
    )


def _access(spec: FileSpec, transfer: Transfer, storage: StorageData | None, read: bool) -> objects.Access:
    """Region and keys. Raises TransferError(MISSINGCREDENTIALS) when what is named is not there."""
    secrets = transfer.options.get("secrets", "")
    access = {
        "region": transfer.options.get("region", ""), "secrets": secrets, "profile": spec.ddmendpoint,
        "public": "", "private": "",
    }  # fmt: skip
    if secrets:
        if not Path(secrets).is_file():
            raise _no_keys(f"{secrets}, the queue's file of keys (copytools, secrets), is not there", read)
        return access
    names = key_names(storage, spec.surl)
    if names.public and transfer.key_pair is not None:
        try:
            access["public"], access["private"] = transfer.key_pair(names.public, names.private)
        except PilotException as exc:
            text = f"{spec.lfn}: the dispatcher does not give the keys {names.public} and {names.private}: {exc.diag}"
            raise _no_keys(text, read) from exc
    return access


def _no_keys(text: str, read: bool) -> TransferError:
    return TransferError(text, Kind.DENIED, read=read, code=ErrorCodes.MISSINGCREDENTIALS)


_SERVICE = objects.Service(Program("with_s3"), _ADVICE, _default, _access, _ENVIRON, _PART)
