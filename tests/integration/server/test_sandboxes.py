"""The sandbox cache as panda-client uses it."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.integration.server.clients import Client
from tests.servers import RunningServer, running_server


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.url) as made:
        yield made


def upload(client: Client, name: str, content: bytes) -> dict[str, object]:
    files = {"file": (name, content, "application/octet-stream")}
    answer = client.session.post(f"{client.url}/api/v1/file_server/upload_cache_file", files=files, timeout=30)
    assert answer.status_code == 200
    return answer.json()  # type: ignore[no-any-return]


def tar_of(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo("run.sh")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def test_a_sandbox_is_uploaded_once_found_again_and_fetched(client: Client) -> None:
    inner = tar_of(os.urandom(1000))
    content = gzip.compress(inner)
    wanted = {"file_size": len(content), "checksum": zlib.crc32(inner)}
    assert client.v1("file_server/validate_cache_file", wanted)["success"] is False
    assert upload(client, "jobO.1.tar.gz", content) == {"success": True, "message": "", "data": None}
    found = client.v1("file_server/validate_cache_file", wanted)
    assert found["message"].startswith("FOUND:")
    assert found["message"].rpartition(":")[2] == "jobO.1.tar.gz"
    assert requests.get(f"{client.url}/cache/jobO.1.tar.gz", timeout=30).content == content
    assert client.v1("file_server/validate_cache_file", {**wanted, "file_size": 1})["success"] is False


def test_the_same_file_may_be_sent_twice_and_another_of_its_name_may_not(client: Client) -> None:
    assert upload(client, "a.dat", b"one")["success"]
    assert upload(client, "a.dat", b"one")["success"]
    refused = upload(client, "a.dat", b"two")
    assert refused["success"] is False
    assert "another file" in str(refused["message"])
    assert requests.get(f"{client.url}/cache/a.dat", timeout=30).content == b"one"
    assert upload(client, "a.__ow__", b"one")["success"]
    assert upload(client, "a.__ow__", b"two")["success"]
    assert requests.get(f"{client.url}/cache/a.__ow__", timeout=30).content == b"two"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        b"PK\x03\x04 a zip file",
        tar_of(b"not packed"),
        gzip.compress(b"no tar" * 200, mtime=0),  # a time would be in the name of the test
        b"\x1f\x8b\x08",
    ],
)
def test_what_jobs_could_not_unpack_is_refused_at_once(client: Client, content: bytes) -> None:
    for name in ("jobO.bad.tar.gz", "bad.tgz"):
        refused = upload(client, name, content)
        assert refused["success"] is False
        assert "no gzip'd tar archive" in str(refused["message"])
        assert requests.get(f"{client.url}/cache/{name}", timeout=30).status_code == 404


def test_an_empty_archive_is_an_archive(client: Client) -> None:
    assert upload(client, "empty.tar.gz", gzip.compress(bytes(10240)))["success"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../x", "/etc/passwd", ".hidden", "a b", "a;b", "x" * 256, "a\x00b"]
)
def test_names_that_could_leave_the_cache_are_refused(server: RunningServer, client: Client, name: str) -> None:
    before = sorted(str(path) for path in server.data.rglob("*"))
    boundary = "boundary"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = head.encode() + b"content" + f"\r\n--{boundary}--\r\n".encode()
    answer = client.session.post(
        f"{client.url}/api/v1/file_server/upload_cache_file",
        data=body,
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
        timeout=30,
    )
    assert answer.status_code in (200, 400)
    assert answer.json()["success"] is False
    after = [path for path in server.data.rglob("*") if str(path) not in before]
    assert [path for path in after if path.name != "cache"] == []


@pytest.mark.parametrize("path", ["..%2f..%2fpilotkit.db", "../pilotkit.db", "%2e%2e/pilotkit.db", ".upload-x", "none"])
def test_only_the_cache_is_read(client: Client, path: str) -> None:
    request = requests.Request("GET", f"{client.url}/cache/x").prepare()
    request.url = f"{client.url}/cache/{path}"
    assert client.session.send(request, timeout=30).status_code in (403, 404)


def test_a_sandbox_that_is_too_large_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    environment = {"PILOTKIT_SANDBOX_LIMIT": "100000", "PILOTKIT_BODY_LIMIT": "100000"}
    with running_server(tmp_path, environment=environment) as server, Client(server.url) as client:
        assert upload(client, "fits.dat", b"x" * 100_000)["success"]
        refused = upload(client, "large.dat", b"x" * 100_001)
        assert refused["success"] is False
        assert "larger than" in str(refused["message"])
        files = {"file": ("huge.tar.gz", b"x" * 300_000)}
        url = f"{client.url}/api/v1/file_server/upload_cache_file"
        answer = requests.post(url, files=files, timeout=30)
        assert (answer.status_code, answer.json()["success"]) == (413, False)
        assert [path.name for path in (tmp_path / "cache").iterdir()] == ["fits.dat"]
