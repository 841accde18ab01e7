"""From a request to a method's call: identity, role, arguments. The two APIs differ only in how they say no."""

from __future__ import annotations

from flask import Request

from server.logic.context import ANYBODY, Context
from server.routes.decoding import Body, check_arguments
from server.routes.identities import Denied, Gate
from server.routes.registry import Call, Method


class WrongRole(Exception):
    """The caller is known, and may not call this method."""


def prepare_call(
    context: Context, gate: Gate, method: Method, request: Request, body: Body, *, strict: bool, wants_json: bool
) -> Call:
    """Check everything about a call but its meaning.

    Raises:
        Denied: the caller has no credential that is good here.
        WrongRole: the method is not for this caller.
        BadArgument: an argument is missing, unknown or mistyped.
    """
    identity = gate.identify(request, context) if method.roles else ANYBODY
    if strict and identity.limited:  # as PanDA's servers do in v1 (wire.md section 2)
        raise Denied("You came with a limited proxy, which v1 does not take; make a full one.")
    if method.roles and not method.roles & identity.roles:
        raise WrongRole(f"{method.path} is for {' and '.join(sorted(method.roles))}; you are {identity.name}.")
    return Call(
        context=context,
        identity=identity,
        values=check_arguments(method, body, strict=strict),
        # Not request.host_url, which decodes at length what is plain (server.app has checked it).
        server=context.settings.public_url.rstrip("/") or f"{request.scheme}://{request.host}",
        headers=request.headers,
        wants_json=wants_json,
        uploads=body.uploads,
    )
