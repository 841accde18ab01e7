"""Space on disks (a documented name)."""

from __future__ import annotations

from shutil import disk_usage

__all__ = ["disk_usage"]
