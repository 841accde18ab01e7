"""Base of the descriptions that come from outside: one schema casts them, and names the field that is wrong.

A subclass declares its attributes with their defaults, lists them by type in `_keys`, and may define `clean__NAME(raw,
value)` for what a type alone does not say. Missing, null and "NULL" values leave the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, ClassVar

from pilot.common.exception import ConversionFailure
from pilot.util.https import Json

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0", "")
# Numbers up to here are exact as floating point, and no size (MB), time (s) or count of the field comes near (2**53).
NUMBER_LIMIT = 2**53


class BaseData:
    """Structured data read from an external source."""

    _keys: ClassVar[dict[type, tuple[str, ...]]] = {}

    def _load_data(self, data: Mapping[str, Json], kmap: Mapping[str, str] | None = None) -> None:
        """Set the attributes from `data`; `kmap` tells the outside name of those that are called differently there.

        Raises ConversionFailure, with the outside name of the field in its text.
        """
        for ktype, names in self._keys.items():
            for name in names:
                outside = (kmap or {}).get(name, name)
                raw = data.get(outside)
                value: Json = getattr(self, name) if _is_null(raw) else self._cast(ktype, raw, outside)
                special: Callable[[Json, Json], Json] | None = getattr(self, f"clean__{name}", None)
                setattr(self, name, value if special is None else special(raw, value))
        self.clean()

    def clean(self) -> None:
        """A place for descriptions to derive what needs more than one field; here nothing does."""

    def _cast(self, ktype: type, raw: Json, kname: str) -> Json:
        cast = {int: self.clean_numeric, float: self.clean_numeric, bool: self.clean_boolean, str: self.clean_string}
        if ktype in cast:
            return cast[ktype](raw, ktype, kname)
        return self.clean_dictdata(raw, ktype, kname) if ktype is dict else self.clean_listdata(raw, ktype, kname)

    def clean_numeric(self, raw: Json, ktype: type, kname: str = "") -> Json:
        """A number, which may come as text; where a whole one is meant a fraction is cut off.

        Raises ConversionFailure, also for a number that no database of the field can hold.
        """
        if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
            raise ConversionFailure(f"field {kname}: {_shown(raw)} is not a number")
        if raw == "":
            raw = 0
        try:
            number = float(raw)
        except (ValueError, OverflowError):
            raise ConversionFailure(f"field {kname}: {_shown(raw)} is not a number") from None
        if not abs(number) < NUMBER_LIMIT:
            raise ConversionFailure(f"field {kname}: {_shown(raw)} is out of range")
        return int(number) if ktype is int else number

    def clean_boolean(self, raw: Json, ktype: type, kname: str = "") -> Json:
        """A truth value; words and 0 or 1 are taken. Raises ConversionFailure."""
        if isinstance(raw, bool):
            return raw
        word = str(raw).strip().lower()
        if isinstance(raw, (int, str)) and word in _TRUE + _FALSE:
            return word in _TRUE
        raise ConversionFailure(f"field {kname}: {_shown(raw)} is neither true nor false")

    def clean_string(self, raw: Json, ktype: type, kname: str = "") -> Json:
        """A text without NUL; numbers are taken. Raises ConversionFailure."""
        if isinstance(raw, (dict, list)) or raw is None:
            raise ConversionFailure(f"field {kname}: {_shown(raw)} is not a text")
        return printable(str(raw).strip(), kname)

    def clean_dictdata(self, raw: Json, ktype: type, kname: str = "") -> Json:
        """An object; an empty text counts as an empty one. Raises ConversionFailure."""
        if raw in ("", []):
            return {}
        if not isinstance(raw, dict):
            raise ConversionFailure(f"field {kname}: {_shown(raw)} is not an object")
        return raw

    def clean_listdata(self, raw: Json, ktype: type, kname: str = "") -> Json:
        """A list; a text is split at commas. Raises ConversionFailure."""
        if isinstance(raw, str):
            return [item.strip() for item in raw.split(",") if item.strip()]
        if not isinstance(raw, list):
            raise ConversionFailure(f"field {kname}: {_shown(raw)} is not a list")
        return raw

    def __repr__(self) -> str:
        """Class and attributes, for the debug log."""
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for names in self._keys.values() for name in names)
        return f"{type(self).__name__}({shown})"


def printable(text: str, kname: str) -> str:
    """The text, if it may become part of a path, an environment or a log. Raises ConversionFailure."""
    if "\0" in text:
        raise ConversionFailure(f"field {kname}: the text has a NUL character in it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise ConversionFailure(f"field {kname}: character {exc.start + 1} of the text is none of Unicode") from None
    return text


def _is_null(raw: Json) -> bool:
    """Servers send unset values as null or as one of these words (wire.md, section 2)."""
    return raw is None or (isinstance(raw, str) and raw in ("NULL", "None", "null"))


def _shown(raw: Json) -> str:
    """A value for an error text: short, with control characters escaped."""
    text = repr(raw)
    return text if len(text) <= 60 else text[:57] + "..."
