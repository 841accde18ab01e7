"""What is connected beside the dispatcher when options ask for it: the live log, and the message broker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from pilot import __version__
from pilot.arguments import Arguments
from pilot.control.companion import Companion
from pilot.control.context import Context
from pilot.control.dispatcher import Dispatcher
from pilot.control.job import JobSource
from pilot.control.livesinks import DispatcherSink, Events, HttpSink, StompSink
from pilot.control.msgsvc import MessageService
from pilot.control.realtime import LiveLog, LiveSink
from pilot.util.blot import signatures, without_secrets
from pilot.util.config import Settings
from pilot.util.https import Credentials, HttpClient, is_loopback
from pilot.util.stomp import Broker, StompError
from pilot.util.wiresettings import BrokerSettings

# Types of servers as submit files name them, and what each speaks. Logstash and Fluentd take the same events.
_SPEAK_HTTP = ("logstash", "fluent", "fluentd", "http", "https")
_SPEAK_STOMP = ("stomp", "activemq", "rabbitmq")
_STOMP_SCHEMES = {"stomp": False, "stomp+ssl": True}
# The port of STOMP brokers that their address leaves out, without and with TLS (that of ActiveMQ and RabbitMQ).
_STOMP_PORTS = {False: 61613, True: 61614}


@dataclass(frozen=True)
class LiveServer:
    """Where the live log goes: url, empty for the dispatcher; stomp: whether it is a broker's."""

    url: str = ""
    stomp: bool = False

    def __str__(self) -> str:
        return without_secrets(self.url) or "the dispatcher"


def live_server(text: str) -> LiveServer:
    """What --realtime-logging-server says: TYPE;URL, TYPE;URL;PORT or URL. Raises ValueError."""
    if not text:
        return LiveServer()
    words = [word.strip() for word in text.split(";")]
    kind, url, port = ["", *words, ""][:3] if len(words) == 1 else [*words, ""][:3]
    shown = without_secrets(text)
    try:
        parts = urlsplit(url)
        number = parts.port or (int(port) if port else 0)
    except ValueError:
        raise ValueError(f"--realtime-logging-server: '{shown}' has no port that is a number") from None
    stomp = parts.scheme in _STOMP_SCHEMES
    if len(words) > 3 or not parts.hostname or not 0 <= number <= 65535:
        raise ValueError(f"--realtime-logging-server: '{shown}' must look like logstash;http://host:port")
    known = _SPEAK_STOMP if stomp else _SPEAK_HTTP
    if (not stomp and parts.scheme not in ("http", "https")) or (kind and kind.lower() not in known):
        raise ValueError(
            f"--realtime-logging-server: '{shown}' is of no kind that is known here: {', '.join(_SPEAK_HTTP[:4])} with "
            f"an http or https URL, or {', '.join(_SPEAK_STOMP)} with a stomp or stomp+ssl URL"
        )
    return LiveServer(_with_port(parts, number), stomp)


def _with_port(parts: SplitResult, port: int) -> str:
    if not port or parts.port:
        return parts.geturl()
    return parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{port}").geturl()


def check(args: Arguments, settings: Settings) -> None:
    """Raises ValueError when an option asks for what cannot be connected."""
    if args.subscribe_to_msgsvc:
        _check_brokers(args, settings.broker)
    if not args.use_realtime_logging:
        return
    server = live_server(args.realtime_logging_server)
    if not server.url and (args.job or args.no_serverupdate):
        raise ValueError("--use-realtime-logging: without a dispatcher it needs --realtime-logging-server")
    if server.url and urlsplit(server.url).scheme in ("http", "stomp"):
        _check_plain(server, settings.realtime.insecure)


def _check_plain(server: LiveServer, allowed: bool) -> None:
    if not (allowed or is_loopback(server.url)):
        raise ValueError(
            f"--realtime-logging-server: {server} is not secured, and what payloads write would be readable by all on "
            "the way. Use https or stomp+ssl, or set insecure = True in section [Realtime] of a --config file"
        )


def _check_brokers(args: Arguments, settings: BrokerSettings) -> None:
    if args.job:
        raise ValueError("--subscribe-to-msgsvc: with --job FILE there is nothing to wait for; leave one of them out")
    for broker in _brokers(settings, ""):
        if not (broker.tls or settings.insecure or is_loopback(f"stomp://{broker.host}")):
            raise ValueError(
                f"--subscribe-to-msgsvc: {broker} is not secured, and whoever is on the way could end jobs. Set "
                "use_ssl = True, or insecure = True, in section [Message_broker] of a --config file"
            )


def _brokers(settings: BrokerSettings, ca: str) -> list[Broker]:
    """Those of the settings, in their order. Raises ValueError for what is none, or a password that cannot be read."""
    found = []
    for text in filter(None, (one.strip() for one in settings.host_port_list.split(","))):
        parts = urlsplit(f"stomp://{text}")
        try:
            host, port = parts.hostname, parts.port or _STOMP_PORTS[settings.use_ssl]
        except ValueError:
            host = None
        if not host or "@" in text or parts.path:
            raise ValueError(f"setting [Message_broker] host_port_list: '{text}' does not look like HOST:PORT")
        found.append(
            Broker(
                host=host,
                port=port,
                tls=settings.use_ssl,
                ca=settings.ca or ca,
                certificate=settings.cert_file,
                key=settings.key_file,
                vhost=settings.vhost,
                login=settings.username,
                passcode=_passcode(settings.passcode_file),
                heartbeat=settings.heartbeat,
                timeout=settings.timeout,
            )
        )
    if not found:
        raise ValueError("--subscribe-to-msgsvc: no broker is named; set host_port_list in section [Message_broker]")
    return found


def _passcode(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"setting [Message_broker] passcode_file: {path} cannot be read") from None


def connect(context: Context, source: JobSource, dispatcher: Dispatcher) -> tuple[JobSource, list[Companion]]:
    """Where jobs come from, and what runs beside the controllers. `check` has been passed."""
    companions = _live_log(context, dispatcher)
    service = _message_service(context, source)
    return (source, companions) if service is None else (service, [*companions, service])


def _message_service(context: Context, source: JobSource) -> MessageService | None:
    """The message broker's part, if it is asked for; it asks `source` for the jobs."""
    if not context.args.subscribe_to_msgsvc:
        return None
    settings, queue = context.settings.broker, context.args.queue

    def brokers() -> list[Broker]:
        """With the password as it is in its file now."""
        try:
            found = _brokers(settings, context.keeper.credentials.ca)
        except ValueError as exc:
            raise StompError(str(exc)) from None
        context.secrets.add(*(broker.passcode for broker in found))
        return found

    jobs, commands = (name.replace("{pandaqueue}", queue) for name in (settings.destination, settings.commands))
    return MessageService(context, source, brokers, jobs, commands)


def _live_log(context: Context, dispatcher: Dispatcher) -> list[Companion]:
    """The live log, if one is asked for."""
    if not context.args.use_realtime_logging:
        return []
    server = live_server(context.args.realtime_logging_server)
    context.secrets.add(*signatures(server.url))
    context.log.info("the payload's output goes to %s while it runs", server)
    return [LiveLog(context, _sink(context, dispatcher, server), str(server))]


def _sink(context: Context, dispatcher: Dispatcher, server: LiveServer) -> LiveSink:
    if not server.url:
        return DispatcherSink(dispatcher)
    settings, ca = context.settings.realtime, context.keeper.credentials.ca
    events = Events(context, context.args.realtime_logname or settings.logname)
    parts = urlsplit(server.url)
    if not server.stomp:
        # A server of others is shown neither the pilot's token nor its proxy.
        credentials = Credentials(ca=ca)
        agent = f"pilotkit/{__version__}"
        http = HttpClient(credentials, settings.timeout, settings.timeout, agent, server.url)
        return HttpSink(http, server.url, events)
    tls = _STOMP_SCHEMES[parts.scheme]
    destination = parts.path if len(parts.path) > 1 else settings.destination
    broker = Broker(
        host=parts.hostname or "",
        port=parts.port or _STOMP_PORTS[tls],
        tls=tls,
        ca=ca,
        login=unquote(parts.username or ""),
        passcode=unquote(parts.password or ""),
        timeout=settings.timeout,
    )
    return StompSink(broker, destination.replace("{pandaqueue}", context.args.queue), events)
