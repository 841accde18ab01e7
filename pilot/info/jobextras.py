"""What a definition asks for around the payload: commands before, beside and after it, secrets, and lists of names."""

from __future__ import annotations

import re

from pilot.common.exception import ConversionFailure
from pilot.info.basedata import printable
from pilot.info.filespec import check_lfn
from pilot.util.https import Json, parse_json

# A URL or the name of a command, and nothing that a shell could read as more.
_COMMAND = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./:@%~+?=&,-]*\Z")
_COMMAND_LENGTH = 2000
# Linux takes at most 128 KiB for one argument of a program, and a command is one argument of the shell.
_ARGUMENTS_LIMIT = 130000
# A user's secrets are tokens and passwords (bytes); more is a file, and a file is an input.
_SECRETS_LIMIT = 1048576


def is_command(text: str) -> bool:
    """Whether a text is a URL or a command's name that a shell reads as one word."""
    return len(text) <= _COMMAND_LENGTH and _COMMAND.match(text) is not None


def read_command(raw: Json, field: str) -> dict[str, Json]:
    """One of the fields preprocess, coprocess and postprocess: {"command": ..., "args": ...}, empty for none.

    Some servers send the object as text. Raises ConversionFailure, with the field's name in its text.
    """
    found = _object(raw, field)
    if not found:
        return {}
    command, args = found.get("command"), found.get("args") or ""
    if not isinstance(command, str) or not is_command(command):
        raise ConversionFailure(f"field {field}: {str(command)[:60]!r} is neither a URL nor a command")
    if isinstance(args, list):
        args = " ".join(str(word) for word in args)
    if not isinstance(args, (str, int, float)) or len(str(args)) > _ARGUMENTS_LIMIT:
        raise ConversionFailure(f"field {field}: its args are no text of at most {_ARGUMENTS_LIMIT} characters")
    return {"command": command, "args": printable(str(args), field)}


def read_container_options(raw: Json) -> dict[str, str]:
    """Field containerOptions: containerImage, and containerExec that runs in it. Raises ConversionFailure."""
    found = _object(raw, "containerOptions")
    known = {name: found.get(name) for name in ("containerImage", "containerExec")}
    return {name: printable(str(value), "containerOptions") for name, value in known.items() if value}


def read_secrets(raw: Json) -> dict[str, Json]:
    """Field secrets: the user's, by name. Raises ConversionFailure, which never shows what it was."""
    if isinstance(raw, str) and len(raw) > _SECRETS_LIMIT:
        raise ConversionFailure(
            f"field secrets: more than {_SECRETS_LIMIT} characters; larger ones are for input files"
        )
    return _object(raw, "secrets", shown=False)


def read_lists(text: str, lfn_limit: int) -> dict[str, list[str]]:
    """Field writeToFile: "inputFor_a:lfn1,lfn2^inputFor_b:lfn3" names files and what the pilot writes into each.

    Raises ConversionFailure for what has another form, LFNTOOLONG and BADOUTPUTFILENAME for a name that is none.
    """
    found: dict[str, list[str]] = {}
    for item in filter(None, text.split("^")):
        name, colon, names = item.partition(":")
        members = [one for one in names.split(",") if one]
        if not colon or not members or name in found:
            raise ConversionFailure(f"field writeToFile: {item[:60]!r} is not of the form FILE:NAME,NAME")
        found[check_lfn(name, "writeToFile", lfn_limit, output=True)] = [
            check_lfn(one, "writeToFile", lfn_limit, output=False) for one in members
        ]
    return found


def _object(raw: Json, field: str, *, shown: bool = True) -> dict[str, Json]:
    """An object, which may come as text; shown: whether an error may show what it was."""
    if isinstance(raw, str) and raw not in ("", "NULL", "None", "null"):
        try:
            raw = parse_json(raw)
        except ValueError:
            raise ConversionFailure(f"field {field}: the text is not valid JSON") from None
    if raw in (None, "", [], "NULL", "None", "null"):
        return {}
    if not isinstance(raw, dict):
        said = f"{str(raw)[:60]!r} is not" if shown else "it is not"
        raise ConversionFailure(f"field {field}: {said} an object")
    return raw
