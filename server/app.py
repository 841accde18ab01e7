"""The Flask application that gunicorn serves: `gunicorn server.app:create_app()`."""

from __future__ import annotations

import contextlib
import logging
import re

from flask import Flask, Response, current_app, request
from gunicorn.http.errors import NoMoreData, ParseException  # type: ignore[import-untyped]
from werkzeug.exceptions import BadRequest, HTTPException, ServiceUnavailable

from pilot import __version__
from server.counters import UNAVAILABLE, Counters
from server.db.database import (
    Database,
    DatabaseUnavailable,
    DatabaseUnusable,
    Taken,
    Unstorable,
    complaint_about_url,
    shown_url,
)
from server.db.migrate import migrate
from server.db.wakeup import SocketBell, notifier
from server.logic.changes import Feed
from server.logic.context import Context
from server.logic.oidc import ProviderAway
from server.logic.plugins import plugins_of
from server.logs import REQUEST_ID
from server.routes import auth, cache, health, metrics, openapi, panda, state, stream, v1
from server.routes.front import Front
from server.routes.identities import Gate
from server.settings import ConfigurationError, Settings
from server.tls import server_context
from server.turns import Turns

logger = logging.getLogger(__name__)

#: When to come back after the database did not answer, in s.
_RETRY_AFTER = 10
_CHUNK = 65536
#: What gunicorn raises while a body is read that comes in chunks: they are no chunks, or the client has gone.
_BROKEN: tuple[type[Exception], ...] = (ParseException, NoMoreData)
#: host[:port] (RFC 9110, section 7.2): a name, an IPv4 address or an IPv6 address in brackets.
_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?\Z")


def create_app(settings: Settings | None = None, turns: Turns | None = None) -> Flask:
    """The application, with its database at the present version.

    An application without tokens answers only this machine, directly: a request from elsewhere, or through a proxy, is
    refused with 403 however the web server that runs the application is bound.

    Args:
        settings: None reads PILOTKIT_* from the environment.
        turns: whose turn it is of the requests; None: they do not wait for each other.

    Raises:
        ConfigurationError: a setting cannot be used; in particular a host others can reach without a tokens file.
    """
    settings = settings or Settings.from_environment()
    gate = prepare(settings)
    data = settings.data_path()
    database = Database(settings.database_url(), connections=settings.threads)
    app = Flask("server", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.body_limit
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.body_limit
    counters = Counters(settings.counters_path(), "web")
    context = Context(settings, database, SocketBell(data, notifier(database)), counters=counters)
    state.attach(app, state.ServerState(context, gate, Feed(context)))
    for module in (panda, v1, cache, auth, health, metrics, openapi, stream):
        app.register_blueprint(module.blueprint)
    app.before_request(_check_host)
    app.before_request(_allow_uploads)
    app.after_request(_announce)
    app.after_request(_take_the_rest)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(DatabaseUnavailable, _database_error)
    app.register_error_handler(Taken, _database_error)
    app.register_error_handler(ProviderAway, _provider_error)
    app.register_error_handler(Unstorable, _unstorable)
    for kind in _BROKEN:
        app.register_error_handler(kind, _broken_body)
    app.wsgi_app = Front(app.wsgi_app, settings, counters, _names(app), turns)  # type: ignore[method-assign]
    return app


def _names(app: Flask) -> dict[str, tuple[str, str]]:
    """path -> (API, method) of what is counted by its name: the methods of both APIs, and what has one path alone."""
    own = {rule.rule: ("own", rule.rule) for rule in app.url_map.iter_rules() if not rule.arguments}
    legacy = {f"/server/panda/{method.path}": ("panda", method.path) for method in panda.registry}
    latest = {f"/api/{version}/{m.path}": ("v1", m.path) for m in v1.registry for version in v1.VERSIONS}
    return {**own, **legacy, **latest}


def prepare(settings: Settings) -> Gate:
    """Check the settings, make the data directory and bring the database to its present version.

    Returns:
        The gate, which has read the tokens.

    Raises:
        ConfigurationError: a setting cannot be used.
    """
    gate = check(settings)
    try:
        migrate(settings.database_url())
    except DatabaseUnusable as error:
        raise ConfigurationError(str(error)) from error
    return gate


def check(settings: Settings) -> Gate:
    """The part of `prepare` that leaves the database alone: settings and tokens are checked, the directory is made.

    Returns:
        The gate, which has read the tokens.

    Raises:
        ConfigurationError: a setting cannot be used.
    """
    settings.check()
    settings.check_exposure()
    plugins_of(settings)
    gate = Gate(settings)
    server_context(settings)
    if complaint := complaint_about_url(settings.database_url()):
        raise ConfigurationError(f"The database {shown_url(settings.database_url())} cannot be used: {complaint}.")
    try:
        settings.data_path().mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The data directory {settings.data_path()} cannot be made: {error.strerror}."
        ) from error
    return gate


def _check_host() -> None:
    """Refuse a Host that is no address: it would go into job definitions, as the one pilots reach us at."""
    host = request.headers.get("Host")
    if host is not None and not _HOST.match(host):
        raise BadRequest("The Host header must be the address of this server, like panda.example.org:25080.")


def _allow_uploads() -> None:
    """Sandbox files are larger than any other body; they go to disk, not into memory."""
    if request.path.endswith("/file_server/upload_cache_file"):
        settings = state.of(current_app).context.settings
        request.max_content_length = settings.sandbox_limit + settings.body_limit


def _announce(response: Response) -> Response:
    """Tell pilots that this is our server: then they may use what others do not know (wire.md section 8)."""
    response.headers["X-Pilotkit"] = __version__
    return response


def _take_the_rest(response: Response) -> Response:
    """Read what a refused request still has to send: else the connection breaks under its next one."""
    with contextlib.suppress(HTTPException, *_BROKEN):  # too large, or gone: then the connection may break
        while request.method not in ("GET", "HEAD") and request.stream.read(_CHUNK):
            pass
    return response


def _http_error(error: HTTPException) -> Response:
    return _refusal(f"ERROR : {error.description or error.name}", error.code or 500)


def _refusal(text: str, status: int) -> Response:
    """An answer to what never reached a method, with the request's id, by which our log can be searched."""
    if request.path.startswith("/api/"):
        return v1.refusal(text, status, REQUEST_ID.get())
    return Response(f"{text} (request {REQUEST_ID.get()})\n", status, content_type="text/plain; charset=utf-8")


def _unstorable(error: Exception) -> Response:
    """A value that no check of ours stopped and the database did: the request is wrong, and will be next time."""
    logger.error("%s %s: the database refused a value: %s", request.method, request.path, error)
    return _http_error(BadRequest("a value is too long, too large, or has a character that no text may have."))


def _broken_body(_error: Exception) -> Response:
    return _http_error(BadRequest("The body cannot be read: its chunks are damaged, or end too early."))


def _database_error(error: Exception) -> Response:
    """The database is busy or away. Pilots try again on 503; an answer with status 200 they would take for success."""
    logger.error("%s %s: the database did not answer: %s", request.method, request.path, error)
    state.of(current_app).context.counters.add(UNAVAILABLE)
    response = _refusal("ERROR : the database of this server did not answer; try again", 503)
    response.headers["Retry-After"] = str(_RETRY_AFTER)
    return response


def _provider_error(error: Exception) -> Response:
    """Whether a token is good can only be told later: a pilot that is told so keeps what it has to say."""
    logger.error("%s %s: %s", request.method, request.path, error)
    response = _http_error(ServiceUnavailable("the provider of your ID token does not answer; try again"))
    response.headers["Retry-After"] = str(_RETRY_AFTER)
    return response
