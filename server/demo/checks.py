"""What must be true after the demo, checked from outside: states, files in storage, the physics."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from server.cli.client import Json, Row, row, rows

MAX_DEVIATION: Final = 5.0  # standard deviations of the fitted mass from the value that was generated
MAX_DIFFERENCE: Final = 0.5  # GeV; guards against a fit that is wrong and claims a huge error
CHUNK: Final = 1 << 20  # bytes read at a time


def storage_path(storage: Path, scope: str, lfn: str) -> Path:
    """Where a file of the deterministic layout is: scope/xx/yy/LFN, from md5("scope:LFN") (wire.md, section 1)."""
    digest = hashlib.md5(f"{scope}:{lfn}".encode(), usedforsecurity=False).hexdigest()
    return storage.joinpath(scope, digest[:2], digest[2:4], lfn)


def adler32(path: Path) -> str:
    """The checksum of a file as PanDA writes it: eight hex digits."""
    value = 1
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.adler32(chunk, value)
    return f"{value:08x}"


def job_problems(details: Row) -> list[str]:
    """Why a job is not as it should be; empty when it has finished."""
    if details.get("jobStatus") == "finished":
        return []
    told = f"job {details.get('PandaID')} ({details.get('jobName')}) is {details.get('jobStatus')}"
    error = details.get("error")
    if isinstance(error, dict):
        told += f": {error.get('source')} error {error.get('code')}, {error.get('diag') or error.get('message')}"
    return [told]


def file_problems(details: Row, storage: Path) -> list[str]:
    """What is wrong with the outputs and the log of a job: each must lie where the layout says, whole."""
    problems = []
    for file in rows(details.get("files") or []):
        if file.get("type") not in ("output", "log"):
            continue
        lfn = str(file.get("lfn"))
        path = storage_path(storage, str(file.get("scope")), lfn)
        registered = Path(unquote(urlsplit(str(file.get("surl") or "")).path))
        if not path.is_file():
            problems.append(f"{lfn} is not in the storage at {path}")
        elif registered != path:
            problems.append(f"{lfn} is registered at {registered}, but the layout wants it at {path}")
        elif path.stat().st_size != int(str(file.get("fsize") or -1)):
            problems.append(f"{lfn} has {path.stat().st_size} bytes in storage, {file.get('fsize')} were registered")
        elif adler32(path) != str(file.get("checksum") or "").removeprefix("ad:"):
            problems.append(f"{lfn} has checksum {adler32(path)} in storage, {file.get('checksum')} was registered")
    return problems


def fit_result(path: Path) -> dict[str, float]:
    """The numbers of the fit, from the file that payloads.fit wrote. Raises ValueError when it is no such file."""
    document: Json = json.loads(path.read_text(encoding="utf-8"))
    numbers = row(row(document).get("fit"))
    return {name: float(str(value)) for name, value in numbers.items()}


def fit_problems(fit: dict[str, float]) -> list[str]:
    """Why the fitted mass is not believable; empty when it agrees with the mass that was generated."""
    difference = abs(fit["mass"] - fit["reference_mass"])
    if difference <= min(MAX_DEVIATION * fit["mass_error"], MAX_DIFFERENCE):
        return []
    return [
        f"the fitted mass, {fit['mass']:.3f} ± {fit['mass_error']:.3f} GeV, is {difference:.3f} GeV "
        f"away from the generated {fit['reference_mass']:.3f} GeV"
    ]
