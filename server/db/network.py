"""The network matrix: numbers that say how well two sites are connected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, select

from server.db.dialect import insert_into
from server.db.tables import network_matrix


class Link(NamedTuple):
    """From where, to where, and what the number is."""

    src: str
    dst: str
    key: str


def read_links(
    connection: Connection, *, src: str = "", dst: str = "", key: str = "", limit: int | None = None
) -> dict[Link, tuple[float, float]]:
    """Value and time (s since 1970, when it got this value) of links, by source, destination and key.

    Args:
        src, dst, key: only these; empty for all.
    """
    columns = network_matrix.c
    query = select(columns.src, columns.dst, columns.key, columns.value, columns.time)
    for column, wanted in ((columns.src, src), (columns.dst, dst), (columns.key, key)):
        if wanted:
            query = query.where(column == wanted)
    rows = connection.execute(query.order_by(columns.src, columns.dst, columns.key).limit(limit))
    return {Link(row.src, row.dst, row.key): (row.value, row.time) for row in rows}


def store_links(connection: Connection, links: Mapping[Link, float], now: float) -> None:
    """Add links or give them new values."""
    rows = [{**link._asdict(), "value": value, "time": now} for link, value in links.items()]
    if rows:
        statement = insert_into(connection, network_matrix)
        changed = {"value": statement.excluded.value, "time": statement.excluded.time}
        keys = [network_matrix.c[name] for name in Link._fields]
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)


def remove_links(connection: Connection, links: Iterable[Link]) -> None:
    """Forget links."""
    rows = [{f"_{name}": value for name, value in link._asdict().items()} for link in links]
    if rows:
        same = (network_matrix.c[name] == bindparam(f"_{name}") for name in Link._fields)
        connection.execute(delete(network_matrix).where(*same), rows)
