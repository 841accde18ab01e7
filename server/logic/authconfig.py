"""The files that say which ID tokens are good for what (chapter 7.6.3 of PanDA's documents).

For each VO `<vo>_auth_config.json`, which clients fetch from /auth/ as well, with audience, client_id, client_secret,
oidc_config_url and vo; `<vo>.<role>_auth_config.json` where a role has a client of its own. And one file of policies,
{vo: [[string in the groups of a token, {"group": ..., "role": ...}], ...]}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from server.logic.context import Role
from server.logic.users import Login
from server.settings import ConfigurationError, Settings, is_safe_url

ENDING = "_auth_config.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
#: What a role of the policy file may do here. "production" is what Harvester and pilots of large VOs come with.
ROLES: Mapping[str, frozenset[Role]] = {
    "user": frozenset({Role.USER}),
    "pilot": frozenset({Role.PILOT}),
    "harvester": frozenset({Role.HARVESTER}),
    "production": frozenset({Role.PILOT, Role.HARVESTER, Role.USER}),
    "operator": frozenset({Role.OPERATOR}),
}


@dataclass(frozen=True)
class Client:
    """A client of an OIDC provider, from one file.

    Attributes:
        name: as the header Origin has it, `vo` or `vo.role`.
        page: the file's content.
    """

    name: str
    vo: str
    audience: str
    oidc_config_url: str
    page: bytes


@dataclass(frozen=True)
class Rule:
    """What a string in the groups of a token gives. queue, label: all that a pilot may ask for, empty for anything."""

    group: str
    role: str
    queue: str = ""
    label: str = ""


@dataclass(frozen=True)
class AuthConfig:
    """All clients by name, and the rules of each VO: (string, rule)."""

    clients: Mapping[str, Client] = field(default_factory=dict)
    rules: Mapping[str, Sequence[tuple[str, Rule]]] = field(default_factory=dict)

    def matching(self, vo: str, strings: Collection[str], role: str = "") -> list[Rule]:
        """The rules of a VO that somebody fulfils who has these strings, of all roles or of one."""
        return [rule for string, rule in self.rules.get(vo, ()) if string in strings and role in ("", rule.role)]

    def login(self, subject: str, name: str, rules: Sequence[Rule], *, limited: bool = False) -> Login:
        """Somebody with what the rules give: the roles of all, and what the first one binds to that binds."""
        roles = frozenset[Role]().union(*(ROLES[rule.role] for rule in rules))
        bound = next((rule for rule in rules if rule.queue or rule.label), Rule("", ""))
        return Login(subject, name, roles, bound.queue, bound.label, limited)

    def page(self, file_name: str) -> bytes | None:
        """What clients get for a file name; None if there is no such file."""
        found = self.clients.get(file_name.removesuffix(ENDING)) if file_name.endswith(ENDING) else None
        return found.page if found else None


def read_auth_config(settings: Settings) -> AuthConfig:
    """What the files say; nothing if none are configured. The policies alone are for the attributes of certificates.

    Raises:
        ConfigurationError: one cannot be read or has something else in it.
    """
    policies = Path(settings.auth_policies).expanduser()
    rules = _rules(policies) if settings.auth_policies else {}
    if not settings.auth_config:
        return AuthConfig(rules=rules)
    folder = Path(settings.auth_config).expanduser()
    files = sorted(folder.glob(f"*{ENDING}"))
    if not files:
        raise ConfigurationError(f"There is no <vo>{ENDING} in {folder}; PILOTKIT_AUTH_CONFIG must name their folder.")
    if not settings.auth_policies:
        raise ConfigurationError(
            "PILOTKIT_AUTH_POLICIES must name the file that says which groups have which role; without it nobody may "
            "do anything with an ID token."
        )
    clients = [_client(path) for path in files]
    return AuthConfig({client.name: client for client in clients}, rules)


def _client(path: Path) -> Client:
    content = _object(path)
    name = path.name.removesuffix(ENDING)
    values = {key: content.get(key) for key in ("audience", "client_id", "oidc_config_url")}
    missing = [key for key, value in values.items() if not isinstance(value, str) or not value]
    if missing or not _NAME.match(name):
        raise ConfigurationError(
            f"{path}: it needs the texts audience, client_id and oidc_config_url, and a plain name."
        )
    url = str(values["oidc_config_url"])
    if not is_safe_url(url):
        raise ConfigurationError(f"{path}: oidc_config_url must begin with https:// (http:// only on this machine).")
    vo = content.get("vo") or name.partition(".")[0]
    return Client(name, str(vo), str(values["audience"]), url, path.read_bytes())


def _rules(path: Path) -> dict[str, list[tuple[str, Rule]]]:
    found: dict[str, list[tuple[str, Rule]]] = {}
    for vo, entries in _object(path).items():
        if not isinstance(entries, list):
            raise ConfigurationError(f"{path}: {vo} must have a list of [string, {{group, role}}].")
        found[vo] = [_rule(path, vo, entry) for entry in entries]
    return found


def _rule(path: Path, vo: str, entry: object) -> tuple[str, Rule]:
    if (
        not isinstance(entry, list)
        or len(entry) != 2
        or not isinstance(entry[0], str)
        or not isinstance(entry[1], dict)
    ):
        raise ConfigurationError(f"{path}: an entry of {vo} is not [string, {{group, role}}].")
    values = {key: entry[1].get(key, "") for key in ("group", "role", "queue", "label")}
    if not all(isinstance(value, str) for value in values.values()) or values["role"] not in ROLES:
        raise ConfigurationError(f"{path}: {vo}, {entry[0]}: role must be one of {', '.join(ROLES)}.")
    return entry[0], Rule(**values)


def _object(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} must be a JSON object.")
    return content
