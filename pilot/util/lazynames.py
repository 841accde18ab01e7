"""Names of chapter 7.3.2 of PanDA's documents that no pilot needs itself: loaded when somebody asks for them.

A module of the pilot that is documented with more names than the pilot uses stays as small as it is:

    if TYPE_CHECKING:
        from pilot.util.filetools import *  # noqa: F403
    else:
        __getattr__ = lazily(__name__, "pilot.util.filetools")
"""

from __future__ import annotations

import importlib
from collections.abc import Callable


def lazily(module: str, *others: str) -> Callable[[str], object]:
    """A module's `__getattr__` (PEP 562): a name that it lacks is looked for in `__all__` of the other modules."""

    def find(name: str) -> object:
        # Python itself asks for __path__ and the like; no documented name begins so.
        if not name.startswith("_"):
            for other in others:
                there = importlib.import_module(other)
                if name in there.__all__:
                    found: object = getattr(there, name)
                    return found
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find
