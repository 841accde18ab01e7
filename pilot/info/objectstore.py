"""What the description of a storage says of an object store: endpoint, bucket, keys, signed URLs (wire.md, section 1).

An object store is described like any storage, by `arprotocols` with an s3 or gs endpoint; or by its raw protocols,
`rprotocols {id: {endpoint, path, settings}}`; or by `resource {endpoint, bucket_id}` alone. docs/copytools.md has the
rule by which a file's bucket and object are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pilot.common.exception import QueuedataNotOK
from pilot.info.storagedata import BUCKET_SCHEMES, GOOGLE_HOST, StorageData
from pilot.util.https import Json, is_loopback


@dataclass(frozen=True)
class KeyNames:
    """The names by which the dispatcher knows a pair of keys (get_key_pair); empty when there is none."""

    public: str = ""
    private: str = ""


@dataclass(frozen=True)
class Location:
    """One object: the service's URL (empty for its own, public one), bucket, and name."""

    endpoint: str
    bucket: str
    name: str


def locate(surl: str, storage: StorageData | None, default: str) -> Location:
    """The object that an s3 or gs URL means.

    `s3://host:port/bucket/name` has the service's address in it, `s3://bucket/name` has not. A host without a port is
    one when the storage's description names it as such. default: the service's URL when neither the URL nor the
    storage (`resource`, `rprotocols`) has it. Raises QueuedataNotOK when the URL names no bucket or no object, and for
    a service without TLS on another machine that the description does not call one.
    """
    _, _, rest = surl.partition("://")
    host, _, path = rest.partition("/")
    endpoints = _endpoints(storage) if storage else {}
    if ":" in host or host in endpoints or host == GOOGLE_HOST:
        endpoint = endpoints.get(host) or f"{'http' if is_loopback(f'http://{host}') else 'https'}://{host}"
        bucket, _, name = path.lstrip("/").partition("/")
    else:
        endpoint = next(iter(endpoints.values()), "") or default
        bucket, name = host, path
    name = name.lstrip("/")
    if not bucket or not name:
        raise QueuedataNotOK(f"{surl} names no {'object' if bucket else 'bucket'}; s3://host:port/bucket/name does")
    if endpoint.startswith("http://") and endpoint not in endpoints.values() and not is_loopback(endpoint):
        raise QueuedataNotOK(f"{endpoint} is not encrypted, and the storage's description does not say so")
    return Location(endpoint.rstrip("/"), bucket, name)


def all_key_names(storage: StorageData) -> list[KeyNames]:
    """The names of all keys that a storage's description has."""
    return list(dict.fromkeys(names for item in _protocols(storage) if (names := _names_of(item)).public))


def key_names(storage: StorageData | None, surl: str) -> KeyNames:
    """The names of the keys for a URL: `settings {access_key, secret_key}` of the storage's protocol that fits best."""
    best, names = -1, KeyNames()
    for item in _protocols(storage) if storage else ():
        own = _names_of(item)
        host = urlsplit(str(item.get("endpoint") or "")).netloc
        fits = len(host) if f"://{host}/" in surl else 0
        if own.public and fits > best:
            best, names = fits, own
    return names


def _names_of(protocol: Mapping[str, Json]) -> KeyNames:
    settings = protocol.get("settings")
    if not isinstance(settings, dict) or not settings.get("access_key") or not settings.get("secret_key"):
        return KeyNames()
    return KeyNames(str(settings["access_key"]), str(settings["secret_key"]))


def _endpoints(storage: StorageData) -> dict[str, str]:
    """The services that a description names: host (and port) -> URL. The first is that of `resource`."""
    found: dict[str, str] = {}
    given = str(storage.resource.get("endpoint") or "")
    items: list[Mapping[str, Json]] = [{"endpoint": given}] if given else []
    for item in (*items, *_protocols(storage)):
        parts = urlsplit(str(item.get("endpoint") or ""))
        if not parts.netloc or parts.scheme not in (*BUCKET_SCHEMES, "http", "https"):
            continue
        if parts.scheme in ("http", "https"):
            found.setdefault(parts.netloc, f"{parts.scheme}://{parts.netloc}")
        elif parts.port or item.get("settings"):
            settings = item.get("settings")
            secure = settings.get("is_secure") if isinstance(settings, dict) else None
            plain = is_loopback(f"http://{parts.netloc}") if secure is None else str(secure).lower() in ("false", "0")
            found.setdefault(parts.netloc, f"{'http' if plain else 'https'}://{parts.netloc}")
    return found


def _protocols(storage: StorageData) -> Iterator[Mapping[str, Json]]:
    raw = storage.rprotocols.values()
    by_activity = (item for items in storage.arprotocols.values() if isinstance(items, list) for item in items)
    return (item for item in (*raw, *by_activity) if isinstance(item, dict))
