"""What Prometheus scrapes: the counters of this machine's processes, and the jobs by state."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from flask import Blueprint, Response, current_app, request

from pilot import __version__
from server.counters import BUCKETS, METRICS, Metric, read_all
from server.db import metrics as stored
from server.db.database import DatabaseUnavailable
from server.logic.context import Context, Identity, Role
from server.logic.states import OVER, Status
from server.routes import state
from server.routes.identities import Denied

blueprint = Blueprint("metrics", __name__)

#: Prometheus' text format.
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_JOBS = Metric("pilotkit_jobs", "gauge", "Jobs that are not over, by state, when they were last counted.", ("state",))
_INFO = Metric("pilotkit_info", "gauge", "The version of this server.", ("version",))


@blueprint.get("/metrics")
def metrics() -> Response:
    """The numbers of all processes of this machine; for operators, and for the addresses that the settings name."""
    server = state.of(current_app)
    settings = server.context.settings
    try:
        if not _is_near(settings.metrics_from):
            _check_operator(server.gate.identify(request, server.context))
    except Denied as error:
        return Response(f"ERROR : {error}\n", 403, content_type="text/plain; charset=utf-8")
    totals = {**read_all(settings.counters_path()), (_INFO, (__version__,)): [1.0], **_jobs(server.context)}
    return Response("".join(f"{line}\n" for line in exposition(totals)), content_type=_CONTENT_TYPE)


def _jobs(context: Context) -> dict[tuple[Metric, tuple[str, ...]], list[float]]:
    """The jobs that are not over by state, as the daemon counted them last: counting here would cost more with more."""
    try:
        with context.database.reading() as connection:
            last = stored.last_time(connection)
            found = {} if last is None else stored.states_at(connection, last)
    except DatabaseUnavailable:
        return {}  # the rest is worth having just then
    return {(_JOBS, (status,)): [float(n)] for status, n in found.items() if Status(status) not in OVER}


def _is_near(networks: str) -> bool:
    """Whether a request comes from an address that may read the numbers without a token, and not through a proxy."""
    if "X-Forwarded-For" in request.headers or not request.remote_addr:
        return False
    address = ipaddress.ip_address(request.remote_addr)
    return any(address in ipaddress.ip_network(network) for network in networks.split(","))


def _check_operator(identity: Identity) -> None:
    if Role.OPERATOR not in identity.roles:
        raise Denied(
            f"/metrics is for operators and for the addresses in PILOTKIT_METRICS_FROM; you are {identity.name}."
        )


def exposition(totals: Mapping[tuple[Metric, tuple[str, ...]], Sequence[float]]) -> Iterator[str]:
    """Numbers in Prometheus' text format, line by line.

    Args:
        totals: (metric, labels) -> its number; of a histogram the sum, then a number for each bucket.
    """
    for metric in (_INFO, _JOBS, *METRICS):
        found = sorted((labels, numbers) for (of, labels), numbers in totals.items() if of is metric)
        if not found and metric.labels:
            continue  # which labels there are is known when the first of them is counted
        yield f"# HELP {metric.name} {metric.text}"
        yield f"# TYPE {metric.name} {metric.kind}"
        for labels, numbers in found or [((), (0.0,))]:
            named = list(zip(metric.labels, labels, strict=True))
            if metric.kind == "histogram":
                yield from _histogram(metric.name, named, numbers)
            else:
                yield _sample(metric.name, named, numbers[0])


def _histogram(name: str, labels: Sequence[tuple[str, str]], numbers: Sequence[float]) -> Iterator[str]:
    count = 0.0
    for bound, number in zip((*map(str, BUCKETS), "+Inf"), numbers[1:], strict=True):
        count += number
        yield _sample(f"{name}_bucket", [*labels, ("le", bound)], count)
    yield _sample(f"{name}_sum", labels, numbers[0])
    yield _sample(f"{name}_count", labels, count)


def _sample(name: str, labels: Sequence[tuple[str, str]], value: float) -> str:
    text = ",".join(f'{label}="{_quoted(content)}"' for label, content in labels)
    return f"{name}{{{text}}} {value:.15g}" if text else f"{name} {value:.15g}"


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
