"""Requests as existing pilots make them, a new connection each, for tests that are thousands of pilots at once."""

from __future__ import annotations

import asyncio

_LENGTH = b"content-length:"


async def post(port: int, path: str, body: bytes) -> tuple[int, bytes]:
    """Send a JSON body, plain or gzipped, to a server on this machine; its answer's status and body.

    Raises:
        OSError, EOFError: the server is not there, or went away before it had answered.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        headers = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in headers.lower().split(b"\r\n") if line.startswith(_LENGTH))
        answer = await reader.readexactly(int(length.removeprefix(_LENGTH)))
        return int(headers.split(b" ", 2)[1]), answer
    finally:
        writer.close()
