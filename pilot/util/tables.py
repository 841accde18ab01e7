"""Tables of measurements in text files, as memory monitors write them."""

from __future__ import annotations

from pathlib import Path

from pilot.common.exception import FileHandlingFailure

__all__ = ["get_table_from_file"]

# Larger tables (bytes) are not read: a sample a minute for ten days is 2 MB, and the payload could write anything.
_TABLE_LIMIT = 64 * 1024 * 1024


def get_table_from_file(
    filename: str, header: str | None = None, separator: str = "\t", convert_to_float: bool = True
) -> dict[str, list[float | str]]:
    """Read a table: its first line (or `header`) names the columns.

    Lines that do not have as many values, or no numbers where numbers are wanted, are left out: a monitor may be
    in the middle of one. Raises FileHandlingFailure when it cannot be read.
    """
    path = Path(filename)
    try:
        if not path.is_file() or path.stat().st_size > _TABLE_LIMIT:
            raise FileHandlingFailure(f"{filename} is no table: missing, or larger than {_TABLE_LIMIT} bytes")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as exc:
        raise FileHandlingFailure(f"{filename} cannot be read: {exc.strerror}") from exc
    names = (header if header is not None else lines.pop(0) if lines else "").split(separator)
    rows: list[list[float | str]] = []
    for line in lines:
        words = line.split(separator)
        try:
            values = [float(word) if convert_to_float else word for word in words]
        except ValueError:
            continue
        if len(values) == len(names):
            rows.append(values)
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}
