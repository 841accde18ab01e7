"""task_evaluator: calls functions of the experiment's own that judge its tasks. Without any it does nothing.

Its arguments name them, as MODULE:FUNCTION. Each is called with the context (`server.logic.context.Context`: settings,
database, clock) and stores what it finds where it likes.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import cast

from server.logic.context import Context

logger = logging.getLogger(__name__)

Evaluator = Callable[[Context], object]


def remark(arguments: Sequence[str]) -> str:
    """Said once, when the daemon starts.

    Raises:
        ImportError: a function is not there.
    """
    for name in arguments:
        _evaluator(name)
    return "" if arguments else "it does nothing, since its arguments name no function (MODULE:FUNCTION)"


def run(context: Context, arguments: Sequence[str]) -> bool:
    """Call each function; one that fails does not stop the others."""
    for name in arguments:
        try:
            _evaluator(name)(context)
        except Exception:  # it is somebody else's, and may raise anything
            logger.exception("the evaluator %s failed", name)
    return False


def _evaluator(name: str) -> Evaluator:
    module, _, function = name.partition(":")
    found = getattr(importlib.import_module(module), function, None) if module and function else None
    if not callable(found):
        raise ImportError(f"there is no function {name}; arguments are MODULE:FUNCTION")
    return cast(Evaluator, found)
