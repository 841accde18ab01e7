"""v1 methods about credentials: a token renews itself, and pilots fetch what the operator has put there for them."""

from __future__ import annotations

from collections.abc import Callable

from server.logic import credentials, tokens
from server.logic.credentials import NoCredential
from server.routes.envelope import failure
from server.routes.registry import PILOTS, Call, Registry, optional, required

registry = Registry()


@registry.method("creds/renew_token", "POST", PILOTS)
def renew_token(call: Call) -> object:
    """A fresh token in exchange for the one that is shown."""
    token, seconds = tokens.renew(call.context, call.identity)
    return {"token": token, "expires_in": seconds}


@registry.method("creds/get_proxy", "GET", PILOTS, required("role"), required("dn"))
def get_proxy(call: Call) -> object:
    """The proxy of a name with a role."""
    return _answer(
        "user_proxy",
        lambda: credentials.proxy(call.context, call.identity, call.text("role"), call.text("dn")),
    )


@registry.method("creds/get_access_token", "GET", PILOTS, required("client_name"), optional("token_key"))
def get_access_token(call: Call) -> object:
    """The token of a client."""
    name, key = call.text("client_name"), call.text("token_key")
    return _answer("user_proxy", lambda: credentials.access_token(call.context, call.identity, name, key))


@registry.method("creds/get_token_key", "GET", PILOTS, required("client_name"))
def get_token_key(call: Call) -> object:
    """The key for the token of a client."""
    return _answer("token_key", lambda: credentials.token_key(call.context, call.identity, call.text("client_name")))


def _answer(name: str, read: Callable[[], str]) -> object:
    try:
        return {"StatusCode": 0, name: read()}
    except NoCredential as error:
        return failure(str(error), {"StatusCode": int(error.code)})
