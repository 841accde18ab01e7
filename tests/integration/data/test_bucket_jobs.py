"""Whole jobs whose inputs and outputs go through object stores, and whose keys and signatures nobody finds anywhere."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import pytest
import requests

from pilot.info.storagedata import deterministic_path
from tests import pilots
from tests.containers import Container
from tests.gs import GS
from tests.s3 import S3
from tests.servers import RunningServer
from tests.signed import Gate
from tests.site import QUEUE, Site

CONTENTS = os.urandom(200_000)
BUCKET = "BUCKET"
# The payload looks for what it must not see.
PAYLOAD = "env > seen.txt; cp {name} out.root"


@dataclass
class Case:
    """One way into an object store: the storage's description, the pilot's environment, and what must stay secret."""

    tool: str
    described: dict[str, object]
    get: Callable[[str], bytes]
    environ: Mapping[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    container: Container | None = None


def names(tool: str) -> tuple[str, str]:
    return f"in.{tool}.root", f"out.{tool}.root"


def run_job(site: Site, rundir: Path, case: Case, tag: str) -> str:
    """Run a job through an object store, look at its results, and return all that was written anywhere."""
    name, output = names(tag)
    site.call("storage/add", {"storages": {BUCKET: {"state": "ACTIVE", "is_deterministic": True, **case.described}}})
    changes = {
        "astorages": {"default": [BUCKET]}, "acopytools": {"default": [case.tool]},
        "copytools": {case.tool: case.options}, "container_type": "",
    }  # fmt: skip
    settings, environ = "", dict(case.environ)
    if case.container is not None:
        changes["container_type"] = "apptainer:middleware"
        changes["catchall"] = f"middleware_image={case.container.image}"
        settings = f"[Container]\nmiddleware_python = {sys.executable}\n"
        environ.update(case.container.environ)
    site.call("queue/set", {"name": QUEUE, "changes": changes})
    known = {"fsize": len(CONTENTS), "checksum": f"ad:{zlib.adler32(CONTENTS):08x}"}
    (jobid,) = site.submit(
        {
            "command": PAYLOAD.format(name=name),
            "inputs": [{"lfn": name, "scope": "mc", "endpoint": BUCKET, **known}],
            "outputs": [{"local": "out.root", "lfn": output}],
        }
    )
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", "-d", env=environ, settings=settings)
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    (stored,) = site.files(jobid, "output")
    assert stored["endpoint"] == BUCKET and stored["checksum"] == known["checksum"]
    (log,) = site.files(jobid, "log")
    tarball = case.get(str(log["lfn"]))
    with tarfile.open(fileobj=BytesIO(tarball)) as archive:
        packed = {entry.name.rpartition("/")[2]: archive.extractfile(entry) for entry in archive if entry.isfile()}
        texts = {found: stream.read().decode("utf-8", "replace") for found, stream in packed.items() if stream}
    assert case.get(output) == CONTENTS
    seen = texts["seen.txt"]
    assert "PandaID=" in seen and "AWS_SECRET" not in seen and "GOOGLE_APPLICATION" not in seen
    said = "\n".join((pilot.log(), json.dumps(job, default=str), *texts.values()))
    assert "transfers:\n" in said and [secret for secret in case.secrets if secret in said] == []
    return pilot.log()


def below(name: str, prefix: str) -> str:
    """Where an input of these jobs lies."""
    return f"{prefix}/{deterministic_path('mc', name)}"


def found_in(buckets: S3) -> Callable[[str], bytes]:
    return lambda lfn: buckets.get(next(name for name in buckets.files() if name.endswith(f"/{lfn}")))


def test_a_job_uses_s3_with_keys_from_the_pilots_environment(site: Site, rundir: Path, buckets: S3) -> None:
    run_job(site, rundir, with_keys_in_environment(buckets, "s3"), "s3")


def test_keys_from_the_pilots_environment_reach_the_middleware_container(
    site: Site, rundir: Path, buckets: S3, container: Container
) -> None:
    case = replace(with_keys_in_environment(buckets, "s3in"), container=container)
    log = run_job(site, rundir, case, "s3in")
    assert "in the container: " in log


def with_keys_in_environment(buckets: S3, tag: str) -> Case:
    buckets.put(below(names(tag)[0], "vo"), CONTENTS)
    protocol = {"endpoint": f"s3://127.0.0.1:{buckets.port}", "id": 1, "path": f"/{buckets.bucket}/vo"}
    return Case(
        "s3", {"arprotocols": {"default": [protocol]}}, found_in(buckets), buckets.environ, [buckets.secret_key]
    )


@pytest.mark.parametrize("inside", [False, True])
def test_a_job_uses_an_object_store_with_keys_from_the_dispatcher(
    server: RunningServer, site: Site, rundir: Path, buckets: S3, container: Container, inside: bool
) -> None:
    folder = server.data / "credentials"
    folder.mkdir(exist_ok=True)
    (folder / "id").write_text(buckets.access_key)
    (folder / "secret").write_text(buckets.secret_key)
    pair = {"public_key_name": "a.pub", "private_key_name": "a.key", "public_file": "id", "private_file": "secret"}
    (folder / "credentials.json").write_text(json.dumps({"keys": [pair]}))
    tag = f"keys{inside}"
    buckets.put(below(names(tag)[0], "raw"), CONTENTS)
    raw = {
        "endpoint": f"s3://127.0.0.1:{buckets.port}/", "path": f"{buckets.bucket}/raw",
        "settings": {"access_key": "a.pub", "secret_key": "a.key"},
    }  # fmt: skip
    case = Case(
        "objectstore", {"rprotocols": {"1": raw}}, found_in(buckets), {}, [buckets.secret_key, buckets.access_key]
    )
    log = run_job(site, rundir, replace(case, container=container if inside else None), tag)
    assert ("in the container: " in log) == inside


def test_a_job_uses_urls_that_were_signed_for_its_files(site: Site, rundir: Path, gate: Gate) -> None:
    source, sink = names("signed")
    gate.s3.put("x/in", CONTENTS)
    urls = {source: {"get": gate.signed("GET", "x/in")}, sink: {"put": gate.signed("PUT", "x/out")}}
    described = {"resource": {"signed": urls, "endpoint": gate.s3.url, "bucket_id": gate.s3.bucket}}
    signed = (url for either in urls.values() for url in either.values())
    secrets = [part.partition("&")[0] for url in signed for part in url.split("Signature=")[1:]]

    def get(lfn: str) -> bytes:
        return gate.s3.get("x/out") if lfn == sink else found_in(gate.s3)(lfn)

    # The log has no URL of its own: it goes to the bucket with keys.
    case = Case("objectstore", described, get, gate.s3.environ, secrets)
    log = run_job(site, rundir, case, "signed")
    assert len(secrets) == 2 and "Signature=***" in log


def test_a_job_uses_googles_storage(site: Site, rundir: Path, emulator: GS) -> None:
    protocol = {"endpoint": f"gs://{emulator.bucket}", "id": 1, "path": "/vo"}
    name = names("gs")[0]
    google_put(emulator, below(name, "vo"))
    environ = {**emulator.environ, "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/c4na7y.json"}

    def get(lfn: str) -> bytes:
        return next(path for path in emulator.path("").rglob(lfn) if path.is_file()).read_bytes()

    run_job(site, rundir, Case("gs", {"arprotocols": {"default": [protocol]}}, get, environ, ["c4na7y"]), "gs")


def google_put(emulator: GS, name: str) -> None:
    """Upload an object in one plain request, as the service's own interface has it."""
    url = f"{emulator.url}/upload/storage/v1/b/{emulator.bucket}/o"
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(url, params={"uploadType": "media", "name": name}, data=CONTENTS, timeout=30)
        answer.raise_for_status()
