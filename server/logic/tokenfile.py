"""The tokens file, {token: {"name": ..., "roles": [...]}}: how the first operator of a server gets in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from server.logic.context import Identity, Role
from server.logic.tokens import Grant, digest_of, number_of
from server.settings import ConfigurationError

#: Names are stored with what their bearers do.
NAME_LENGTH = 128


def read_tokens(path: Path) -> dict[str, Grant]:
    """What the tokens of a file allow, by their numbers.

    Raises:
        ConfigurationError: it cannot be read, or has something else in it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"The tokens file {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigurationError(f"The tokens file {path} is not JSON: {error}.") from None
    if not isinstance(content, dict) or not content:
        raise ConfigurationError(f"The tokens file {path} must be a JSON object with at least one token.")
    found: dict[str, Grant] = {}
    for place, (token, entry) in enumerate(content.items(), start=1):
        where = f"The tokens file {path}, token {place}"  # never the token itself: this text goes to logs
        if len(token) < 8:
            raise ConfigurationError(f"{where}: it has fewer than 8 characters, which can be guessed.")
        if not isinstance(entry, dict):
            raise ConfigurationError(f'{where}: it needs an object with "name" and "roles".')
        digest = digest_of(token)
        found[number_of(digest)] = Grant(_identity(where, number_of(digest), entry), digest)
    return found


def _identity(where: str, number: str, entry: Mapping[str, object]) -> Identity:
    name, roles = entry.get("name"), entry.get("roles")
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH:
        raise ConfigurationError(f'{where}: it needs a "name" of at most {NAME_LENGTH} characters.')
    if not isinstance(roles, list) or not roles or not set(map(str, roles)) <= set(Role):
        raise ConfigurationError(f'{where}: "roles" must be a list of {", ".join(Role)}.')
    queue, label = entry.get("queue", ""), entry.get("label", "")
    if not isinstance(queue, str) or not isinstance(label, str):
        raise ConfigurationError(f'{where}: "queue" and "label" must be texts.')
    return Identity(name, frozenset(Role(role) for role in roles), number, queue=queue, label=label)
