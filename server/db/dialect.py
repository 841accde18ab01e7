"""The few statements every database spells its own way."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_into(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def is_like(connection: Connection, column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
    """Whether a text is like a pattern, in which * stands for anything; small and capital letters differ."""
    if connection.dialect.name == "sqlite":  # whose LIKE takes them for the same
        return column.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]").replace("?", "[?]"))
    plain = pattern.replace("/", "//").replace("%", "/%").replace("_", "/_")
    return column.like(plain.replace("*", "%"), escape="/")
