"""Options in a job's parameters, under the documented names: what plugins ask of a command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Optional

# A word of a command line, with its quotes.
_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+""")
# An option: one dash or two and no number, with its value in the same word or without.
_OPTION = re.compile(r"--?([A-Za-z_][\w.-]*)(?:=(.*))?\Z", re.DOTALL)
Options = dict[str, Optional[str]]


class JobOptions:
    """What a description of a job offers for its command line."""

    @staticmethod
    def get_opts_pargs(data: str) -> tuple[Options, list[str]]:
        """The options of a command line by their names without dashes, and its other words.

        An option's value is in the same word (--n=5) or in the next, unless that is an option as well; else None.
        """
        opts: Options = {}
        pargs = []
        for name, value, _ in _parts(data):
            if name:
                opts[name] = value
            else:
                pargs.append(value or "")
        return opts, pargs

    @staticmethod
    def get_ret(options: Mapping[str, Callable[[str], object]], opts: Mapping[str, str | None]) -> dict[str, object]:
        """The values of those options that are asked for ({name: type}), cast to their types.

        What an option's type does not take, and an option without a value, is None.
        """
        found: dict[str, object] = {}
        for name, cast in options.items():
            if name.lstrip("-") in opts:
                found[name] = None
                value = opts[name.lstrip("-")]
                with suppress(ValueError, TypeError):
                    found[name] = None if value is None else cast(value)
        return found

    @classmethod
    def parse_args(
        cls, data: str, options: Mapping[str, Callable[[str], object]], remove: bool = False
    ) -> tuple[dict[str, object], str]:
        """The values of options of a command line, as get_ret gives them, and the command line.

        remove: without these options; nothing else in it changes.
        """
        opts, _ = cls.get_opts_pargs(data)
        wanted = {name.lstrip("-") for name in options}
        left = data
        if remove:
            for name, _, (start, end) in reversed(list(_parts(data))):
                if name in wanted:
                    left = left[:start].rstrip() + " " + left[end:].lstrip()
        return cls.get_ret(options, opts), left.strip() if remove else left


def _parts(data: str) -> Iterator[tuple[str, str | None, tuple[int, int]]]:
    """Options (name, value, place in the text) and other words (empty name, word, place)."""
    words = [(_unquoted(found.group()), found.span()) for found in _WORD.finditer(data)]
    number = 0
    while number < len(words):
        text, (start, end) = words[number]
        number += 1
        option = _OPTION.match(text)
        if option is None:
            yield "", text, (start, end)
            continue
        name, value = option.groups()
        if value is None and number < len(words) and _OPTION.match(words[number][0]) is None:
            value, (_, end) = words[number]
            number += 1
        yield name, value, (start, end)


def _unquoted(word: str) -> str:
    try:
        return "".join(shlex.split(word))
    except ValueError:  # a quote without its end
        return word
