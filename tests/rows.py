"""Every row of a database, and whether one has changed: cheap enough to be asked after each request."""

from __future__ import annotations

import json
from types import TracebackType
from urllib.parse import parse_qs

from sqlalchemy import create_engine, select, text

from server.db.tables import metadata


def says_no(status: int, text: str) -> bool:
    """Whether an answer of either API refuses what was asked. Of several jobs some may have been taken."""
    if status >= 400:
        return True
    try:
        content = json.loads(text)
    except ValueError:
        content = {name: values[0] for name, values in parse_qs(text).items()}
    if not isinstance(content, dict):
        return False
    if "success" in content:
        return content["success"] is False
    return int(content.get("StatusCode", 0)) != 0 or content.get("command") == "tobekilled"


class Rows:
    """The rows of a database as they were when they were looked at last."""

    def __init__(self, url: str) -> None:
        """Look for the first time."""
        self._engine = create_engine(url, isolation_level="AUTOCOMMIT")
        self._connection = self._engine.connect()
        # Changes with every transaction that writes, in SQLite, or that could, in PostgreSQL.
        sign = "PRAGMA data_version" if url.startswith("sqlite") else "SELECT pg_snapshot_xmax(pg_current_snapshot())"
        self._ask_sign = text(sign)
        self._sign = self._read_sign()
        self._rows = self.read()

    def __enter__(self) -> Rows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._engine.dispose()

    def changes(self) -> list[str]:
        """The rows that have come, gone or changed since the last look."""
        sign = self._read_sign()
        if sign == self._sign:
            return []
        before, self._rows, self._sign = self._rows, self.read(), sign
        return [] if before == self._rows else sorted(set(before) ^ set(self._rows)) or ["the order of rows"]

    def read(self) -> list[str]:
        """Every row of every table, as text."""
        return [
            f"{table.name}: {row}"
            for table in metadata.sorted_tables
            for row in self._connection.execute(select(table).order_by(*table.primary_key))
        ]

    def _read_sign(self) -> str:
        return str(self._connection.execute(self._ask_sign).scalar())
