"""The house rules that a machine can check. Every exception is listed here with its reason, or the rule fails.

What needs judgement (names, comments that say why, one way to do a thing) is for people; layers are import-linter's.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

import pilot
from server.cli.main import pilotkit

ROOT = Path(__file__).resolve().parents[2]

# Lines. The design says 400 and 50 "unless a reader is better served"; a function between 50 and 60 is such a case.
LONGEST_MODULE = 400
LONGEST_FUNCTION = 60

# Module (relative to the root) -> why a reader is better served by one long module than by two.
LONG_MODULES: dict[str, str] = {}

# "module:function" -> why a reader is better served by one long function than by two.
LONG_FUNCTIONS: dict[str, str] = {}


def our_modules(*folders: str) -> list[Path]:
    """Every Python file of ours in these folders; pilot.py is a part of the pilot."""
    modules = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [*ROOT.glob("pilot.py"), *modules] if "pilot" in folders else modules


PILOT = our_modules("pilot")
PILOT_AND_SERVER = our_modules("pilot", "server")


@functools.cache
def text(module: Path) -> str:
    return module.read_text(encoding="utf-8")


@functools.cache
def syntax(module: Path) -> ast.Module:
    return ast.parse(text(module))


def name(module: Path) -> str:
    return str(module.relative_to(ROOT))


def place(module: Path, node: ast.expr | ast.stmt) -> str:
    return f"{name(module)}:{node.lineno}"


def functions(module: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(syntax(module)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def has_comment(module: Path, line: int) -> bool:
    """Whether a line carries a comment, or the one above or below it is one."""
    lines = ["", *text(module).splitlines(), ""]
    return "#" in lines[line] or any(lines[near].lstrip().startswith("#") for near in (line - 1, line + 1))


def test_every_module_says_what_it_is() -> None:
    without = [
        name(module) for module in PILOT_AND_SERVER if text(module).strip() and not ast.get_docstring(syntax(module))
    ]
    assert not without, "these modules begin without a docstring"


def test_every_package_of_ours_is_a_package() -> None:
    # A folder with modules but without __init__.py is left out of the wheel without a word.
    folders = {module.parent for module in PILOT_AND_SERVER if module.parent != ROOT}
    assert not [name(folder) for folder in folders if not (folder / "__init__.py").exists()]


def test_no_module_is_too_long_without_a_reason() -> None:
    long = {name(module) for module in PILOT_AND_SERVER if len(text(module).splitlines()) > LONGEST_MODULE}
    assert long == LONG_MODULES.keys()


def test_no_function_is_too_long_without_a_reason() -> None:
    long = {
        f"{name(module)}:{function.name}"
        for module in PILOT_AND_SERVER
        for function in functions(module)
        if (function.end_lineno or 0) - function.lineno + 1 > LONGEST_FUNCTION
    }
    assert long == LONG_FUNCTIONS.keys()


def test_nothing_sleeps_without_saying_why() -> None:
    sleeps = [
        place(module, call)
        for module in PILOT_AND_SERVER
        for call in ast.walk(syntax(module))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func).rpartition(".")[2] == "sleep"
        and not has_comment(module, call.lineno)
    ]
    assert not sleeps, "wait on an event with a deadline instead, or say why nothing can be waited on"


def test_the_environment_is_never_written() -> None:
    writes = []
    for module in PILOT_AND_SERVER:
        for node in ast.walk(syntax(module)):
            targets: list[ast.expr] = []
            if isinstance(node, (ast.Assign, ast.Delete)):
                targets = node.targets
            elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
                targets = [node.target]
            stored = [item for item in targets if isinstance(item, ast.Subscript) and is_environ(item.value)]
            if isinstance(node, ast.Call) and is_environment_call(node.func):
                stored = [node]  # type: ignore[list-item]
            writes += [place(module, item) for item in stored]
    assert not writes, "give the environment to the child process that needs it (subprocess: env=...)"


def is_environ(node: ast.expr) -> bool:
    return ast.unparse(node) in ("os.environ", "environ")


def is_environment_call(function: ast.expr) -> bool:
    if ast.unparse(function) in ("os.putenv", "os.unsetenv"):
        return True
    changing = ("update", "setdefault", "pop", "popitem", "clear")
    return isinstance(function, ast.Attribute) and function.attr in changing and is_environ(function.value)


def test_broad_excepts_say_what_they_do_there() -> None:
    broad = [
        f"{name(module)}:{handler.lineno}"
        for module in PILOT_AND_SERVER
        for handler in ast.walk(syntax(module))
        if isinstance(handler, ast.ExceptHandler)
        and (handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException"))
        and not has_comment(module, handler.lineno)
    ]
    assert not broad, "catch what can be expected; at a thread's or request's top say so in a comment"


def test_no_default_argument_can_be_changed() -> None:
    mutable = [
        f"{name(module)}:{function.name}"
        for module in PILOT_AND_SERVER
        for function in functions(module)
        for default in [*function.args.defaults, *filter(None, function.args.kw_defaults)]
        if isinstance(default, (ast.List, ast.Dict, ast.Set))
    ]
    assert not mutable, "a default that is changed once is changed for every later call"


def test_no_shell_gets_text_from_outside() -> None:
    shells = [
        place(module, call)
        for module in PILOT_AND_SERVER
        for call in ast.walk(syntax(module))
        if isinstance(call, ast.Call)
        and (
            any(keyword.arg == "shell" for keyword in call.keywords if ast.unparse(keyword.value) != "False")
            or ast.unparse(call.func) in ("os.system", "os.popen", "commands.getoutput", "subprocess.getoutput")
        )
    ]
    assert not shells, "commands are argument lists; the payload's own command goes to /bin/sh -c as one argument"


def test_the_pilot_can_be_read_by_the_oldest_python_it_promises() -> None:
    for module in PILOT:
        ast.parse(text(module), filename=name(module), feature_version=(3, 9))
        annotated = any(function.returns is not None for function in functions(module))
        if name(module) == "pilot.py":
            continue  # Pythons that do not know that import must get as far as the line that says they are too old
        assert not annotated or "from __future__ import annotations" in text(module), name(module)


def test_there_is_one_version() -> None:
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in metadata["project"], "setup.py takes it from pilot/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", pilot.__version__)
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## (\S+)", changelog, re.MULTILINE)
    assert released[0] == pilot.__version__, "the changelog begins with the version that pilot/__init__.py names"
    said = subprocess.run([sys.executable, ROOT / "pilot.py", "--version"], capture_output=True, text=True, check=False)
    assert pilot.__version__ in said.stdout, said.stderr


def test_every_setting_stands_below_a_comment_with_its_unit_and_reason() -> None:
    bare, commented = [], False
    for line in (ROOT / "default.cfg").read_text().splitlines():
        if line.startswith("#"):
            commented = True  # for every setting up to the next blank line or section: related ones may share a comment
        elif not line.strip() or line.startswith("["):
            commented = False
        elif not commented:
            bare.append(line)
    assert not bare


def test_every_command_helps_with_an_example() -> None:
    without = []
    for command in leaf_commands((), pilotkit):
        done = CliRunner().invoke(pilotkit, [*command, "--help"])
        if done.exit_code != 0 or f"pilotkit {' '.join(command)}" not in done.output.partition("\n\n")[2]:
            without.append(" ".join(command))
    assert not without, "the help of each of these lacks an example that can be copied"


def leaf_commands(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, ...]]:
    """The words of every command that is not just a group of others."""
    if not isinstance(command, click.Group):
        yield path
        return
    for word, below in command.commands.items():
        yield from leaf_commands((*path, word), below)
