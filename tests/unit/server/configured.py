"""A dispatcher whose configurator asks an information service of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.daemon.scripts import configurator
from server.db import information
from server.logic import queues
from tests.cric import Cric, Page, running_cric
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import Dispatcher, dispatcher_in

#: Source -> the page it is served at, and its setting.
PAGES = {
    "queues": ("/queues", "cric_url_schedconfig"),
    "storages": ("/storages", "cric_url_ddmendpoints"),
    "blacklist": ("/blacklist", "cric_url_ddmblacklist"),
    "sites": ("/sites", "cric_url_sites"),
    "network": ("/network", "cric_url_cm"),
    "software": ("/software", "cric_url_tags"),
}
OFFER = {"endpoint": "file://localhost", "path": "/data/", "flavour": "local", "id": 1}


@dataclass
class Configured:
    """A dispatcher whose configurator asks a service of its own."""

    dispatcher: Dispatcher
    cric: Cric
    log: pytest.LogCaptureFixture

    def says(self, source: str, content: object, **page: object) -> None:
        self.cric.pages[PAGES[source][0]] = Page(content, **page)  # type: ignore[arg-type]

    def run(self, *arguments: str) -> list[str]:
        """Run the script once, some time later; returns what it told."""
        self.log.clear()
        self.dispatcher.clock.now += 200
        assert configurator.run(self.dispatcher.context, arguments) is False
        return [record.getMessage() for record in self.log.records if record.name == configurator.__name__]

    def queue(self, name: str) -> dict[str, object]:
        return queues.read_queue(self.dispatcher.context, name)

    def history(self, name: str) -> list[tuple[object, ...]]:
        with self.dispatcher.context.database.reading() as connection:
            rows = information.read_queue_history(connection, name, 100)
        return [(row["status"], row["state"], row["actor"]) for row in rows]


@contextmanager
def configured_in(folder: Path, empty: EmptyDatabase, log: pytest.LogCaptureFixture) -> Iterator[Configured]:
    """One with a service in which all pages are there and say something harmless."""
    log.set_level(logging.WARNING)
    with running_cric() as cric:
        settings = {setting: f"{cric.url}{path}" for path, setting in PAGES.values()}
        with dispatcher_in(folder, empty, cric_timeout=20, **settings) as dispatcher:
            made = Configured(dispatcher, cric, log)
            made.says("sites", {"SITE": {"state": "ACTIVE"}})
            made.says("storages", {"DISK": {"site": "SITE", "arprotocols": {"default": [OFFER]}}})
            made.says("blacklist", {})
            made.says("queues", {"Q1": {"corecount": 8}, "Q2": {"status": "test"}})
            yield made
