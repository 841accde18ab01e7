"""Tokens that were given out, and users."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, delete, insert, select, update

from server.db.dialect import insert_into
from server.db.tables import tokens, users

ACTIVE, BANNED = "active", "banned"


class Token(NamedTuple):
    """A row of `tokens`. queue, label: what pilots may ask for with it, empty for anything; times in s since 1970."""

    tokenID: str
    digest: str
    name: str
    roles: list[str]
    queue: str
    label: str
    creationTime: float
    createdBy: str
    endTime: float
    revokedTime: float | None = None
    revokedBy: str | None = None


class User(NamedTuple):
    """A row of `users`. subject: the one credential that is this user's, if it is known."""

    name: str
    subject: str | None
    roles: list[str]
    rights: str
    status: str


_TOKEN = tuple(tokens.c[name] for name in Token._fields)
_USER = tuple(users.c[name] for name in User._fields)
_READ_TOKEN = select(*_TOKEN).where(tokens.c.tokenID == bindparam("token_id"))
_READ_USER = select(*_USER).where(users.c.name == bindparam("name"))
_FIND_SUBJECT = select(*_USER).where(users.c.subject == bindparam("subject"))


def add_token(connection: Connection, token: Token) -> None:
    """Enter a token."""
    connection.execute(insert(tokens).values(token._asdict()))


def read_token(connection: Connection, token_id: str) -> Token | None:
    """A token by its number."""
    row = connection.execute(_READ_TOKEN, {"token_id": token_id}).first()
    return Token._make(row) if row else None


def read_tokens(connection: Connection, name: str = "") -> list[Token]:
    """The tokens of a name, or all of them, by name and age."""
    query = select(*_TOKEN).order_by(tokens.c.name, tokens.c.creationTime)
    return [Token._make(row) for row in connection.execute(query.where(tokens.c.name == name) if name else query)]


def revoke_tokens(connection: Connection, by: str, now: float, *, token_id: str = "", name: str = "") -> list[str]:
    """Revoke a token by its number, or all of a name; returns the numbers of those that were good until now."""
    which: ColumnElement[bool] = tokens.c.tokenID == token_id if token_id else tokens.c.name == name
    statement = (
        update(tokens)
        .where(which, tokens.c.revokedTime.is_(None))
        .values(revokedTime=now, revokedBy=by)
        .returning(tokens.c.tokenID)
    )
    return sorted(connection.execute(statement).scalars())


def forget_tokens(connection: Connection, ended_before: float) -> None:
    """Remove tokens that ended long ago."""
    connection.execute(delete(tokens).where(tokens.c.endTime < ended_before))


def read_user(connection: Connection, name: str) -> User | None:
    """A user by name."""
    row = connection.execute(_READ_USER, {"name": name}).first()
    return User._make(row) if row else None


def find_user(connection: Connection, subject: str) -> User | None:
    """The user that a credential belongs to."""
    row = connection.execute(_FIND_SUBJECT, {"subject": subject}).first()
    return User._make(row) if row else None


def read_users(connection: Connection) -> list[User]:
    """All users by name."""
    return [User._make(row) for row in connection.execute(select(*_USER).order_by(users.c.name))]


def add_user(connection: Connection, user: User, now: float) -> bool:
    """Add a user; False if there is one of that name."""
    values = {**user._asdict(), "modificationTime": now, "creationTime": now}
    statement = insert_into(connection, users).values(values).on_conflict_do_nothing().returning(users.c.name)
    return connection.execute(statement).first() is not None


def store_user(connection: Connection, user: User, now: float) -> None:
    """Add a user, or replace what is known of one."""
    values = {**user._asdict(), "modificationTime": now}
    connection.execute(
        insert_into(connection, users)
        .values({**values, "creationTime": now})
        .on_conflict_do_update(index_elements=[users.c.name], set_=values)
    )
