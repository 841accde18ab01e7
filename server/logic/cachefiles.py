"""The files pilots and others fetch below /cache/ (wire.md section 6): made here, and served by the routes or written.

The server makes them from the database when they are asked for, so they are never old. Written to a directory, where
another web server hands them out, they are as old as the script's period.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from server.db import information
from server.db.information import ConfigValue, Description, Queue
from server.logic.context import Context
from server.logic.descriptions import for_pilots
from server.logic.errors import NotFound
from server.logic.names import shown
from server.logic.queues import no_queue

#: Below /cache/: what is there of all queues, the operators' values for pilots, all storages.
ALL_QUEUES = "schedconfig/schedconfig.all.json"
PILOT_CONFIG = "schedconfig/pilot_gdp_config.json"
ALL_STORAGES = "ddmendpoints.json"
_FOLDER = "schedconfig/"
#: All of these have the whole description: ours has nothing that a pilot or a factory must not know.
_JSON_ENDINGS = (".all.json", ".pilot.json", ".factory.json")
_TEXT_ENDING = ".pilot.pilot"
#: The application whose values of the configuration table are for pilots.
_PILOT = "pilot"
_TYPES = {"int": int, "float": float}


def cache_file(context: Context, path: str) -> str:
    """The text of a file below /cache/.

    Raises:
        NotFound: there is no such file, or no such queue.
    """
    with context.database.reading() as connection:
        if path == ALL_QUEUES:
            return _all_queues(information.read_queues(connection))
        if path == PILOT_CONFIG:
            return _pilot_config(information.read_config(connection))
        if path == ALL_STORAGES:
            return json.dumps(information.read_storages(connection))
        name = path.removeprefix(_FOLDER)
        ending = next((one for one in (*_JSON_ENDINGS, _TEXT_ENDING) if name.endswith(one)), None)
        if ending is None:
            raise NotFound(f"There is no file {shown(name)} here.")
        queue = information.read_queue(connection, name.removesuffix(ending))
    if queue is None:
        raise NotFound(no_queue(name.removesuffix(ending)))
    return _queue_file(for_pilots(queue), ending)


def write_cache_files(context: Context) -> int:
    """Write all of them into the directory that is set, if one is; returns how many were new, have changed or are gone.

    Each is put in place at once, so that nobody ever reads half a file, and one that says the same is not touched.
    Those of queues that were removed go.

    Raises:
        OSError: the directory cannot be written.
    """
    if not context.settings.cache_dir:
        return 0
    folder = Path(context.settings.cache_dir).expanduser()
    kept: set[Path] = set()
    changed = 0
    for path, text in _all_files(context):
        kept.add(folder / path)
        changed += _write(folder / path, text)
    endings = (*_JSON_ENDINGS, _TEXT_ENDING)
    gone = [file for file in (folder / _FOLDER).iterdir() if file.name.endswith(endings) and file not in kept]
    for file in gone:
        file.unlink(missing_ok=True)
    return changed + len(gone)


def _all_files(context: Context) -> Iterator[tuple[str, str]]:
    with context.database.reading() as connection:
        queues = information.read_queues(connection)
        config = information.read_config(connection)
        storages = information.read_storages(connection)
    for queue in queues:
        description = for_pilots(queue)
        for ending in (*_JSON_ENDINGS, _TEXT_ENDING):
            path = f"{_FOLDER}{queue.name}{ending}"
            if path != ALL_QUEUES:  # a queue called schedconfig: the routes give the file of all queues, too
                yield path, _queue_file(description, ending)
    yield ALL_QUEUES, _all_queues(queues)
    yield PILOT_CONFIG, _pilot_config(config)
    yield ALL_STORAGES, json.dumps(storages)


def _all_queues(queues: list[Queue]) -> str:
    return json.dumps({queue.name: for_pilots(queue) for queue in queues})


def _queue_file(description: Description, ending: str) -> str:
    if ending in _JSON_ENDINGS:
        return json.dumps(description)
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in description.items()}
    return "|".join(f"{key}={value}" for key, value in values.items())


def _pilot_config(config: list[ConfigValue]) -> str:
    """The operators' values for pilots, a list of rows: one key may stand in several components and for several VOs."""
    rows = [one._asdict() | {"value": _typed(one)} for one in config if one.application == _PILOT]
    for row in rows:
        del row["application"]
    return json.dumps(rows)


def _typed(one: ConfigValue) -> object:
    if one.type == "bool":
        return one.value.strip().lower() in ("true", "1", "yes")
    try:
        return _TYPES.get(one.type, str)(one.value)
    except ValueError:  # written by another program: as it stands there
        return one.value


def _write(path: Path, text: str) -> bool:
    content = text.encode("utf-8", "backslashreplace")
    try:
        if path.read_bytes() == content:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # for the web server's user, whatever the umask
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    return True
