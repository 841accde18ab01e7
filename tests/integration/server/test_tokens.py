"""Tokens from the command line, on a server with several web workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests

from tests.servers import running_server

ROOT = Path(__file__).resolve().parents[3]
#: s anything may take here; far more than it needs.
PATIENCE = 60
#: s until every web worker has forgotten a caller (docs/credentials.md), and some more for a busy machine.
FORGOTTEN = 5 + 20


def test_a_token_is_made_used_and_revoked_on_all_workers(
    tmp_path: Path, make_database: Callable[[str], dict[str, str]]
) -> None:
    (tmp_path / "tokens.json").write_text(json.dumps({"operator-token": {"name": "root", "roles": ["operator"]}}))
    environment = {"PILOTKIT_TOKENS": str(tmp_path / "tokens.json"), "PILOTKIT_WORKERS": "3", **make_database("tokens")}
    with running_server(tmp_path / "data", environment=environment) as server:

        def pilotkit(*arguments: str, token: str = "operator-token") -> str:
            done = subprocess.run(
                [sys.executable, "-m", "server.cli.main", *arguments],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "PILOTKIT_URL": server.url, "PILOTKIT_TOKEN": token},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            return done.stdout.strip() if done.returncode == 0 else f"{done.returncode}: {done.stderr}"

        def answers(token: str) -> set[int]:
            """What many connections are answered, which reach all workers."""
            url, headers = f"{server.url}/api/v1/queue/list", {"Authorization": f"Bearer {token}"}
            return {requests.get(url, headers=headers, timeout=PATIENCE).status_code for _ in range(40)}

        token = pilotkit("token", "create", "--role", "pilot", "--queue", "Q", "--name", "site", "--expires", "1h")
        assert token.startswith("pkt_"), token
        assert answers(token) == {200}
        refused = pilotkit("token", "list", token=token)
        assert refused.startswith("1: pilotkit: token/list is for operator"), refused
        (listed,) = json.loads(pilotkit("token", "list", "--json"))
        assert (listed["name"], listed["queue"], listed["revoked"]) == ("site", "Q", None)
        assert token not in json.dumps(listed)
        assert pilotkit("token", "revoke", listed["token_id"]) == f"revoked: {listed['token_id']}"
        deadline = time.monotonic() + FORGOTTEN
        while 200 in (found := answers(token)) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert found == {403}
        another = pilotkit("token", "create", "--role", "user", "--name", "mallory")
        assert answers(another) == {200}
        assert "banned" in pilotkit("user", "ban", "mallory")
        deadline = time.monotonic() + FORGOTTEN
        while 200 in (found := answers(another)) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert found == {403}
        assert "You would ban yourself" in pilotkit("user", "ban", "root")
        assert not any(token in line for line in server.output)
