"""All rows of the table of faults, by who is behind them."""

from __future__ import annotations

from tests.injected import container, payload
from tests.injected.fault import Fault

SECTIONS: dict[str, tuple[Fault, ...]] = {
    "Payloads": payload.FAULTS,
    "Containers": container.FAULTS,
}
FAULTS: tuple[Fault, ...] = tuple(fault for section in SECTIONS.values() for fault in section)
