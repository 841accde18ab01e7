"""Small numbers: sums for a linear fit, sizes for people, versions (names of chapter 7.3.2 of PanDA's documents)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from pilot.common.exception import NotDefined

# Symbols of sizes, each 1024 times the one before; with each set its long names.
_SYMBOLS = {
    "customary": ("B", "K", "M", "G", "T", "P", "E", "Z", "Y"),
    "customary_ext": ("byte", "kilo", "mega", "giga", "tera", "peta", "exa", "zetta", "iotta"),
    "iec": ("Bi", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"),
    "iec_ext": ("byte", "kibi", "mebi", "gibi", "tebi", "pebi", "exbi", "zebi", "yobi"),
}
_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]*)\s*([A-Za-z]*)\s*\Z")


def mean(data: Sequence[float]) -> float:
    """Arithmetic mean. Raises ValueError without data."""
    if not data:
        raise ValueError("the mean needs at least one value")
    return sum(data) / len(data)


def sum_square_dev(data: Sequence[float]) -> float:
    """Sum of (x - mean)². Raises ValueError without data."""
    middle = mean(data)
    return sum((x - middle) ** 2 for x in data)


def sum_dev(x: Sequence[float], y: Sequence[float]) -> float:
    """Sum of (x - mean of x) (y - mean of y). Raises ValueError without data."""
    middle_x, middle_y = mean(x), mean(y)
    return sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y))


def chi2(observed: Sequence[float], expected: Sequence[float]) -> float:
    """Sum of (observed - expected)² / expected; pairs of which nothing is expected are left out."""
    return sum((o - e) ** 2 / e for o, e in zip(observed, expected) if e != 0)


def float_to_rounded_string(num: float, precision: int = 3) -> str:
    """A number with so many digits after the point: 3.1415 with 2 gives "3.14".

    Raises NotDefined for a precision below 0, and for what is no number.
    """
    if precision < 0:
        raise NotDefined(f"a precision of {precision} digits is not defined")
    try:
        rounded = Decimal(str(num)).quantize(Decimal(1).scaleb(-precision))
    except InvalidOperation as exc:
        raise NotDefined(f"{num} cannot be rounded to {precision} digits") from exc
    if not rounded.is_finite():
        raise NotDefined(f"{num} is no number that could be rounded")
    return str(rounded)


def convert_mb_to_b(size: float) -> int:
    """MB to bytes. Raises ValueError when size is no number."""
    return int(size) * 1024**2


def bytes2human(n: float, _format: str = "%(value).1f %(symbol)s", symbols: str = "customary") -> str:
    """Bytes for people: 10000 gives "9.8 K". symbols: customary, customary_ext, iec or iec_ext.

    Raises ValueError for a negative number.
    """
    if n < 0:
        raise ValueError("a size is not negative")
    names = _SYMBOLS[symbols]
    power = 0
    # Whole bytes decide about the symbol, so that 0.9 is "0.0 B" as documented.
    value = float(int(n))
    while value >= 1024 and power + 1 < len(names):
        value, power = value / 1024, power + 1
    return _format % {"value": value, "symbol": names[power]}


def human2bytes(s: str, divider: str | None = None) -> int:
    """A size as people write it, in bytes: "1 M" gives 1048576. With a divider, in multiples of that size.

    A symbol alone means one of it. Raises ValueError when it cannot be understood.
    """
    size = _bytes(s)
    return size if divider is None else int(size / _bytes(divider))


def _bytes(text: str) -> int:
    found = _SIZE.match(text)
    number, symbol = found.groups() if found else ("", "")
    if not found or number == "." or not (number or symbol):
        raise ValueError(f"can't interpret {text!r}")
    # k is an alias for K; KB is "1 KB", that is K.
    known = {name.lower(): power for names in _SYMBOLS.values() for power, name in enumerate(names)}
    name = symbol.lower()
    power = known.get(name, known.get(name[:-1]) if name.endswith("b") and len(name) == 2 else None)
    if symbol and power is None:
        raise ValueError(f"can't interpret {text!r}")
    return int(float(number or 1) * 1024 ** (power or 0))


def tryint(x: str) -> int | str:
    """The number that a text is, or the text."""
    try:
        return int(x)
    except ValueError:
        return x


def split_version(s: str) -> tuple[int | str, ...]:
    """A release in its parts, numbers as such: "1.2.Nightly" gives (1, 2, "Nightly").

    Letters and digits within a part are separated, so that releases can be sorted: YT4.2 before YT4.11.
    """
    return tuple(tryint(part) for part in re.findall(r"[0-9]+|[A-Za-z_+-]+", s))


def is_greater_or_equal(a: str, b: str) -> bool:
    """Whether release a is b or a later one: by its parts, more parts are later, a nightly is later than all."""
    for left, right in zip(split_version(a), split_version(b)):
        if isinstance(left, str) != isinstance(right, str):
            return isinstance(left, str)
        if left != right:
            return left > right  # type: ignore[operator]  # both are numbers, or both texts
    return len(split_version(a)) >= len(split_version(b))


def add_lists(list1: Sequence[object], list2: Sequence[object]) -> list[object]:
    """Both lists after one another, without what is there twice."""
    return list(dict.fromkeys([*list1, *list2]))


def diff_lists(list_a: Sequence[object], list_b: Sequence[object]) -> list[object]:
    """What is in the first list and not in the second, or the other way round."""
    return [x for x in list_a if x not in list_b] + [x for x in list_b if x not in list_a]
