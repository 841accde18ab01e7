"""The v1 API: /api/v1/<module>/<method>. Every answer is an envelope {success, message, data}."""

from __future__ import annotations

import json
import pkgutil
from importlib import import_module

from flask import Blueprint, Response, current_app, request

from server import routes
from server.logic.errors import DispatcherError
from server.logic.names import shown
from server.routes import state
from server.routes.calling import WrongRole, prepare_call
from server.routes.decoding import BadArgument, Malformed, read_body
from server.routes.envelope import Reply, failure
from server.routes.identities import Denied
from server.routes.registry import Registry

blueprint = Blueprint("v1", __name__)

#: Every method of v1: those of all modules v1_* beside this one.
registry = Registry()
for _found in pkgutil.iter_modules(routes.__path__, f"{routes.__name__}."):
    if _found.name.startswith(f"{__name__}_"):
        registry.include(import_module(_found.name).registry)

#: What may stand for the version in a path.
VERSIONS = ("v1", "latest")


@blueprint.route("/api/<version>/<module>/<name>", methods=["GET", "POST", "PUT", "DELETE"])
def call_method(version: str, module: str, name: str) -> Response:
    """Any v1 method."""
    method = registry.find(f"{module}/{name}") if version in VERSIONS else None
    if method is None:
        return Response(f"ERROR : method {shown(f'{module}/{name}')} is forbidden", 403, content_type="text/plain")
    if request.method not in method.verbs:
        return _response(failure(f"expecting {' or '.join(sorted(method.verbs))}, received {request.method}"))
    server = state.of(current_app)
    settings = server.context.settings
    try:
        body = read_body(request, settings.body_limit)
        call = prepare_call(server.context, server.gate, method, request, body, strict=True, wants_json=True)
        reply = method.handler(call)
    except Malformed as error:
        return _response(failure(str(error)), 400)
    except Denied as error:
        return _response(failure(str(error)), 403)
    except BadArgument as error:
        return _response(failure(f"{error.kind}: {error}"))
    except (WrongRole, DispatcherError) as error:
        return _response(failure(str(error)))
    return _response(reply if isinstance(reply, Reply) else Reply(data=reply))


def _response(reply: Reply, status: int = 200) -> Response:
    content = {"success": reply.success, "message": reply.message, "data": reply.data, **reply.extra}
    return Response(json.dumps(content), status, content_type="application/json")


def refusal(text: str, status: int, request_id: str) -> Response:
    """An envelope for what never reached a method: a body too large, an unknown path."""
    return _response(failure(text, request_id=request_id), status)
