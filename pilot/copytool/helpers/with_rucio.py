"""Helper for Rucio: its clients download by PFN or by DID, upload, and list replicas.

Every call has `host`, Rucio's address, empty for that of the node's rucio.cfg, and `ca`, the directory of CA
certificates by which storage is verified, empty for the system's. Calls:
get (files, folder, at_once, timeout, pcache) -> {failed}: what went wrong, by LFN; the others are in the folder. A file
whose size nobody has told is `unknown`, and its size in storage is looked up;
put (source, scope, name, rse, scheme, guid, timeout, register, replace) -> {pfn, size, adler32, md5, stored_size,
stored}, where the last two, size and adler32, are what the storage tells: -1 and empty if it tells nothing;
remove (scope, name, rse, scheme): what an upload that was stopped has left;
replicas (dids, schemes, site, sort, expression, guids) -> {replicas, guids}: the server's answer as it is, and GUIDs by
`scope:name` for those asked for.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from pilot.copytool.helpers.channel import Failed, Moved, Request
from pilot.util.filehandling import calculate_checksum

if TYPE_CHECKING:
    from rucio.client import Client

T = TypeVar("T")

# Rucio's clients send no traces for a client of such a name: the pilot sends its own.
_AGENT = "pilotkit"
# What Rucio's clients say of a file in storage that they leave alone.
_THERE_ALREADY = "File already exists"
# States of downloads whose file is there.
_ARRIVED = frozenset({"DONE", "ALREADY_DONE", "FOUND_IN_PCACHE"})
# A disk with less free space (bytes) is full: it has no block for another piece of a file.
_FULL = 65536
# Reasons in Rucio's records that say nothing.
_NO_REASON = ("", "OK", "UNKNOWN")
# What Rucio's clients add to a file's name until it is complete.
_HALF_WRITTEN = ".rucio.upload"

_clients: dict[str, Client] = {}


def start() -> str:
    """Import the library."""
    from rucio import version

    return f"rucio-clients {version.version_string()}"


def get(request: Request, moved: Moved) -> dict[str, Any]:
    """Download files: those that have a PFN from there, the others from where Rucio finds them."""
    client = _client(request)
    from rucio.client.downloadclient import DownloadClient

    log = _Log()
    downloads = DownloadClient(client=client, logger=log, tracing=False, check_pcache=request["pcache"])
    common = {"base_dir": request["folder"], "no_subdir": True, "transfer_timeout": request["timeout"]}
    items = [{**common, **file} for file in request["files"]]
    records: list[dict[str, Any]] = []
    done: list[dict[str, Any]] = []
    how = {
        "num_threads": request["at_once"],
        "traces_copy_out": records,
        "deactivate_file_download_exceptions": True,
    }
    by_place, by_name = [one for one in items if "pfn" in one], [one for one in items if "pfn" not in one]
    if by_place:
        done += downloads.download_pfns(by_place, **how)
    if by_name:
        done += downloads.download_dids(by_name, **how)
    there = {one["name"] for one in done if str(getattr(one["clientState"], "value", one["clientState"])) in _ARRIVED}
    names = [file["did"].partition(":")[2] for file in request["files"]]
    failed = {name: _reason(records, name, log) for name in names if name not in there}
    for file in by_place:
        if file["unknown"] and file["did"].partition(":")[2] not in failed:
            failed.update(_too_short(request, file))
    return {"failed": failed}


def _too_short(request: Request, file: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with the size of a file that only the storage knows: xrdcp takes a full disk for success."""
    scope, _, name = file["did"].partition(":")
    here = os.stat(os.path.join(request["folder"], name)).st_size
    where = {**request, "scope": scope, "name": name, "rse": file["rse"], "scheme": file["pfn"].partition(":")[0]}
    there = int(_stored(where, file["pfn"]).get("filesize", here))
    if here == there:
        return {}
    full = shutil.disk_usage(request["folder"]).free < _FULL
    why = "no space left on device" if full else "size mismatch"
    return {name: f"{why}: {here} bytes came, the storage has {there}"}


def put(request: Request, moved: Moved) -> dict[str, Any]:
    """Upload a file and ask the storage for its size and checksum; what a failure left half-written is removed."""
    with _own_half(request):
        entry = _upload(request)
    if entry is None:
        entry = _found_there(request)
        if entry is None:
            _storage(request, "delete", _delete)
            with _own_half(request):
                entry = _upload(request)
        if entry is None:
            raise Failed(f"{request['name']} is there already and could not be removed", "exists")
    stored = _stored(request, entry["pfn"])
    return {
        "pfn": entry["pfn"],
        "size": entry["bytes"],
        "adler32": entry["adler32"],
        "md5": entry["md5"],
        "stored_size": int(stored.get("filesize", -1)),
        "stored": str(stored.get("adler32") or "").lower(),
    }


def remove(request: Request, moved: Moved) -> dict[str, Any]:
    """Remove what an upload that was stopped has left; nothing there is fine."""

    def clean(protocol: Any, pfn: str) -> None:
        # Where a storage cannot rename, Rucio writes under the file's own name.
        half = pfn + _HALF_WRITTEN if protocol.renaming else pfn
        if protocol.exists(half):
            _delete(protocol, half)

    _storage(request, "delete", clean)
    return {}


def replicas(request: Request, moved: Moved) -> dict[str, Any]:
    """The replicas of files, in one question; the order is that of the server."""
    client = _client(request)
    found = client.list_replicas(
        request["dids"],
        schemes=request["schemes"] or None,
        # Storage that is blocked for reading is no place to read from.
        ignore_availability=False,
        rse_expression=request["expression"] or None,
        client_location={"site": request["site"]},
        sort=request["sort"] or None,
    )
    answer = list(found)
    guids = {}
    if request["guids"]:
        for one in client.get_metadata_bulk(request["guids"]):
            guids[f"{one['scope']}:{one['name']}"] = str(one.get("guid") or "")
    return {"replicas": answer, "guids": guids}


def _client(request: Request) -> Client:
    """The connection to a Rucio, made once."""
    host: str = request["host"]
    if host not in _clients:
        if host:
            _change_host(host)
        _verify_storage(request["ca"])
        from rucio.client import Client

        _clients[host] = Client(user_agent=_AGENT)
    return _clients[host]


def _change_host(host: str) -> None:
    """Have all of Rucio's clients, those that it makes itself too, talk to this host.

    Without a rucio.cfg on the node they log in with the proxy, unless RUCIO_AUTH_TYPE says another way.
    """
    from rucio.common import config
    from rucio.common.exception import ConfigNotFound

    try:
        settings = config.get_config()
    except ConfigNotFound:
        settings = ConfigParser()
        settings.read_dict({"client": {"auth_type": "x509_proxy"}})
    if not settings.has_section("client"):
        settings.add_section("client")
    before = settings.get("client", "rucio_host", fallback="")
    # The two are one server unless rucio.cfg knows better.
    if settings.get("client", "auth_host", fallback="") in ("", before):
        settings.set("client", "auth_host", host)
    settings.set("client", "rucio_host", host)
    # It reads them anew at times: these are what it gets then.
    config.get_config = functools.lru_cache(maxsize=None)(lambda: settings)


def _verify_storage(ca: str) -> None:
    """Have every TLS connection of this process verified: Rucio's WebDAV client switches that off for storage."""
    import requests

    plain = requests.Session.request

    def verified(session: requests.Session, *values: Any, **more: Any) -> requests.Response:
        if not more.get("verify"):
            more["verify"] = ca or True
        return plain(session, *values, **more)

    requests.Session.request = verified  # type: ignore[method-assign,assignment]


def _upload(request: Request) -> dict[str, Any] | None:
    """Rucio's summary of an upload, or None when a file is there already. Raises Failed and what Rucio raises."""
    client = _client(request)
    from rucio.client.uploadclient import UploadClient
    from rucio.common.exception import NoFilesUploaded

    item = {
        "path": request["source"],
        "rse": request["rse"],
        "did_scope": request["scope"],
        "did_name": request["name"],
        "guid": request["guid"],
        "force_scheme": request["scheme"],
        "transfer_timeout": request["timeout"],
        "no_register": not request["register"],
    }
    log, records = _Log(), list[dict[str, Any]]()
    uploads = UploadClient(_client=client, logger=log, tracing=False)
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder, "summary")
        try:
            uploads.upload([item], summary_file_path=summary, traces_copy_out=records)
        except NoFilesUploaded as exc:
            reason = str(records[-1].get("stateReason") or "") if records else ""
            if reason == _THERE_ALREADY:
                return None
            raise Failed("\n".join(filter(None, (reason or log.last, log.cause)))) from exc
        found: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
    entry: dict[str, Any] = found[f"{request['scope']}:{request['name']}"]
    return entry


@contextmanager
def _own_half(request: Request) -> Iterator[None]:
    """Remove what is half-written when the block fails, if the storage lets us."""
    try:
        yield
    except Exception:  # whatever the library raises, which is raised again
        with suppress(Exception):  # the failure itself is what counts
            remove(request, lambda count: None)
        raise


def _found_there(request: Request) -> dict[str, Any] | None:
    """What a summary would say when the file that is there already is the same; None when it may be replaced.

    Raises Failed when it is another one and must not be replaced.
    """
    source = request["source"]
    size, adler32 = os.stat(source).st_size, calculate_checksum(source, "adler32")
    pfn = _storage(request, "read", lambda protocol, pfn: pfn)
    stored = _stored(request, pfn)
    if (int(stored.get("filesize", -1)), stored.get("adler32")) == (size, adler32):
        if request["register"]:
            state = {"scope": request["scope"], "name": request["name"], "state": "A"}
            _client(request).update_replicas_states(request["rse"], files=[state])
        return {"pfn": pfn, "bytes": size, "adler32": adler32, "md5": calculate_checksum(source, "md5")}
    if not request["replace"]:
        text = f"{pfn} is there already with other contents, and is not overwritten: give the output another name"
        raise Failed(text, "exists")
    return None


def _delete(protocol: Any, pfn: str) -> None:
    """Remove a file. What counts is that it is gone: not every answer of a server is one that Rucio expects."""
    try:
        protocol.delete(pfn)
    except Exception:  # whatever the library raises, which is raised again
        if protocol.exists(pfn):
            raise


def _stored(request: Request, pfn: str) -> Mapping[str, Any]:
    """What the storage says of a file: filesize, and adler32 if it tells; nothing when it knows no checksums."""
    from rucio.common.exception import RSEChecksumUnavailable

    def stat(protocol: Any, _: str) -> Mapping[str, Any]:
        return {"adler32": _digest(protocol, pfn), **protocol.stat(pfn)}

    try:
        return _storage(request, "read", stat)
    except RSEChecksumUnavailable:
        return {}


def _digest(protocol: Any, pfn: str) -> str:
    """The adler32 that a WebDAV server tells, for which Rucio does not ask; empty if it tells none."""
    if not hasattr(protocol, "session"):
        return ""
    from pilot.copytool.https import digest_of

    wanted = {"Want-Digest": "adler32", "Accept-Encoding": "identity"}
    answer = protocol.session.request("HEAD", pfn, headers=wanted, cert=protocol.cert, timeout=protocol.timeout)
    return digest_of(answer.headers, "adler32") if answer.ok else ""


def _storage(request: Request, operation: str, act: Callable[[Any, str], T]) -> T:
    """act(protocol, PFN) with Rucio's own way into the storage."""
    from rucio.common.exception import RSEProtocolDomainNotSupported, RSEProtocolNotSupported
    from rucio.rse import rsemanager

    client = _client(request)
    settings = rsemanager.get_rse_info(request["rse"], vo=client.vo)
    # Storage takes Rucio's token only where it is a JSON web token.
    token = client.auth_token if client.auth_token.count(".") == 2 else None
    for domain in ("wan", "lan"):
        try:
            protocol = rsemanager.create_protocol(
                settings, operation, scheme=request["scheme"], domain=domain, auth_token=token, logger=_Log()
            )
        except (RSEProtocolDomainNotSupported, RSEProtocolNotSupported):
            if domain == "lan":
                raise
        else:
            break
    protocol.connect()
    try:
        did = {"scope": request["scope"], "name": request["name"]}
        return act(protocol, next(iter(protocol.lfns2pfns(did).values())))
    finally:
        protocol.close()


def _reason(records: Sequence[Mapping[str, Any]], name: str, log: _Log) -> str:
    """Why a file has not come: as Rucio's own record of it says, else the last thing that its client complained of."""
    reasons = [str(one.get("stateReason") or "") for one in records if one.get("filename") == name]
    return next((reason for reason in reversed(reasons) if reason not in _NO_REASON), "") or log.last


class _Log:
    """A logger in all the forms in which Rucio's clients want one.

    last: what they complained of last. cause: the error of the system below the error that they speak of, of which
    their own text says nothing in some cases.
    """

    def __init__(self) -> None:
        self.last, self.cause = "it did not say why", ""

    def __call__(self, level: int, text: object, *values: object, **_: object) -> None:
        error = sys.exc_info()[1]
        while error is not None:
            if isinstance(error, OSError):
                self.cause = str(error)
            error = error.__context__
        shown = str(text) % values if values else str(text)
        if level >= logging.WARNING or isinstance(text, Exception):
            self.last = shown
        if level > logging.DEBUG:
            print(shown, file=sys.stderr)

    log = __call__


CALLS = {"get": get, "put": put, "remove": remove, "replicas": replicas}
