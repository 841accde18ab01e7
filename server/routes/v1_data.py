"""v1 methods about files that are moved, for those who move them."""

from __future__ import annotations

from server.logic import transfers
from server.routes.registry import OPERATORS, Call, Kind, Registry, required

registry = Registry()


@registry.method(
    "data/report_transfers",
    "POST",
    OPERATORS,
    required("files", Kind.ITEMS, "{scope, lfn, arrived: true or false, endpoint, reason} each"),
)
def report_transfers(call: Call) -> object:
    """Tell which inputs and outputs of jobs have arrived, or never will; how many were waited for."""
    return transfers.report_transfers(call.context, transfers.read_reports(call.items("files")))
