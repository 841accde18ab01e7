"""Logs and checkpoints that Harvester's agents send."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.test_routes import bearer, client_of


@pytest.fixture
def client(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[FlaskClient]:
    """A server with small logs, two sites' Harvesters, and an operator."""
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({
        "token-of-a": {"name": "a", "roles": ["harvester"]},
        "token-of-b": {"name": "b", "roles": ["harvester"]},
        "operator-token": {"name": "root", "roles": ["operator"]},
    }))  # fmt: skip
    yield from client_of(tmp_path, empty_database, tokens=str(tokens), live_log_limit=1000)


def send(
    client: FlaskClient, method: str, content: bytes, name: str = "h__x.log", token: str = "token-of-a", **form: object
) -> dict[str, Any]:
    data = {"file": (io.BytesIO(content), name), **form}
    return client.post(f"/api/v1/file_server/{method}", data=data, headers=bearer(token)).json


def read(client: FlaskClient, name: str = "h__x.log") -> dict[str, Any]:
    path = f"/api/v1/file_server/get_jedi_log?name={name}"
    return client.get(path, headers=bearer("operator-token")).json


def test_pieces_of_a_log_are_put_together(client: FlaskClient) -> None:
    assert send(client, "upload_jedi_log", zlib.compress(b"one\n"))["data"] == "h__x.log"
    for piece in (zlib.compress(b"two\n"), b"three\n", b""):
        assert send(client, "update_jedi_log", piece)["success"]
    assert read(client)["data"] == "one\ntwo\nthree\n"
    logs = client.get("/api/v1/file_server/list_jedi_logs", headers=bearer("operator-token")).json
    assert logs["data"] == [{"name": "h__x.log", "size": 14}]
    assert send(client, "update_jedi_log", zlib.compress(b"x" * 987))["success"] is False
    assert send(client, "upload_jedi_log", b"anew")["success"]
    assert read(client)["data"] == "anew"


def test_an_instances_log_is_its_owners_alone(client: FlaskClient) -> None:
    assert send(client, "upload_jedi_log", b"mine")["success"]
    for method in ("upload_jedi_log", "update_jedi_log"):
        refused = send(client, method, b"yours", token="token-of-b")
        assert (refused["success"], refused["message"]) == (False, "Harvester h belongs to a, not to b.")
    assert read(client)["data"] == "mine"
    assert send(client, "upload_jedi_log", b"yours", "h2__x.log", token="token-of-b")["success"]


@pytest.mark.parametrize("name", ["nosender.log", "h__../../x", "/etc/h__x", "h__" + "x" * 300])
def test_a_log_stays_in_its_folder(client: FlaskClient, tmp_path: Path, name: str) -> None:
    assert (
        send(client, "update_jedi_log", b"x", os.path.basename(name) if "/" not in name else name)["success"] is False
    )
    assert not list(tmp_path.rglob("*x"))
    assert read(client, name)["success"] is False


def test_a_damaged_piece_changes_nothing(client: FlaskClient) -> None:
    send(client, "upload_jedi_log", b"good")
    packed = zlib.compress(os.urandom(200))
    for piece in (packed[:-20], packed[:20] + b"x" * 200, zlib.compress(bytes(17 * 1024 * 1024))):
        assert send(client, "update_jedi_log", piece)["success"] is False
    assert read(client)["data"] == "good"
    answer = client.post("/api/v1/file_server/update_jedi_log", headers=bearer("token-of-a")).json
    assert "a multipart part named 'file' is needed" in answer["message"]


def test_a_checkpoint_is_replaced_fetched_and_removed_by_its_sender_alone(client: FlaskClient) -> None:
    where = {"task_id": "12", "sub_id": "3"}
    for content in (b"first", b"second"):
        assert send(client, "upload_hpo_checkpoint", content, "cp", **where)["data"] == "hpo_cp_12_3"
    assert send(client, "upload_hpo_checkpoint", b"other", "cp", "token-of-b", **where)["success"] is False
    with client.get("/cache/hpo_cp_12_3") as fetched:
        assert fetched.data == b"second"
    body = {"task_id": 12, "sub_id": "3"}
    delete = "/api/v1/file_server/delete_hpo_checkpoint"
    assert client.post(delete, json=body, headers=bearer("token-of-b")).json["success"] is False
    for _ in range(2):
        assert client.post(delete, json=body, headers=bearer("token-of-a")).json["success"]
    assert client.get("/cache/hpo_cp_12_3").status_code == 404
    for bad in ({"task_id": 12, "sub_id": "../x"}, {"task_id": -1, "sub_id": 1}, {"task_id": "x", "sub_id": 1}):
        assert client.post(delete, json=bad, headers=bearer("token-of-a")).json["success"] is False
