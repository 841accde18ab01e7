"""Base of the services that look at a payload (chapter 7.3.2 of PanDA's documents)."""

from __future__ import annotations


class Services:
    """High-level base class of Analytics and MemoryMonitoring."""

    def __init__(self, *args: object) -> None:
        """Take nothing; what a service needs it takes by name."""
