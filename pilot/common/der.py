"""Just enough DER (X.690) to read what stands in certificates: elements, object identifiers, names, times.

The encoding is simple and X.509 allows no other; reading it here takes a tenth of a millisecond, needs no library and
starts no process, so that a proxy is checked in the same way on every worker node. The dispatcher reads VOMS attributes
with it, which no library of Python's knows.
"""

from __future__ import annotations

import calendar
import re
import time
from dataclasses import dataclass

# Tags (X.680, chapter 8).
INTEGER, OCTETS, OBJECT_ID = 0x02, 0x04, 0x06
_UTC_TIME, _GENERAL_TIME = 0x17, 0x18
_SEQUENCE, _SET = 0x30, 0x31
# Texts whose characters have more than one byte; all others are UTF-8, or Latin 1 in old certificates.
_WIDE_TEXTS = {0x1E: "utf-16-be", 0x1C: "utf-32-be"}
# How many bytes a length can be told in: four are enough for 4 GB.
_LENGTH_BYTES = 4

# How parts of a name are called (RFC 4514 and what grid tools write).
_PARTS = {
    "2.5.4.3": "CN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O",
    "2.5.4.11": "OU", "0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}  # fmt: skip


@dataclass(frozen=True)
class Element:
    """One value with its tag."""

    tag: int
    content: bytes

    def children(self) -> list[Element]:
        """The elements that a sequence or set (or whatever is made like one) consists of. Raises ValueError."""
        return elements(self.content)

    def encoded(self) -> bytes:
        """The element with its tag and length, as the only form that DER allows has it: signatures are over that."""
        length = len(self.content)
        if length < 0x80:
            return bytes((self.tag, length)) + self.content
        size = length.to_bytes((length.bit_length() + 7) // 8, "big")
        return bytes((self.tag, 0x80 | len(size))) + size + self.content

    def object_id(self) -> str:
        """An object identifier as numbers with dots. Raises ValueError."""
        if self.tag != OBJECT_ID or not self.content:
            raise ValueError("an object identifier is missing")
        numbers, value = [], 0
        for byte in self.content:
            value = value << 7 | byte & 0x7F
            if not byte & 0x80:
                numbers.append(value)
                value = 0
        first = min(numbers[0] // 40, 2)
        return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))

    def when(self) -> float:
        """A time in seconds since the epoch. Raises ValueError."""
        text = self.content.decode("ascii", "replace")
        if self.tag == _UTC_TIME:
            # Two digits of a year: 50 to 99 are of the last century (RFC 5280).
            text = ("19" if text[:2] >= "50" else "20") + text
        elif self.tag != _GENERAL_TIME:
            raise ValueError("a time is missing")
        if not re.fullmatch(r"\d{14}Z", text):
            raise ValueError(f"'{text}' is no time")
        return float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ")))

    def text(self) -> str:
        """A text of any kind."""
        if self.tag in _WIDE_TEXTS:
            return self.content.decode(_WIDE_TEXTS[self.tag], "replace")
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError:
            return self.content.decode("latin-1")

    def name(self) -> str:
        """A distinguished name as grid software writes it: /DC=org/DC=site/CN=Some Body. Raises ValueError."""
        parts = []
        for relative in self.children():
            for pair in relative.children():
                kind, value = pair.children()
                parts.append(f"/{_PARTS.get(kind.object_id(), kind.object_id())}={value.text()}")
        return "".join(parts)


def elements(data: bytes) -> list[Element]:
    """The elements that stand one after the other. Raises ValueError when it is no DER."""
    found, position = [], 0
    while position < len(data):
        element, position = _element(data, position)
        found.append(element)
    return found


def _element(data: bytes, position: int) -> tuple[Element, int]:
    if position + 2 > len(data):
        raise ValueError("it ends too early")
    tag, length = data[position], data[position + 1]
    position += 2
    if length & 0x80:
        count = length & 0x7F
        if not 0 < count <= _LENGTH_BYTES or position + count > len(data):
            raise ValueError("a length makes no sense")
        length = int.from_bytes(data[position : position + count], "big")
        position += count
    if position + length > len(data):
        raise ValueError("it ends too early")
    return Element(tag, data[position : position + length]), position + length
