"""/openapi.json: the v1 API described by OpenAPI 3.1, made from the registry that the server itself goes by."""

from __future__ import annotations

import json
from collections.abc import Mapping

from flask import Blueprint, Response

from pilot import __version__
from server.routes import v1
from server.routes.registry import Argument, Kind, Method

blueprint = Blueprint("openapi", __name__)

Schema = dict[str, object]

#: Whole numbers must fit into 64 bits, and texts must not have a NUL in them (server.routes.decoding).
_LARGEST = 2**63 - 1
_INTEGER: Schema = {"type": "integer", "format": "int64", "minimum": -_LARGEST, "maximum": _LARGEST}
_NUMBER: Schema = {"type": "number", "exclusiveMinimum": -(2.0**63), "exclusiveMaximum": 2.0**63}
_FREE_TEXT: Schema = {"type": "string"}
_TEXT: Schema = {"type": "string", "pattern": "^[^\\u0000]*$"}
_SCHEMAS: Mapping[Kind, Schema] = {
    Kind.TEXT: _TEXT,
    Kind.INTEGER: _INTEGER,
    Kind.NUMBER: _NUMBER,
    Kind.FLAG: {"type": "boolean"},
    Kind.TEXTS: {"type": "array", "items": _TEXT},
    Kind.INTEGERS: {"type": "array", "items": _INTEGER},
    Kind.ITEMS: {"type": "array"},
    Kind.OBJECT: {"type": "object"},
    Kind.ANY: {},
}

#: Values of arguments that tell a reader more than one of the right type would.
_EXAMPLES: Mapping[str, object] = {
    "attempt_nr": 1,
    "computing_element": "ce01.example.org",
    "cpu_consumption_time": 3521,
    "disk_space": 20000,
    "event_ranges": '[{"eventRangeID": "1-4711-0-1-1", "eventStatus": "finished"}]',
    "host_name": "wn042.example.org",
    "job_id": 4711,
    "job_ids": [4711, 4712],
    "job_status": "running",
    "jobs": [{"queue": "MY_QUEUE", "command": "echo hello > hello.txt", "outputs": ["hello.txt"]}],
    "memory": 4000,
    "name": "MY_QUEUE",
    "node": "wn042.example.org",
    "prod_source_label": "managed",
    "queues": {"MY_QUEUE": {"state": "ACTIVE", "status": "online"}},
    "site": "MY_SITE",
    "site_name": "MY_QUEUE",
    "status": "started",
}
_EXAMPLES_OF_KIND: Mapping[Kind, object] = {
    Kind.TEXT: "text",
    Kind.INTEGER: 1,
    Kind.NUMBER: 1.5,
    Kind.FLAG: True,
    Kind.TEXTS: ["text"],
    Kind.INTEGERS: [1],
    Kind.ITEMS: [],
    Kind.OBJECT: {},
    Kind.ANY: "text",
}


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The description of v1. Open to everybody, as its text is in our repository."""
    return Response(json.dumps(description()), content_type="application/json")


def description() -> dict[str, object]:
    """The OpenAPI document."""
    paths = {f"/api/v1/{method.path}": _path(method) for method in sorted(v1.registry, key=lambda m: m.path)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pilotkit dispatcher",
            "version": __version__,
            "description": "The v1 API of PanDA servers, and what this server adds. Every answer is an envelope; a"
            " method that says no answers 200 with success false and the reason in message.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in sorted({method.path.partition("/")[0] for method in v1.registry})],
        "paths": paths,
        "components": {
            "schemas": {"Envelope": _envelope(), "Refusal": _refusal()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                name: {
                    "description": text,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
                }
                for name, text in _REFUSALS.items()
            }
            | {"414": _too_long()},
        },
    }


#: HTTP status -> what it means here.
_REFUSALS: Mapping[str, str] = {
    "400": "The request cannot be understood at all.",
    "403": "No token, none that is known, or a method that there is not.",
    "413": "The body is too large, as it is or unpacked.",
    "429": "Too many requests from here; Retry-After says when to come back.",
    "503": "The database did not answer; Retry-After says when to come back.",
}


def _too_long() -> dict[str, object]:
    """What the web server says itself, before anything of ours sees the request."""
    text = "The address is too long (8190 bytes are the most); ask for less at a time."
    return {"description": text, "content": {"text/html": {"schema": {"type": "string"}}}}


def _envelope() -> Schema:
    return {
        "type": "object",
        "required": ["success", "message", "data"],
        "properties": {
            "success": {"type": "boolean"},
            "message": {"type": "string", "description": "why not, or a remark"},
            "data": {"description": "the method's answer; null if there is none"},
        },
    }


def _refusal() -> Schema:
    known: Schema = {
        "success": {"const": False},
        "message": {"type": "string"},
        "data": {"type": "null"},
        "request_id": {"type": "string", "description": "as in the header X-Request-Id, and in the server's log"},
    }
    return {"type": "object", "required": ["success", "message"], "properties": known}


def _path(method: Method) -> dict[str, object]:
    return {verb.lower(): _operation(method, verb) for verb in sorted(method.verbs)}


def _operation(method: Method, verb: str) -> dict[str, object]:
    module, _, name = method.path.partition("/")
    roles = sorted(method.roles)
    operation: dict[str, object] = {
        "operationId": f"{module}.{name}" if len(method.verbs) == 1 else f"{module}.{name}.{verb.lower()}",
        "tags": [module],
        "summary": method.summary,
        "description": f"For {' and '.join(roles)}." if roles else "For everybody.",
        "security": [{"token": []}] if roles else [],
        "x-roles": roles,
        "responses": {
            "200": {
                "description": "The method's answer, also if it is no.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Envelope"}}},
            },
            **{status: {"$ref": f"#/components/responses/{status}"} for status in sorted((*_REFUSALS, "414"))},
        },
    }
    if verb == "GET":
        operation["parameters"] = [_parameter(argument) for argument in method.arguments.values()]
    else:
        operation["requestBody"] = _body(method)
    return operation


def _parameter(argument: Argument) -> dict[str, object]:
    """An argument in a query; a list is the same name again and again."""
    parameter: dict[str, object] = {
        "name": argument.name,
        "in": "query",
        "required": argument.required,
        "schema": _schema(argument),
        "example": _example(argument),
    }
    if argument.description:
        parameter["description"] = argument.description
    return parameter


def _body(method: Method) -> dict[str, object]:
    arguments = method.arguments.values()
    properties: dict[str, object] = {argument.name: _property(argument) for argument in arguments}
    properties |= {name: {"type": "string", "format": "binary"} for name in sorted(method.uploads)}
    needed = [argument.name for argument in arguments if argument.required] + sorted(method.uploads)
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if needed:
        schema["required"] = needed
    content: dict[str, object] = {"schema": schema}
    if not method.uploads:
        content["example"] = {argument.name: _example(argument) for argument in arguments if argument.required}
    return {
        "required": bool(needed),
        "content": {"multipart/form-data" if method.uploads else "application/json": content},
    }


def _property(argument: Argument) -> Schema:
    """An argument in a JSON body; null is as good as leaving it out."""
    schema = dict(_schema(argument))
    if not argument.required and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    if argument.description:
        schema["description"] = argument.description
    return schema


def _schema(argument: Argument) -> Schema:
    return _FREE_TEXT if argument.kind is Kind.TEXT and argument.free else _SCHEMAS[argument.kind]


def _example(argument: Argument) -> object:
    return _EXAMPLES.get(argument.name, _EXAMPLES_OF_KIND[argument.kind])
