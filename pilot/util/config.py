"""Settings: default.cfg, then a file of the user's, read once into frozen objects.

default.cfg is the only place where a default stands, with its unit and its reason. The classes here only say of which
type each setting is; a setting that is missing in default.cfg, or has the wrong type, is an error at start-up.
"""

from __future__ import annotations

import configparser
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar, Union

from pilot.util.filehandling import CHECKSUM_TYPES
from pilot.util.wiresettings import BrokerSettings, RealtimeSettings

Value = Union[str, int, float, bool]

# default.cfg lies beside pilot.py in a checkout, and inside the package when pilotkit was installed from a wheel.
_PACKAGE = Path(__file__).resolve().parent.parent
DEFAULT_FILES = (_PACKAGE.parent / "default.cfg", _PACKAGE / "launch" / "default.cfg")

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
# Settings that may not be 0: the pilot would look, ask or send without a pause, or give up before it begins.
_POSITIVE = frozenset(
    {
        "heartbeat", "heartbeat_debug", "heartbeat_min", "http_connect_timeout", "http_timeout", "request_attempts",
        "kill_file_check", "shutdown_limit", "setup_limit", "signal_query_timeout",
        "stdout_check", "memory_check_first", "memory_check", "disk_check",
        "memory_check_near", "memory_samples", "memory_share", "looping_check", "looping_limit", "output_check",
        "slot_check", "batch_query_timeout", "lfn_limit", "transfer_stall", "transfer_limit", "transfer_speed_min",
        "transfers_at_once", "stagein_attempts",
        "proxy_check", "renewal_pause", "renewal_timeout",
        "catalogue_limit", "trace_limit",
        "remote_opens_at_once", "remote_open_limit",
        "image_limit", "start_limit", "hpo_end_code", "hpo_rounds",
        "event_ranges_ahead", "event_save_gap", "event_retry", "event_call_limit", "event_update",
        "interval", "piece", "backlog", "timeout", "patience",
    }
)  # fmt: skip
# Settings that are a part of a whole.
_FRACTIONS = frozenset({"renew_at"})
# Settings for which only some values make sense.
_CHOICES = {
    "checksum_type": CHECKSUM_TYPES,
    "log_compression": tuple(range(1, 10)),
    "core_dumps": ("keep", "drop", "debug"),
    "replica_sort": ("", "random", "geoip", "custom_table"),
    # Signals that batch systems use to announce an end, and that nothing else sends to programs that handle them.
    "soft_signal": ("SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGINT", "SIGHUP"),
}


class SettingsError(Exception):
    """A configuration file is missing, unreadable, or holds a value that makes no sense.

    The text names file and setting.
    """


@dataclass(frozen=True)
class ExperimentSettings:
    """Section [Experiment]."""

    name: str
    path: str


@dataclass(frozen=True)
class PilotSettings:
    """Section [Pilot]; the units stand in default.cfg."""

    pandaserver: str
    insecure_http: bool
    pilotlog: str
    heartbeat: int
    heartbeat_debug: int
    heartbeat_min: int
    http_connect_timeout: float
    http_timeout: float
    retry_delay: float
    retry_delay_max: float
    request_attempts: int
    final_update_patience: float
    getjob_delay_min: float
    getjob_delay_max: float
    sick_jobs: int
    sick_time: float
    kill_file: str
    kill_file_check: float
    grace_on_signal: float
    grace_planned: float
    shutdown_reserve: float
    shutdown_limit: float
    setup_limit: float
    soft_signal: str
    soft_notice: float
    slot_check: float
    batch_query_timeout: float
    signal_query_timeout: float
    pandaids_file: str
    timing_file: str
    heartbeat_file: str


@dataclass(frozen=True)
class InformationSettings:
    """Section [Information]."""

    queuedata_server: str
    queuedata_shared: str
    queuedata_infosys: str
    storagedata_server: str
    storagedata_shared: str
    storagedata_infosys: str
    cache_age: float


@dataclass(frozen=True)
class PayloadSettings:
    """Section [Payload]."""

    stdout: str
    stderr: str
    job_report: str
    job_report_limit: int
    core_dumps: str
    core_limit: int
    user_metadata: str
    user_metadata_limit: int
    base_urls: str
    transformation_limit: int
    stdout_limit: int
    stdout_check: float
    log_extract: int
    memory_check_first: float
    memory_check: float
    memory_near: float
    memory_check_near: float
    memory_samples: int
    memory_share: float
    memory_monitor: str
    control_group: bool
    looping_check: float
    looping_limit: float
    looping_cpu: float
    stagein_limit: float
    stageout_limit: float
    output_check: float
    event_ranges_ahead: int
    event_save_gap: float
    event_call_limit: float
    event_retry: float
    event_update: float
    zombies_told: int
    utility_grace: float
    utility_restarts: int
    hpo_end_code: int
    hpo_rounds: int


@dataclass(frozen=True)
class ContainerSettings:
    """Section [Container]."""

    type: str
    runtime: str
    default_image: str
    image_prefixes: str
    image_cache: str
    image_limit: float
    start_limit: float
    workdir: str
    bind: str
    environment: str
    middleware_image: str
    middleware_python: str


@dataclass(frozen=True)
class FileSettings:
    """Section [File]."""

    checksum_type: str
    lfn_limit: int
    input_limit: int
    output_limit: int
    space_to_start: int
    space_to_run: int
    disk_check: float
    transfer_stall: float
    transfer_limit: float
    transfer_speed_min: float
    transfer_retry_delay: float
    transfer_retry_delay_max: float
    transfers_at_once: int
    stagein_attempts: int
    remote_opens_at_once: int
    remote_open_limit: float
    direct_access_fallback: bool
    pool_file_catalog: str
    log_compression: int
    log_file_limit: int
    log_size_limit: int
    log_files: int


@dataclass(frozen=True)
class TokenSettings:
    """Section [Token]: proxies and bearer tokens."""

    proxy_check: float
    least_life: float
    renew_at: float
    renewal_pause: float
    renewal_timeout: float
    client_name: str
    storage_client_name: str
    proxy_role: str


@dataclass(frozen=True)
class RucioSettings:
    """Section [Rucio]; `--rucio-host` and `--use-rucio-traces` change `host` and `traces`."""

    host: str
    replicas: bool
    replica_sort: str
    rse_expression: str
    rse_expression_vp: str
    catalogue_limit: float
    traces: bool
    trace_file: str
    trace_limit: float


@dataclass(frozen=True)
class HarvesterSettings:
    """Section [Harvester]: the names of the files that pilot and Harvester exchange."""

    job_definition_file: str
    job_request_file: str
    worker_attributes_file: str
    event_status_file: str
    kill_worker_file: str


@dataclass(frozen=True)
class Settings:
    """All settings of one pilot. `unknown` lists lines of the user's file that this pilot does not know."""

    experiment: ExperimentSettings
    pilot: PilotSettings
    information: InformationSettings
    payload: PayloadSettings
    container: ContainerSettings
    file: FileSettings
    token: TokenSettings
    rucio: RucioSettings
    harvester: HarvesterSettings
    realtime: RealtimeSettings
    broker: BrokerSettings
    unknown: tuple[str, ...] = ()


def read(config_file: str = "") -> Settings:
    """Read default.cfg, and over it `config_file` when one is given.

    Raises SettingsError, with file, section and setting in its text.
    """
    default = next((path for path in DEFAULT_FILES if path.is_file()), None)
    if default is None:
        raise SettingsError(f"default.cfg is missing; it was looked for at {DEFAULT_FILES[0]}. Unpack the pilot again.")
    values = _parse(default)
    unknown: list[str] = []
    if config_file:
        for section, settings in _parse(Path(config_file)).items():
            for key, value in settings.items():
                if key in values.get(section, {}):
                    values[section][key] = value
                else:
                    unknown.append(_unknown(section, key, values))
    return Settings(
        experiment=_build(ExperimentSettings, "Experiment", values),
        pilot=_build(PilotSettings, "Pilot", values),
        information=_build(InformationSettings, "Information", values),
        payload=_build(PayloadSettings, "Payload", values),
        container=_build(ContainerSettings, "Container", values),
        file=_build(FileSettings, "File", values),
        token=_build(TokenSettings, "Token", values),
        rucio=_build(RucioSettings, "Rucio", values),
        harvester=_build(HarvesterSettings, "Harvester", values),
        realtime=_build(RealtimeSettings, "Realtime", values),
        broker=_build(BrokerSettings, "Message_broker", values),
        unknown=tuple(unknown),
    )


def _parse(path: Path) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with path.open(encoding="utf-8") as stream:
            parser.read_file(stream)
    except OSError as exc:
        raise SettingsError(f"configuration file {path} cannot be read: {exc.strerror}") from exc
    except (configparser.Error, UnicodeDecodeError) as exc:
        raise SettingsError(f"configuration file {path} is not a valid INI file: {exc}") from exc
    return {section: dict(parser[section]) for section in parser.sections()}


def _unknown(section: str, key: str, values: dict[str, dict[str, str]]) -> str:
    # Rarely needed, and the pilot's memory counts for as long as its payload runs.
    import difflib

    if section not in values:
        near = difflib.get_close_matches(section, values, n=1)
        return f"[{section}] {key}" + (f"; did you mean section [{near[0]}]?" if near else "")
    near = difflib.get_close_matches(key, values[section], n=1)
    return f"[{section}] {key}" + (f"; did you mean {near[0]}?" if near else "")


_Section = TypeVar(
    "_Section",
    ExperimentSettings,
    PilotSettings,
    InformationSettings,
    PayloadSettings,
    ContainerSettings,
    FileSettings,
    TokenSettings,
    RucioSettings,
    HarvesterSettings,
    RealtimeSettings,
    BrokerSettings,
)


def _build(cls: type[_Section], section: str, values: dict[str, dict[str, str]]) -> _Section:
    given = values.get(section, {})
    built: dict[str, Value] = {}
    for item in fields(cls):
        if item.name not in given:
            raise SettingsError(
                f"default.cfg has no setting {item.name} in section [{section}]. Unpack the pilot again."
            )
        value = _cast(given[item.name], str(item.type), f"[{section}] {item.name}")
        _check(value, item.name, f"[{section}] {item.name}")
        built[item.name] = value
    return cls(**built)  # type: ignore[arg-type]  # each value was cast to its field's type above


def _cast(text: str, kind: str, where: str) -> Value:
    """Turn the text of a setting into the type named `kind` (postponed annotations are strings)."""
    text = text.strip()
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind == "bool":
            if text.lower() in _TRUE + _FALSE:
                return text.lower() in _TRUE
            raise ValueError
    except ValueError:
        raise SettingsError(f"setting {where} must be {_KINDS[kind]}, but is '{text}'") from None
    return text


def _check(value: Value, name: str, where: str) -> None:
    """Raises SettingsError for a value of the right type that makes no sense: no setting is negative or endless."""
    choices = _CHOICES.get(name)
    if choices is not None and value not in choices:
        raise SettingsError(f"setting {where} must be one of {', '.join(map(str, choices))}, but is '{value}'")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0 <= value < math.inf:
            raise SettingsError(f"setting {where} must be 0 or more, but is '{value}'")
        if value > 1 and name in _FRACTIONS:
            raise SettingsError(f"setting {where} must be between 0 and 1, but is '{value}'")
        if value == 0 and name in _POSITIVE:
            raise SettingsError(f"setting {where} must be more than 0")


_KINDS = {"int": "a whole number", "float": "a number", "bool": "True or False"}
