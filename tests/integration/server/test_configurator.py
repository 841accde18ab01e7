"""The configurator in a real daemon: what the information service says is what pilots get, in a moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from tests.cric import Page, running_cric
from tests.integration.server.clients import PATIENCE, Client, wait_until
from tests.servers import running_server


def pilotkit(url: str, *arguments: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "server.cli.main", *arguments]
    environment = {**os.environ, "PILOTKIT_URL": url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_the_service_says_of_a_queue_is_what_pilots_get(
    tmp_path: Path, make_database: Callable[[str], dict[str, str]]
) -> None:
    often = {name: {"period": 0.2} for name in ("configurator", "network_configurator", "sw_tags")}
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps(often))
    links = tmp_path / "links.json"
    links.write_text(json.dumps([{"src": "SITE", "dst": "OTHER", "closeness": 3}]))
    queue = {"site": "SITE", "astorages": {"pw": ["DISK", "TAPE"]}}
    with running_cric() as cric:
        cric.pages["/queues"] = Page({"Q": queue}, etag='"1"')
        cric.pages["/storages"] = Page({"DISK": {"site": "SITE"}, "TAPE": {"site": "SITE"}})
        cric.pages["/blacklist"] = Page(["DISK"])
        environment = {
            "PILOTKIT_DAEMON_CONFIG": str(config),
            "PILOTKIT_CRIC_URL_SCHEDCONFIG": f"{cric.url}/queues",
            "PILOTKIT_CRIC_URL_DDMENDPOINTS": f"{cric.url}/storages",
            "PILOTKIT_CRIC_URL_DDMBLACKLIST": f"{cric.url}/blacklist?activity=write_wan",
            "PILOTKIT_CRIC_URL_CM": str(links),
            **make_database("configurator"),
        }
        with running_server(tmp_path / "data", environment=environment) as server, Client(server.url) as client:
            address = f"{server.url}/cache/schedconfig/Q.all.json"

            def seen() -> dict[str, Any]:
                answer = requests.get(address, timeout=PATIENCE)
                return answer.json() if answer.status_code == 200 else {}

            wait_until(lambda: seen().get("astorages") == {"pw": ["TAPE"]}, "the queue without the closed storage")
            client.submit({"queue": "Q"})
            cric.pages["/queues"] = Page({"Q": {**queue, "status": "offline"}}, etag='"2"')
            wait_until(lambda: seen()["status"] == "offline", "the queue to be offline")
            nothing = client.panda("getJob", {"siteName": "Q", "prodSourceLabel": "user"})
            assert (nothing["StatusCode"], nothing["reason"]) == (20, "queue_offline")
            cric.pages["/queues"] = Page("oops", status=500)
            wait_until(lambda: "answered 500" in pilotkit(server.url, "site", "sources"), "the failure to be told")
            assert seen()["status"] == "offline"
            wait_until(lambda: "closeness" in pilotkit(server.url, "site", "network"), "the links")
            assert "SITE" in pilotkit(server.url, "site", "list")
            assert "it is on the blacklist" in pilotkit(server.url, "site", "show", "SITE")
            assert "offline" in pilotkit(server.url, "queue", "history", "Q")
            assert json.loads(pilotkit(server.url, "queue", "history", "Q", "--json"))["described"]
