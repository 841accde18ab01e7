"""v1 methods about tokens and users, for operators."""

from __future__ import annotations

from server.db.accounts import Token, User
from server.logic import tokens, users
from server.logic.dispatch import iso_time
from server.routes.envelope import Reply
from server.routes.registry import OPERATORS, Call, Kind, Registry, optional, required

registry = Registry()


@registry.method(
    "token/create",
    "POST",
    OPERATORS,
    required("name"),
    required("roles", Kind.TEXTS),
    required("lifetime", Kind.INTEGER, "s"),
    optional("queue", description="all that a pilot may have jobs of; * for every queue"),
    optional("label", description="prodSourceLabel that a pilot may ask for"),
)
def create_token(call: Call) -> object:
    """Make a token; this answer is the only one that shows it."""
    wishes = (call.text("name"), call.texts("roles"), call.text("queue"), call.text("label"), call.integer("lifetime"))
    text, token, remark = tokens.create(call.context, call.identity, *wishes)
    return Reply({"token": text, **_shown_token(token)}, message=remark)


@registry.method("token/list", "GET", OPERATORS)
def list_tokens(call: Call) -> object:
    """The tokens that operators have made, without the tokens themselves."""
    return [_shown_token(token) for token in tokens.show(call.context)]


@registry.method("token/revoke", "POST", OPERATORS, optional("token_id"), optional("name"))
def revoke_tokens(call: Call) -> object:
    """Revoke a token by its number, or all of a name, and all that they were exchanged for."""
    return tokens.revoke(call.context, call.identity, call.text("token_id"), call.text("name"))


@registry.method("user/list", "GET", OPERATORS)
def list_users(call: Call) -> object:
    """The users this server has seen or was told of."""
    return [_shown_user(user) for user in users.show(call.context)]


@registry.method(
    "user/set",
    "POST",
    OPERATORS,
    required("name"),
    optional("subject", description="a certificate's name (DN), or issuer and subject of an ID token"),
    optional("roles", Kind.TEXTS),
    optional("rights", description="letters of kpt: key pairs, proxies and tokens, token keys"),
    optional("banned", Kind.FLAG),
)
def set_user(call: Call) -> object:
    """Add a user or change what is given of one."""
    given = call.values
    user = users.change(
        call.context,
        call.text("name"),
        subject=call.text("subject") if "subject" in given else None,
        roles=call.texts("roles") if "roles" in given else None,
        rights=call.text("rights") if "rights" in given else None,
        banned=call.flag("banned") if "banned" in given else None,
        by=call.identity.name,
    )
    return _shown_user(user)


def _shown_token(token: Token) -> dict[str, object]:
    return {
        "token_id": token.tokenID,
        "name": token.name,
        "roles": token.roles,
        "queue": token.queue,
        "label": token.label,
        "created": iso_time(token.creationTime),
        "created_by": token.createdBy,
        "ends": iso_time(token.endTime),
        "revoked": iso_time(token.revokedTime),
        "revoked_by": token.revokedBy,
    }


def _shown_user(user: User) -> dict[str, object]:
    return user._asdict()
