"""Proxies, tokens and keys that pilots may fetch: what the operator has put into the folder `credentials` of the data
directory, and keeps fresh there.

`credentials.json` in it says who may have what; the files beside it hold the credentials themselves:

    {"proxies": [{"role": "atlas", "dn": "/DC=org/CN=robot", "file": "robot.pem", "for": ["site-a"]}],
     "tokens": [{"client_name": "storage", "file": "storage.token", "for": ["site-a"], "key": "..."}],
     "keys": [{"public_key_name": "store.pub", "private_key_name": "store.key", "public_file": "store.id",
               "private_file": "store.secret", "for": ["site-a"]}]}

`for` lists names of callers. Beside them a user with a right gets all of a kind, as GRIDPREF has it on PanDA's servers:
k key pairs, p proxies and tokens, t token keys. Nobody else gets it. A token with a `key` is handed out to who shows
the key.
A proxy or token with a `command` (a list of words) is kept fresh by the daemon: see `refresh`.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path

from server.logic.context import Context, Identity
from server.logic.errors import DispatcherError
from server.logic.names import complaint_about_file, shown

logger = logging.getLogger(__name__)

FOLDER, INDEX = "credentials", "credentials.json"
#: A proxy with a long chain is some ten kilobytes.
_SIZE_LIMIT = 1024 * 1024
#: How old a credential becomes before it is made again, in s, where its entry has no `every`: a sixth of a VOMS proxy's
#: usual half day, so that nobody gets one that is about to end.
_EVERY = 7200
#: How long a command may take, in s.
_COMMAND_PATIENCE = 120
#: Stands in a command for the file that it is to write; without it, what it prints is the credential.
_FILE = "{file}"


class Code(IntEnum):
    """StatusCodes of the legacy wire (wire.md, section 3)."""

    BAD_KEY = 50
    DENIED = 70
    KEY_MISSING = 80
    UNREADABLE = 90


class NoCredential(DispatcherError):
    """Nothing is handed out; the code says why to machines."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


def proxy(context: Context, identity: Identity, role: str, dn: str) -> str:
    """The proxy of a name with a role, in PEM.

    Raises:
        NoCredential: the caller may not have it, there is none, or it cannot be read.
    """
    return _contents(context, _entry(context, identity, "proxies", {"role": role, "dn": dn}, "p"))


def access_token(context: Context, identity: Identity, client_name: str, token_key: str) -> str:
    """The token of a client.

    Raises:
        NoCredential: the caller may not have it, there is none, its key was not shown, or it cannot be read.
    """
    entry = _entry(context, identity, "tokens", {"client_name": client_name}, "p")
    key = str(entry.get("key") or "")
    if key and not token_key:
        raise NoCredential(Code.KEY_MISSING, f"The token of {client_name} is handed out for its token key only.")
    if key and not hmac.compare_digest(key.encode(), token_key.encode(errors="replace")):
        raise NoCredential(Code.BAD_KEY, f"This is not the token key of {client_name}.")
    return _contents(context, entry)


def key_pair(context: Context, identity: Identity, public_name: str, private_name: str) -> tuple[str, str]:
    """The two keys of an object store, by their names.

    Raises:
        NoCredential: the caller may not have them, there are none, or they cannot be read.
    """
    wanted = {"public_key_name": public_name, "private_key_name": private_name}
    entry = _entry(context, identity, "keys", wanted, "k")
    public, private = (_contents(context, entry, name) for name in ("public_file", "private_file"))
    return public, private


def token_key(context: Context, identity: Identity, client_name: str) -> str:
    """The key for the token of a client.

    Raises:
        NoCredential: the caller may not have it, or there is none.
    """
    key = _entry(context, identity, "tokens", {"client_name": client_name}, "t").get("key")
    if not key:
        raise NoCredential(Code.KEY_MISSING, f"The token of {client_name} has no key.")
    return str(key)


def _entry(
    context: Context, identity: Identity, kind: str, wanted: Mapping[str, str], right: str
) -> Mapping[str, object]:
    """What is there for this caller. What is there for others is not told from what is not there.

    Args:
        right: the letter with which a user gets all of the kind.
    """
    for entry in _index(context).get(kind, []):
        allowed = entry.get("for")
        listed = isinstance(allowed, list) and identity.name in allowed
        may_have = not identity.name or listed or right in identity.rights
        if may_have and all(entry.get(name) == value for name, value in wanted.items()):
            return entry
    asked = " and ".join(f"{name} {shown(value)}" for name, value in wanted.items())
    raise NoCredential(Code.DENIED, f"There are no {kind} with {asked} for {identity.name or 'you'}.")


def _index(context: Context) -> Mapping[str, list[Mapping[str, object]]]:
    path = _folder(context) / INDEX
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise NoCredential(Code.UNREADABLE, f"The operator's list {FOLDER}/{INDEX} cannot be read.") from error
    if not isinstance(content, dict):
        raise NoCredential(Code.UNREADABLE, f"The operator's list {FOLDER}/{INDEX} is no JSON object.")
    return {
        kind: [entry for entry in entries if isinstance(entry, dict)]
        for kind, entries in content.items()
        if isinstance(entries, list)
    }


def _contents(context: Context, entry: Mapping[str, object], field: str = "file") -> str:
    name = entry.get(field)
    if complaint := complaint_about_file(name):
        raise NoCredential(Code.UNREADABLE, f"The operator's list {FOLDER}/{INDEX} names no file: {complaint}.")
    try:
        with (_folder(context) / str(name)).open(encoding="ascii") as stream:
            content = stream.read(_SIZE_LIMIT).strip()
    except (OSError, ValueError) as error:
        raise NoCredential(Code.UNREADABLE, f"The operator's file {FOLDER}/{name} cannot be read.") from error
    if not content:
        raise NoCredential(Code.UNREADABLE, f"The operator's file {FOLDER}/{name} is empty.")
    return content + "\n"


def _folder(context: Context) -> Path:
    return context.settings.data_path() / FOLDER


def refresh(context: Context) -> tuple[int, int]:
    """Make proxies and tokens anew that are old or not there, each by its own command.

    An entry's `command` is a list of words, run without a shell, every `every` seconds. What it prints is the new
    credential, or what it writes into the file that `{file}` stands for. One that fails leaves the old one in place.

    Returns:
        How many were made, and how many could not be.
    """
    made = failed = 0
    try:
        index = _index(context)
    except NoCredential as error:
        logger.error("%s", error)
        return 0, 1
    for entry in (entry for kind in ("proxies", "tokens") for entry in index.get(kind, [])):
        if "command" not in entry or not _is_old(context, entry):
            continue
        try:
            _make(context, entry)
            made += 1
        except (NoCredential, OSError, subprocess.TimeoutExpired) as error:
            what = "took too long" if isinstance(error, subprocess.TimeoutExpired) else str(error)
            logger.error("%s/%s is not made anew: %s", FOLDER, entry.get("file"), what)
            failed += 1
    return made, failed


def _is_old(context: Context, entry: Mapping[str, object]) -> bool:
    every = entry.get("every", _EVERY)
    try:
        age = context.clock() - (_folder(context) / str(entry.get("file"))).stat().st_mtime
    except OSError:
        return True
    return not isinstance(every, int | float) or age >= every


def _make(context: Context, entry: Mapping[str, object]) -> None:
    """Run an entry's command; the new file takes the place of the old one when it is whole."""
    name, command = entry.get("file"), entry.get("command")
    if complaint := complaint_about_file(name):
        raise NoCredential(Code.UNREADABLE, f"its file has no good name: {complaint}")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise NoCredential(Code.UNREADABLE, "its command must be a list of words")
    with tempfile.TemporaryDirectory(prefix=".fresh-", dir=_folder(context)) as place:
        fresh = Path(place) / "fresh"
        printed = _run([str(fresh) if word == _FILE else word for word in command])
        if _FILE not in command:
            fresh.write_bytes(printed)
        content = fresh.read_bytes() if fresh.is_file() else b""
        if not content.strip() or len(content) > _SIZE_LIMIT or not content.isascii():
            raise NoCredential(Code.UNREADABLE, f"{command[0]} ended well, and gave no credential")
        fresh.chmod(0o600)
        now = context.clock()
        os.utime(fresh, (now, now))
        os.replace(fresh, _folder(context) / str(name))


def _run(command: Sequence[str]) -> bytes:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_PATIENCE, check=False
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        words = f": {said[-1][:200]}" if said else ""
        raise NoCredential(Code.UNREADABLE, f"{command[0]} ended with exit code {done.returncode}{words}")
    return done.stdout
