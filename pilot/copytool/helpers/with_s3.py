"""Helper for S3: boto3, which signs requests and talks to any service of that kind.

Every call has `bucket`, `name`, and `access`, whose values are texts and may be empty: endpoint (else AWS), region, ca
(file or directory of CA certificates), public and private (keys), secrets (a file of AWS's form with keys) and profile
(the section there, if there is such a one), patience (s without a byte after which the library gives up).

get (target, algorithm) -> {size, checksum, told}: told is the checksum that was written with the object, or empty.
look () -> {}: fails when there is an object already.
begin (source, algorithm, mark, replace) -> {upload, noted}: of an upload in parts, and the checksum written with it.
put (the same, upload, noted) -> {size, checksum, stored, there}: what was sent, and size and checksum of what lies
there now. remove (mark, upload): end an upload, and remove the object if it has this mark, so that it is our own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilot.copytool.helpers.channel import Call, Failed, Moved, Request
from pilot.copytool.helpers.streams import Sink, Source, checksum_of
from pilot.util.filehandling import Checksum

if TYPE_CHECKING:
    from botocore.client import BaseClient

# Bytes of a part of an upload in parts: small enough to be sent again, large enough for 10000 of them (S3's limit)
# to make 640 GB; files larger than that have larger parts.
PART = 64 * 1024 * 1024
_MOST_PARTS = 10000
# Bytes read at a time from a download.
_BLOCK = 1024 * 1024
# A server that does not take a connection within this time (s) is down.
_CONNECT_LIMIT = 20
# S3 wants a region in every signature; services other than AWS take this one.
_REGION = "us-east-1"
# Name in an object's metadata that tells whose upload it was.
_MARK = "pilotkit-upload"


def start() -> str:
    """Import the library."""
    import boto3

    return f"boto3 {boto3.__version__}"


def get(request: Request, moved: Moved) -> dict[str, Any]:
    """Download an object."""
    checksum = Checksum(request["algorithm"])
    answer = _client(request).get_object(**_where(request))
    # Not `with`: that gives the stream below, which takes a connection that was cut for the end.
    with closing(answer["Body"]) as body, Sink(request["target"], [checksum], moved) as sink:
        for block in iter(lambda: body.read(_BLOCK), b""):
            sink.write(block)
    told = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}.get(checksum.algorithm, "")
    return {"size": sink.size, "checksum": checksum.value, "told": told}


def look(request: Request, moved: Moved) -> dict[str, Any]:
    """See that there is no object which an upload would overwrite."""
    if _mark_there(request) is not None:
        raise Failed("the object is there already, and is not overwritten: give the output another name", "exists")
    return {}


def begin(request: Request, moved: Moved) -> dict[str, Any]:
    """Begin an upload in parts."""
    _, noted = checksum_of(request["source"], request["algorithm"], moved)
    answer = _client(request).create_multipart_upload(**_where(request), Metadata=_metadata(request, noted))
    return {"upload": answer["UploadId"], "noted": noted}


def put(request: Request, moved: Moved) -> dict[str, Any]:
    """Upload a file and verify what lies there."""
    size, noted = os.stat(request["source"]).st_size, request["noted"]
    checksum = Checksum(request["algorithm"])
    if request["upload"]:
        expected = _put_parts(request, size, checksum, moved)
    else:
        size, noted = checksum_of(request["source"], request["algorithm"], moved)
        md5 = hashlib.md5(usedforsecurity=False)
        with Source(request["source"], 0, size, [checksum, md5], moved) as source:
            _finish("PutObject", request, Body=source, Metadata=_metadata(request, noted))
        expected = md5.hexdigest()
    if checksum.value != noted:
        raise Failed(f"the file changed while it was sent: {noted} before, {checksum.value} now", "damaged")
    head = _client(request).head_object(**_where(request))
    there = checksum.value
    if head["ETag"].strip('"').lower() != expected:
        # No MD5, as with keys of AWS's own key service, or damaged: the bytes themselves tell.
        there = _read_back(request, checksum.algorithm, moved)
    return {"size": size, "checksum": checksum.value, "stored": head["ContentLength"], "there": there}


def remove(request: Request, moved: Moved) -> dict[str, Any]:
    """Remove what an upload has left, and nobody else's object."""
    client = _client(request)
    if request["upload"]:
        # It is not there any more when it was complete.
        with suppress(client.exceptions.NoSuchUpload):
            client.abort_multipart_upload(**_where(request), UploadId=request["upload"])
    if _mark_there(request) == request["mark"]:
        client.delete_object(**_where(request))
    return {}


def _put_parts(request: Request, size: int, checksum: Checksum, moved: Moved) -> str:
    """Send all parts, and return the ETag that S3 computes for their sum."""
    client, parts, sums = _client(request), [], b""
    length = max(PART, -(-size // _MOST_PARTS))
    for number, start in enumerate(range(0, size, length), 1):
        md5 = hashlib.md5(usedforsecurity=False)
        with Source(request["source"], start, min(length, size - start), [checksum, md5], moved) as source:
            answer = client.upload_part(**_where(request), UploadId=request["upload"], PartNumber=number, Body=source)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        sums += md5.digest()
    _finish("CompleteMultipartUpload", request, UploadId=request["upload"], MultipartUpload={"Parts": parts})
    return f"{hashlib.md5(sums, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _finish(operation: str, request: Request, **arguments: object) -> None:
    """The request that makes the object appear: not over another one, unless it may be replaced."""
    from botocore.exceptions import ClientError

    client = _client(request)
    call = client.put_object if operation == "PutObject" else client.complete_multipart_upload
    known = client.meta.service_model.operation_model(operation).input_shape.members
    if request["replace"] or "IfNoneMatch" not in known:
        call(**_where(request), **arguments)
        return
    try:
        call(**_where(request), **arguments, IfNoneMatch="*")
    except ClientError as exc:
        # The service does not know conditions; that there was no such object we have seen before.
        if exc.response.get("Error", {}).get("Code") != "NotImplemented":
            raise
        if isinstance(arguments.get("Body"), Source):
            arguments["Body"].seek(0)  # type: ignore[attr-defined]  # looked at above
        call(**_where(request), **arguments)


def _mark_there(request: Request) -> str | None:
    """The mark of the object that is there; None when there is none, or when we may not know."""
    from botocore.exceptions import ClientError

    try:
        head = _client(request).head_object(**_where(request))
    except ClientError as exc:
        # Without the right to list a bucket S3 answers 403 for what is not there.
        if exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (403, 404):
            return None
        raise
    return str(head.get("Metadata", {}).get(_MARK, ""))


def _read_back(request: Request, algorithm: str, moved: Moved) -> str:
    checksum, size = Checksum(algorithm), 0
    with closing(_client(request).get_object(**_where(request))["Body"]) as body:
        for block in iter(lambda: body.read(_BLOCK), b""):
            checksum.update(block)
            size += len(block)
            moved(-size)
    return checksum.value


def _metadata(request: Request, noted: str) -> dict[str, str]:
    return {_MARK: request["mark"], request["algorithm"]: noted}


def _where(request: Request) -> dict[str, str]:
    return {"Bucket": request["bucket"], "Key": request["name"]}


def _client(request: Request) -> BaseClient:
    return _client_for(tuple(sorted(request["access"].items())))


@lru_cache(maxsize=8)
def _client_for(items: tuple[tuple[str, str], ...]) -> BaseClient:
    """A client, which keeps its connections for the next file."""
    import boto3
    import botocore.session
    from botocore.config import Config

    access: Mapping[str, str] = dict(items)
    core, endpoint = botocore.session.Session(), access["endpoint"]
    if access["secrets"]:
        core.set_config_variable("credentials_file", access["secrets"])
    if access["profile"] in core.available_profiles:
        core.set_config_variable("profile", access["profile"])
    elif access["secrets"]:
        # Named, so that it comes before keys in the environment.
        core.set_config_variable("profile", "default")
    session = boto3.Session(botocore_session=core)
    config = Config(
        connect_timeout=_CONNECT_LIMIT,
        read_timeout=float(access["patience"]),
        # The pilot tries again itself, somewhere else perhaps.
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    return session.client(
        "s3",
        endpoint_url=endpoint or None,
        region_name=access["region"] or session.region_name or _REGION,
        aws_access_key_id=access["public"] or None,
        aws_secret_access_key=access["private"] or None,
        verify=_bundle(access["ca"]) if access["ca"] else None,
        config=config,
    )


@lru_cache(maxsize=1)
def _bundle(ca: str) -> str:
    """One file with all CA certificates of a directory, which botocore does not take. It lives as long as this process.

    Certificates in such a directory are also linked under the hash of their subject: those names alone are read.
    """
    if not os.path.isdir(ca):
        return ca
    found = b"\n".join(path.read_bytes() for path in sorted(Path(ca).glob("*.[0-9]")) if path.is_file())
    descriptor = os.memfd_create("ca")
    with open(descriptor, "wb", closefd=False) as stream:
        stream.write(found)
    return f"/proc/self/fd/{descriptor}"


def _in_short(call: Call) -> Call:
    """The call, whose errors begin with the service's own code for them."""

    def wrapped(request: Request, moved: Moved) -> Mapping[str, Any]:
        from botocore.exceptions import ClientError

        try:
            return call(request, moved)
        except ClientError as exc:
            error = exc.response.get("Error", {})
            raise Failed(f"{error.get('Code', '')}: {error.get('Message', '')}") from exc

    return wrapped


CALLS = {call.__name__: _in_short(call) for call in (get, look, begin, put, remove)}
