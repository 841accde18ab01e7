"""The people and robots behind credentials: their names here, their rights, and who is banned.

A name belongs to the one credential it was first used with: an ID token or a certificate that claims a name of
somebody else is turned away, because jobs, files and rights go by name.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from server.db import accounts
from server.db.accounts import ACTIVE, BANNED, User
from server.logic.context import Context, Identity, Role
from server.logic.errors import BadCredential, BadField, Conflict
from server.logic.names import shown

#: The letters of GRIDPREF (wire.md, section 6): key pairs, proxies and access tokens, token keys.
RIGHTS = frozenset("kpt")
_NAME_LENGTH, _SUBJECT_LENGTH = 128, 512


@dataclass(frozen=True)
class Login:
    """Whom a certificate or an ID token shows.

    Attributes:
        subject: what it is the only one of: a certificate's name (DN), or issuer and subject of a token.
        name: the name it asks for, if it has none here yet.
        roles: what it gives by itself, by VOMS or by groups; the operator may have given more.
        queue, label, limited: see `Identity`.
    """

    subject: str
    name: str
    roles: frozenset[Role]
    queue: str = ""
    label: str = ""
    limited: bool = False


def admit(context: Context, identity: Identity) -> Identity:
    """The same caller, with the rights of the user of that name.

    Raises:
        BadCredential: the user is banned.
    """
    with context.database.reading() as connection:
        user = accounts.read_user(connection, identity.name)
    return identity if user is None else _with_rights(identity, user)


def log_in(context: Context, login: Login, reserved: Container[str]) -> Identity:
    """The caller behind a certificate or an ID token; one with a role gets its name here at its first call.

    Args:
        reserved: names that nobody may take by asking for them.

    Raises:
        BadCredential: the user is banned, or the name is somebody else's.
    """
    identity = Identity(login.name, login.roles, queue=login.queue, label=login.label, limited=login.limited)
    with context.database.reading() as connection:
        user = accounts.find_user(connection, login.subject)
    if user is None and login.roles:
        user = _enter(context, login, reserved)
    if user is None:
        return identity
    roles = login.roles | {Role(role) for role in user.roles}
    return _with_rights(replace(identity, name=user.name, roles=roles), user)


def _enter(context: Context, login: Login, reserved: Container[str]) -> User:
    user = User(login.name, login.subject, [], "", ACTIVE)
    if len(login.subject) > _SUBJECT_LENGTH or not 0 < len(login.name) <= _NAME_LENGTH or not login.name.isprintable():
        raise BadCredential("The name in this credential is too long, empty, or cannot be printed.")
    with context.database.durable() as connection:
        found = accounts.find_user(connection, login.subject)  # another worker may have been faster
        if found is not None:
            return found
        others = accounts.read_user(connection, login.name) or accounts.read_tokens(connection, login.name)
        # Of two who come first with one name at the same moment one is added, and the other is turned away.
        if others or login.name in reserved or not accounts.add_user(connection, user, context.clock()):
            raise BadCredential(
                f"The name {shown(login.name)} is somebody else's here. If it is yours, an operator of this server can"
                f" say so: pilotkit user set NAME --subject {shown(login.subject)}"
            )
    return user


def _with_rights(identity: Identity, user: User) -> Identity:
    if user.status == BANNED:
        raise BadCredential(f"{shown(user.name)} is banned from this server; ask its operators why.")
    return replace(identity, rights=frozenset(user.rights)) if user.rights else identity


# ---- what operators do


def show(context: Context) -> list[User]:
    """All users by name."""
    with context.database.reading() as connection:
        return accounts.read_users(connection)


def change(
    context: Context,
    name: str,
    *,
    subject: str | None = None,
    roles: Sequence[str] | None = None,
    rights: str | None = None,
    banned: bool | None = None,
    by: str = "",
) -> User:
    """Add a user or change what is given of one.

    Args:
        by: the name of who asks for it.

    Raises:
        BadField: a value cannot be used.
        Conflict: the subject is another user's, or somebody would lock himself out.
    """
    if banned and name == by:
        raise Conflict("You would ban yourself; another operator can.")
    if not 0 < len(name) <= _NAME_LENGTH or not name.isprintable() or name != name.strip():
        raise BadField("name", f"must be 1 to {_NAME_LENGTH} printable characters, not {shown(name)}")
    if roles is not None and not set(roles) <= set(Role):
        raise BadField("roles", f"must be a list of {', '.join(Role)}")
    if rights is not None and not set(rights) <= RIGHTS:
        raise BadField("rights", f"must be letters of {''.join(sorted(RIGHTS))}, not {shown(rights)}")
    if subject is not None and (len(subject) > _SUBJECT_LENGTH or not subject.isprintable()):
        raise BadField("subject", f"must be at most {_SUBJECT_LENGTH} printable characters")
    with context.database.durable() as connection:
        user = accounts.read_user(connection, name) or User(name, None, [], "", ACTIVE)
        if subject and (other := accounts.find_user(connection, subject)) and other.name != name:
            raise Conflict(f"{shown(subject)} is the user {shown(other.name)}.")
        user = user._replace(
            subject=user.subject if subject is None else subject or None,
            roles=user.roles if roles is None else sorted(set(roles)),
            rights=user.rights if rights is None else "".join(sorted(set(rights))),
            status=user.status if banned is None else BANNED if banned else ACTIVE,
        )
        accounts.store_user(connection, user, context.clock())
    return user
