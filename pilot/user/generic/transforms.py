"""Transformations for scripts, under the documented names; the pilot itself uses prepare_transformation.

Import them from pilot.user.generic.setup, as chapter 7.3.2 of PanDA's documents has it.
"""

from __future__ import annotations

import os
from pathlib import Path

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, TrfDownloadFailure
from pilot.user.generic.setup import get_valid_base_urls, prepare_transformation
from pilot.util.config import read
from pilot.util.https import request

__all__ = ["download_transform", "get_analysis_trf"]


def _fetch(url: str) -> bytes:
    text = request(url, plain=True)
    if not isinstance(text, str):
        raise TrfDownloadFailure(f"{url} cannot be downloaded; the log says why")
    return text.encode()


def download_transform(url: str, transform_name: str, workdir: str) -> tuple[bool, str]:
    """Download a script into a directory and make it executable; whether that went well, and what went wrong."""
    path = Path(workdir, transform_name)
    try:
        path.write_bytes(_fetch(url))
        path.chmod(0o755)
    except (PilotException, OSError) as exc:
        return False, exc.diag if isinstance(exc, PilotException) else f"{path} cannot be written: {exc.strerror}"
    return True, ""


def get_analysis_trf(transform: str, workdir: str) -> tuple[int, str, str]:
    """Download a user's transformation from one of the allowed places: error code (0: none), why, and the file's name.

    Allowed is what base_urls of [Payload] names, else what get_valid_base_urls names and the server's own /trf.
    """
    settings = read()
    named = [url.strip() for url in settings.payload.base_urls.split(",") if url.strip()]
    bases = named or [*get_valid_base_urls(), f"{settings.pilot.pandaserver}/trf"]
    try:
        if "://" not in transform:
            return ErrorCodes.TRFDOWNLOADFAILURE, f"{transform} is no URL", ""
        return 0, "", os.path.basename(prepare_transformation(transform, Path(workdir), bases, _fetch))
    except PilotException as exc:
        return exc.code, exc.diag, ""
