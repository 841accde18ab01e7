"""The dispatcher's settings: read once, at the start, from the environment (PILOTKIT_*) into one frozen object."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit


class ConfigurationError(Exception):
    """The server cannot start with these settings; the text says which one is wrong and what to do."""


#: Without any of these nothing can be served.
_AT_LEAST_ONE = ("workers", "threads", "connections", "heartbeat", "lost_heartbeat", "body_limit")
_LARGEST_PORT = 65535
#: What the log may look like, and what may be in it.
FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Settings:
    """Everything a site may set. A field's environment variable is PILOTKIT_ and its name in capitals.

    Times are in seconds and sizes in bytes unless a field says otherwise. The heartbeat is that of PanDA's
    documents (chapter 12.1.3) and of wire.md, section 8; the other time-outs are in the configuration table.
    """

    data: str = "pilotkit-data"
    """Directory of everything the server keeps: the database, sandbox files, sockets."""
    database: str = ""
    """SQLAlchemy URL of the database, postgresql+psycopg://USER@HOST/NAME or sqlite:///FILE; empty means SQLite in the
    data directory."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than loopback needs a tokens file."""
    port: int = 25080
    """Port to listen on (PanDA's own for http); 0 takes a free one."""
    public_url: str = ""
    """The address pilots reach this server at, for job definitions; empty means the one the asking pilot used."""
    tokens: str = ""
    """JSON file {token: {"name": ..., "roles": ["pilot", "user", "operator"], "queue": ..., "label": ...}}; the
    last two bind pilots and may be left out. Without a tokens file and other credentials a loopback server is open."""
    token_key: str = ""
    """File with the key that renewed tokens are signed with; empty means token.key in the data directory, where it is
    made when it is first needed. Servers on several machines need the same one."""
    token_lifetime: int = 345600
    """How long a renewed token is good for (4 days: longer than the longest slots, so that one is enough for a job)."""
    auth_config: str = ""
    """Folder of <vo>_auth_config.json, one for each VO whose ID tokens are taken (OIDC); they are served at /auth/."""
    auth_policies: str = ""
    """JSON file that says which groups of ID tokens, and which VOMS attributes, have which role here."""
    cert: str = ""
    """Certificate of this server, in PEM, with those between it and its authority; empty for plain HTTP."""
    key: str = ""
    """Its key."""
    ca: str = ""
    """File or folder (by hash) of the authorities whose client certificates and proxies are taken; empty takes none."""
    voms_dir: str = "/etc/grid-security/vomsdir"
    """Folder of LSC files, <vo>/<host>.lsc: the VOMS servers whose attributes count."""
    trusted_proxies: str = ""
    """Addresses or networks, by commas, of the proxy servers in front that may say whose certificate they have seen."""
    trusted_voms: int = 0
    """1 takes VOMS attributes from them too (GRST-CRED and GRST-CONN headers); they must drop those clients send."""
    closed: int = 0
    """1 lets nobody in without a credential although there is no tokens file: operators have made tokens before."""
    workers: int = 2
    """Web server processes."""
    threads: int = 8
    """Threads of each web server process: the number of requests it works on at once."""
    pin_workers: int = 1
    """1 keeps each web server process on a CPU of its own, at one request at a time unless that takes long, where there
    are as many as CPUs, or a multiple, and the database is on this machine: a sixth more requests a second, and none
    that waits much longer than others. 0 leaves it to the kernel."""
    connections: int = 1000
    """Connections a web server process holds open at once; more have to wait until one is closed."""
    request_timeout: int = 30
    """How long a client may take to send the next piece of its request, or to take the next piece of its answer."""

    heartbeat: int = 1800
    """How often a pilot is asked to report."""
    lost_heartbeat: int = 7200
    """A job whose pilot was silent for this long is lost."""
    retry_after: int = 60
    """When a pilot that got no job should ask again."""

    body_limit: int = 32 * 1024 * 1024
    """Largest request body, and largest size it may unpack to; a bulk update of 100 jobs needs about 10 MB."""
    token_rate: int = 0
    """Requests per second that one web server process takes with one token; the others are refused with 429. 0 for no
    limit. A client that keeps its connection open stays with one process."""
    address_rate: int = 0
    """The same for all requests from one address, which a site's pilots may share; 0 for no limit."""
    rate_burst: int = 10
    """For how long the two limits let a caller save up what it did not use."""
    event_clients: int = 2
    """Clients of a web server process that may follow /events; each takes one of its threads."""
    sandbox_limit: int = 768 * 1024 * 1024
    """Largest sandbox file (panda-client's own limit for source tarballs)."""
    sandbox_days: int = 30
    """Days after which a sandbox file that nobody fetched any more is removed."""

    live_log_limit: int = 16 * 1024 * 1024
    """Largest live log of one attempt of a job; what a payload writes beyond it is in the log tarball alone."""
    live_log_days: int = 7
    """Days after which a live log that nobody writes to any more is removed."""

    setupper_plugins: str = ""
    """Who prepares the inputs of jobs, for each VO: VO:NAME or VO:module:Class, by commas; "any" is for all others.
    Empty means that nothing has to be prepared."""
    adder_plugins: str = ""
    """Who deals with the outputs of jobs, in the same form. Empty means that outputs stay where pilots put them."""
    broker_plugins: str = ""
    """Who finds another queue for jobs that wait for too long, in the same form. Empty means that they stay."""
    dataset_plugins: str = ""
    """Who is told of datasets that no job writes to any more, in the same form. Empty means that nobody is."""

    cric_url_schedconfig: str = ""
    """Where the configurator gets the queues from (CRIC's pandaqueue JSON): an http or https address, or a file. Empty
    here and below: these are described by hand."""
    cric_url_sites: str = ""
    """The same for sites."""
    cric_url_ddmendpoints: str = ""
    """The same for storages."""
    cric_url_ddmblacklist: str = ""
    """The same for the list of storages that are closed."""
    cric_url_cm: str = ""
    """The same for the matrix of connections between sites."""
    cric_url_tags: str = ""
    """The same for the software that queues have."""
    cric_timeout: int = 60
    """How long one of these addresses may take to answer in full."""
    cache_dir: str = ""
    """Directory for the files that pilots fetch below /cache/ (queues, storages), where another web server is to hand
    them out; empty: none are written. This server makes them when they are asked for."""

    log_format: str = "text"
    """What the log's lines are: text, or json for programs."""
    log_level: str = "info"
    """What is logged: debug, info, warning or error, and what is worse."""
    access_log: int = 0
    """1 logs every request (without its query and body), 0 only the slow ones."""
    slow_request: int = 1000
    """A request that takes longer than this is logged, in milliseconds, one a second at most; 0 for none."""
    metrics_from: str = "127.0.0.0/8,::1/128"
    """Networks, separated by commas, from which /metrics may be read without an operator's token."""

    settings_file: str = ""
    """File with more settings, a line PILOTKIT_NAME=VALUE each, as systemd's EnvironmentFile has them; the environment
    and options win. It is read again when the server gets SIGHUP."""
    check_only: int = 0
    """1 has `pilotkit serve` check settings and database, bring the database to its version, and leave."""

    daemon_config: str = ""
    """File that adds to or changes the daemon's scripts: JSON, or PanDA's section [daemon]. Empty means the ones that
    come with the server."""

    def database_url(self) -> str:
        """The SQLAlchemy URL, with the default filled in."""
        return self.database or f"sqlite:///{self.data_path() / 'pilotkit.db'}"

    def data_path(self) -> Path:
        """The data directory as an absolute path."""
        return Path(self.data).expanduser().absolute()

    def counters_path(self) -> Path:
        """Where the processes of this machine keep what they count."""
        return self.data_path() / "metrics"

    def token_key_path(self) -> Path:
        """The file with the key of renewed tokens."""
        return Path(self.token_key).expanduser().absolute() if self.token_key else self.data_path() / "token.key"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings from PILOTKIT_* variables, defaults for the rest.

        Args:
            environment: the variables; None means those of this process.

        Raises:
            ConfigurationError: a variable that must be a whole number is none, or the file with more cannot be read.
        """
        variables = dict(os.environ if environment is None else environment)
        if path := variables.get("PILOTKIT_SETTINGS_FILE"):
            variables = {**_read_file(Path(path)), **variables}
        known = {
            f.name: variables[f"PILOTKIT_{f.name.upper()}"]
            for f in fields(cls)
            if f"PILOTKIT_{f.name.upper()}" in variables
        }
        values: dict[str, str | int] = {}
        for name, text in known.items():
            values[name] = _whole_number(name, text) if isinstance(getattr(cls, name), int) else text
        return cls(**values)  # type: ignore[arg-type]  # each value was just given its field's type

    def to_environment(self) -> dict[str, str]:
        """The PILOTKIT_* variables that give another process these settings."""
        return {f"PILOTKIT_{f.name.upper()}": str(getattr(self, f.name)) for f in fields(self)}

    def trusted_networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """The networks of `trusted_proxies`.

        Raises:
            ConfigurationError: one is none.
        """
        try:
            return [ipaddress.ip_network(word.strip()) for word in self.trusted_proxies.split(",") if word.strip()]
        except ValueError as error:
            raise ConfigurationError(f"PILOTKIT_TRUSTED_PROXIES: {error}.") from None

    def is_open(self) -> bool:
        """Whether everybody on this machine may do everything, because there is nothing to tell callers apart by."""
        return not (self.tokens or self.auth_config or self.ca or self.trusted_proxies or self.closed)

    def check(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ConfigurationError: a setting is none of the words it may be, or does not go with another.
        """
        for name, value, words in (("LOG_FORMAT", self.log_format, FORMATS), ("LOG_LEVEL", self.log_level, LEVELS)):
            if value not in words:
                raise ConfigurationError(f"PILOTKIT_{name} must be {' or '.join(words)}, not {value!r}.")
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ConfigurationError(f"PILOTKIT_{name.upper()} must be 1 or more.")
        if self.port > _LARGEST_PORT:
            raise ConfigurationError(f"PILOTKIT_PORT must be at most {_LARGEST_PORT}, not {self.port}.")
        if self.event_clients >= self.threads:
            raise ConfigurationError(
                f"PILOTKIT_EVENT_CLIENTS is {self.event_clients}: it must be less than PILOTKIT_THREADS "
                f"({self.threads}), or nobody is left to answer pilots."
            )
        for network in self.metrics_from.split(","):
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ConfigurationError(f"PILOTKIT_METRICS_FROM: {error}.") from None

    def check_exposure(self) -> None:
        """Refuse an address that others can reach while no credentials are configured.

        Raises:
            ConfigurationError: the host is not loopback and nothing tells callers apart.
        """
        if not self.is_open() or is_loopback(self.host):
            return
        raise ConfigurationError(
            f"The server would be open to everybody who can reach {self.host!r}. Give it a tokens file "
            '(PILOTKIT_TOKENS, JSON {token: {"name": ..., "roles": [...]}}), or let it listen on 127.0.0.1.'
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address (a host name other than localhost counts as reachable)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_safe_url(url: str) -> bool:
    """Whether nobody on the way can change what an address answers: it is https, or on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def _read_file(path: Path) -> dict[str, str]:
    """The variables in a file of lines NAME=VALUE; blank lines and those that begin with # are left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The settings file {path} cannot be read: {error}.") from None
    values: dict[str, str] = {}
    known = {f"PILOTKIT_{f.name.upper()}" for f in fields(Settings)}
    for number, line in enumerate(lines, start=1):
        name, equals, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals or name.strip() not in known:
            raise ConfigurationError(
                f"The settings file {path}, line {number}: {name.strip()!r} is no setting with a value (NAME=VALUE)."
            )
        value = value.strip()
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        values[name.strip()] = value[1:-1] if quoted else value
    return values


def _whole_number(name: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ConfigurationError(f"PILOTKIT_{name.upper()} must be a whole number, not {text!r}.") from None
    if value < 0:
        raise ConfigurationError(f"PILOTKIT_{name.upper()} must not be negative; it is {value}.")
    return value
