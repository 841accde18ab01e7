"""All rows of the table of faults, by who is behind them."""

from __future__ import annotations

from tests.injected import batch, container, payload, pilot, server, site, storage, user
from tests.injected.fault import Fault

SECTIONS: dict[str, tuple[Fault, ...]] = {
    "Payloads": payload.FAULTS,
    "Containers": container.FAULTS,
    "Definitions and orders": user.FAULTS,
    "Nodes, queues and credentials": site.FAULTS,
    "Storage": storage.FAULTS,
    "The dispatcher": server.FAULTS,
    "The batch system": batch.FAULTS,
    "The pilot": pilot.FAULTS,
}
FAULTS: tuple[Fault, ...] = tuple(fault for section in SECTIONS.values() for fault in section)
