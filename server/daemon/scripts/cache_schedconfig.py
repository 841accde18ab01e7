"""cache_schedconfig: writes the files that pilots fetch below /cache/, where another web server hands them out."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from server.logic.cachefiles import write_cache_files
from server.logic.context import Context

logger = logging.getLogger(__name__)


def run(context: Context, _arguments: Sequence[str]) -> bool:
    """Write what has changed."""
    try:
        changed = write_cache_files(context)
    except OSError as error:
        logger.error("the cache files cannot be written: %s", error)
        return False
    if changed:
        logger.info("%d cache files have changed", changed)
    return False
