"""Every method of both APIs, declared once: its name, verb, arguments and who may call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import IO

from werkzeug.datastructures import Headers

from server.logic.context import Context, Identity, Role


class Kind(Enum):
    """The type of an argument; the value is what messages and the API description call it."""

    TEXT = "str"
    INTEGER = "int"
    NUMBER = "float"
    FLAG = "bool"
    TEXTS = "list[str]"
    INTEGERS = "list[int]"
    ITEMS = "list"
    OBJECT = "dict"
    ANY = "any"


@dataclass(frozen=True)
class Argument:
    """An argument of a method. One that is not required and not given is absent from the call.

    Attributes:
        free: a text that may have any character in it (logs, diagnostics), NUL included.
    """

    name: str
    kind: Kind
    required: bool = False
    description: str = ""
    free: bool = False


def required(name: str, kind: Kind = Kind.TEXT, description: str = "") -> Argument:
    """An argument that must be given."""
    return Argument(name, kind, True, description)


def optional(name: str, kind: Kind = Kind.TEXT, description: str = "") -> Argument:
    """An argument that may be left out."""
    return Argument(name, kind, False, description)


@dataclass(frozen=True)
class Upload:
    """A file of a multipart body: its name as sent, and its content, which is gone when the request ends."""

    name: str
    content: IO[bytes]


@dataclass(frozen=True)
class Call:
    """A call with its arguments checked.

    Attributes:
        values: the arguments given.
        server: this server's address as the caller used it, or as configured.
        headers: the request's headers.
        wants_json: the caller understands JSON (always true in v1).
        uploads: files of a multipart body by field name.
    """

    context: Context
    identity: Identity
    values: Mapping[str, object]
    server: str
    headers: Headers
    wants_json: bool = True
    uploads: Mapping[str, Upload] = field(default_factory=dict)

    @property
    def claim(self) -> str:
        """The claim under which a pilot has its job, as an argument or a header; empty for pilots that know none."""
        return self.text("claim_id") or self.headers.get("X-Pilotkit-Claim", "")

    def text(self, name: str, default: str = "") -> str:
        """A text argument."""
        value = self.values.get(name)
        return default if value is None else str(value)

    def integer(self, name: str, default: int = 0) -> int:
        """A whole number argument."""
        value = self.values.get(name)
        return value if isinstance(value, int) else default

    def integer_or_none(self, name: str) -> int | None:
        """A whole number argument, None if it was not given."""
        value = self.values.get(name)
        return value if isinstance(value, int) else None

    def flag(self, name: str) -> bool:
        """A truth value argument; false if it was not given."""
        return self.values.get(name) is True

    def integers(self, name: str) -> list[int]:
        """A list of whole numbers."""
        return [item for item in self.items(name) if isinstance(item, int)]

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        return [str(item) for item in self.items(name)]

    def items(self, name: str) -> list[object]:
        """A list of anything."""
        value = self.values.get(name)
        return value if isinstance(value, list) else []

    def mapping(self, name: str) -> dict[str, object]:
        """An object."""
        value = self.values.get(name)
        return value if isinstance(value, dict) else {}


#: What a method gives back: the values of a legacy answer, a v1 reply, or a ready response.
Handler = Callable[[Call], object]


@dataclass(frozen=True)
class Method:
    """A method of an API.

    Attributes:
        path: its name, `module/name` in v1.
        verbs: HTTP verbs it takes.
        roles: who may call it; empty: everybody.
        arguments: by name.
        summary: what it does, in a line.
        uploads: multipart file fields it takes.
    """

    path: str
    verbs: frozenset[str]
    roles: frozenset[Role]
    arguments: Mapping[str, Argument]
    handler: Handler
    summary: str
    uploads: frozenset[str] = frozenset()

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """The names of the arguments that every call has."""
        return tuple(argument.name for argument in self.arguments.values() if argument.required)


#: Who may call a method.
EVERYBODY: frozenset[Role] = frozenset()
#: Harvester gets and reports jobs for pilots that cannot.
PILOTS = frozenset({Role.PILOT, Role.HARVESTER, Role.OPERATOR})
HARVESTERS = frozenset({Role.HARVESTER, Role.OPERATOR})
USERS = frozenset({Role.USER, Role.OPERATOR})
OPERATORS = frozenset({Role.OPERATOR})
#: Statistics and the like: nothing a pilot needs.
ALL_BUT_PILOTS = frozenset({Role.HARVESTER, Role.USER, Role.OPERATOR})
ANY_ROLE = frozenset(Role)


class Registry:
    """The methods of one API."""

    def __init__(self) -> None:
        self._methods: dict[str, Method] = {}

    def method(
        self, path: str, verbs: str, roles: frozenset[Role], *arguments: Argument, uploads: tuple[str, ...] = ()
    ) -> Callable[[Handler], Handler]:
        """Declare the decorated function as a method; its docstring's first line is the summary.

        Args:
            verbs: "GET", "POST" or both, separated by a blank.
        """

        def declare(handler: Handler) -> Handler:
            summary = (handler.__doc__ or "").strip().partition("\n")[0]
            by_name = {argument.name: argument for argument in arguments}
            self._methods[path] = Method(
                path, frozenset(verbs.split()), roles, by_name, handler, summary, frozenset(uploads)
            )
            return handler

        return declare

    def include(self, other: Registry) -> None:
        """Add the methods of another registry."""
        self._methods.update(other._methods)

    def find(self, path: str) -> Method | None:
        """A method by its path."""
        return self._methods.get(path)

    def __iter__(self) -> Iterator[Method]:
        return iter(self._methods.values())
