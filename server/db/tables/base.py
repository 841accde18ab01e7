"""What all tables share: the metadata they are declared in, the type of identifiers, indexes of some rows only."""

from __future__ import annotations

from sqlalchemy import BigInteger, ColumnElement, Index, Integer, MetaData, text

metadata = MetaData()

#: 64 bits everywhere; SQLite gives its row identifier only to a column declared INTEGER.
Identifier = BigInteger().with_variant(Integer, "sqlite")


def partial(name: str, *columns: ColumnElement[object], where: str, unique: bool = False) -> Index:
    """An index of only the rows that fulfil a condition, on every database we know."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))
