"""v1 methods about numbers of jobs over time."""

from __future__ import annotations

from server.logic import metrics
from server.routes.registry import ALL_BUT_PILOTS, Call, Kind, Registry, optional

registry = Registry()


@registry.method(
    "statistics/job_metrics",
    "GET",
    ALL_BUT_PILOTS,
    optional("kind", Kind.TEXT, "queue or share; queue"),
    optional("name", Kind.TEXT, "of one queue or share; all"),
    optional("hours", Kind.NUMBER, "how far back; 24"),
    optional("limit", Kind.INTEGER, "most numbers; 10000"),
)
def job_metrics(call: Call) -> object:
    """How many jobs there were in each state, over time; of final states, how many got there since the time before."""
    hours = call.values.get("hours")
    return metrics.read_metrics(
        call.context,
        call.text("kind", "queue"),
        call.text("name"),
        float(hours) if isinstance(hours, int | float) else 24.0,
        call.integer("limit", 10_000),
    )
