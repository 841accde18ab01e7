"""Commands in an Apptainer (Singularity) container: how they are written, and what the runtime's failures mean.

Every container has process, IPC and file name spaces of its own (-C): when the runtime is killed, all that runs in it
ends with it. Nothing of the environment gets in but what is named.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, RunPayloadFailure
from pilot.common.exception import is_python3 as is_python3  # documented here, too
from pilot.util.guarded import Launcher

# Names of the same program; "container" leaves the choice to the node.
RUNTIMES = ("apptainer", "singularity")
ANY_RUNTIME = "container"
_ADVICE = "install Apptainer (package apptainer of EPEL, or its own installer), or take containers out of the queue"
# "apptainer version 1.4.5", "singularity-ce version 3.11.4", "singularity version 3.8.7-1.el7"
_VERSION = re.compile(r"^(\S+) version (\d+(?:\.\d+)*)", re.MULTILINE)
# A runtime tells its version in 10 ms. One that lies on a file system that hangs must not keep the pilot (s).
_PROBE_LIMIT = 10.0
# Where the runtime's setuid helper lies, seen from the directory above that of the program itself.
_SETUID_HELPERS = ("libexec/*/bin/starter-suid", "lib*/*/bin/starter-suid", "lib/*/*/bin/starter-suid")
# What of the pilot's environment a runtime gets: where its programs, its files and the site's own binds are.
_RUNTIME_VARIABLES = ("PATH", "HOME", "USER", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
_RUNTIME_SETTINGS = (
    "BIND", "BINDPATH", "CACHEDIR", "TMPDIR", "CONFIGDIR", "CONFIG_FILE", "NO_PRIVS", "USERNS", "UNSQUASH", "NV",
    "ROCM",
)  # fmt: skip
# What it needs besides in order to fetch an image. Registries' passwords are for this alone.
_FETCH_VARIABLES = (
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
_FETCH_SETTINGS = ("DOCKER_USERNAME", "DOCKER_PASSWORD", "DOCKER_HOST", "NOHTTPS")
# Options that a queue may give: those without a value, and those with one. What would undo what is promised to users
# and sites (its own HOME and /tmp, an environment without the pilot's, one working directory) is none of them.
_FLAGS = frozenset(
    {
        "--nv", "--nvccli", "--rocm", "--unsquash", "--no-privs", "-u", "--userns", "-i", "--ipc", "-p", "--pid", "-c",
        "--contain", "-C", "--containall", "-e", "--cleanenv", "--writable-tmpfs", "-f", "--fakeroot", "--underlay",
        "--no-umask", "--no-eval", "--no-init",
    }
)  # fmt: skip
_WITH_VALUE = frozenset(
    {"--mount", "-o", "--overlay", "--no-mount", "--dns", "--fusemount", "--drop-caps", "--security"}
)
_BIND = ("-B", "--bind")


@dataclass(frozen=True)
class Runtime:
    """What is known of the node's container runtime.

    path: of the program; name, version: what it calls itself, empty when it does not tell; namespaces: whether this
    user may make user name spaces; mounts: whether it can mount an image that is a file (else it has to unpack it).
    """

    path: str
    name: str = ""
    version: str = ""
    namespaces: bool = False
    mounts: bool = True

    @property
    def needs(self) -> tuple[str, ...]:
        """Options without which it could not use every image on this node."""
        return () if self.mounts or self.name == "singularity" else ("--unsquash",)

    def facts(self) -> dict[str, str]:
        """For the pilot's capabilities."""
        named = f"{self.name or Path(self.path).name}-{self.version or 'silent'}"
        return {
            "container": named,
            "userns": "yes" if self.namespaces else "no",
            "images": "mounted" if self.mounts else "unpacked",
        }


@dataclass(frozen=True)
class Bind:
    """A place of the node that is seen in the container, under the same name unless `inside` has another."""

    outside: Path
    inside: Path | None = None
    writable: bool = False

    def option(self) -> str:
        """As the runtime wants it. Raises PilotException(SINGULARITYBINDPOINTFAILURE) for what cannot be said so."""
        inside = self.inside or self.outside
        for path in (self.outside, inside):
            if not path.is_absolute() or set(",:") & set(str(path)):
                text = f"{path} cannot be seen in a container: runtimes take only full paths without , and : for that"
                raise PilotException(text, code=ErrorCodes.SINGULARITYBINDPOINTFAILURE)
        return f"{self.outside}:{inside}:{'rw' if self.writable else 'ro'}"


@dataclass(frozen=True)
class Container:
    """runtime: the program's path; image: a file, directory or URL; options: for the runtime, the site's among them."""

    runtime: str
    image: str
    options: tuple[str, ...] = ()

    def command(self, words: Sequence[str], binds: Sequence[Bind], workdir: Path) -> list[str]:
        """The command that runs `words` in the container, in the directory workdir. Raises PilotException."""
        bound = [word for bind in binds for word in ("-B", bind.option())]
        # --no-privs: root of a node has nothing to do as root of a container, and may lack what would be handed on.
        own = ["exec", "-C", "--cleanenv", "--no-privs", "--pwd", str(workdir)]
        return [self.runtime, "--silent", *own, *bound, *self.options, self.image, *words]


def containerise_executable(
    executable: str | Sequence[str],
    container: Container | None = None,
    binds: Sequence[Bind] = (),
    workdir: str | os.PathLike[str] = "/",
) -> list[str]:
    """The words of a command, in a container if one is given. workdir: where it runs, as seen from inside."""
    words = shlex.split(executable) if isinstance(executable, str) else list(executable)
    return words if container is None else container.command(words, binds, Path(workdir))


def execute(
    executable: str | Sequence[str],
    timeout: float = 0.0,
    cwd: str | os.PathLike[str] = ".",
    env: Mapping[str, str] | None = None,
    container: Container | None = None,
    binds: Sequence[Bind] = (),
) -> tuple[int, str, str]:
    """Run a command, in a container if one is given; its exit code (128 + n for signal n), stdout and stderr.

    No shell sees it, and nothing of it is left afterwards. timeout: seconds until it is ended with COMMANDTIMEDOUT as
    its exit code; 0 for none. env: its environment instead of this process's. Raises as Launcher.start.
    """
    command = containerise_executable(executable, container, binds, Path(cwd).absolute())
    environ = os.environ if env is None else env
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        guarded = Launcher().start(command, cwd=Path(cwd), env=environ, stdout=stdout, stderr=stderr)
        in_time = timeout <= 0 or guarded.is_ending(timeout)
        if not in_time:
            guarded.kill()
        outcome = guarded.wait()
        said = []
        for stream in (stdout, stderr):
            stream.seek(0)
            said.append(stream.read().decode("utf-8", "replace"))
    code = 128 + outcome.signal if outcome.exit_code is None else outcome.exit_code
    return (code if in_time else ErrorCodes.COMMANDTIMEDOUT), said[0], said[1]


def find_runtime(name: str, environ: Mapping[str, str], program: str = "") -> str:
    """The path of a runtime that a queue names; program: the one that the settings name, if any.

    Raises PilotException with the sentence that says what to install.
    """
    wanted = RUNTIMES if name in (ANY_RUNTIME, *RUNTIMES) else ()
    if not wanted:
        text = f"the queue asks for {name} containers; this pilot has {' and '.join(RUNTIMES)} (one program, two names)"
        raise PilotException(text, code=ErrorCodes.NOTIMPLEMENTED)
    path = environ.get("PATH", os.defpath)
    found = next(
        (there for there in (shutil.which(one, path=path) for one in ([program] if program else wanted)) if there), None
    )
    if found is None:
        code = ErrorCodes.SINGULARITYNOTINSTALLED if name == "singularity" else ErrorCodes.APPTAINERNOTINSTALLED
        missing = f"{program} (setting runtime in [Container]) is no program" if program else ""
        raise PilotException(f"{missing or 'neither apptainer nor singularity is on the PATH'}: {_ADVICE}", code=code)
    return found


def probe(path: str, launcher: Launcher, environ: Mapping[str, str], workdir: Path) -> Runtime:
    """Ask a runtime for its version, and the node for what it allows. Nothing is raised: what is not told is empty."""

    def ask(*command: str) -> str:
        try:
            return launcher.output(command, cwd=workdir, env=runtime_environment(environ), timeout=_PROBE_LIMIT)
        except RunPayloadFailure:  # no program unshare, or a runtime that cannot be executed
            return ""

    # One command for both questions: it runs in a user name space, or there can be none.
    answer = ask("unshare", "--user", path, "--version")
    namespaces = bool(answer)
    found = _VERSION.search(answer or ask(path, "--version"))
    name, version = found.groups() if found else ("", "")
    return Runtime(path, name, version, namespaces, mounts=_mounts_files(path))


def may_make_namespaces(launcher: Launcher, environ: Mapping[str, str], workdir: Path) -> bool:
    """Whether this user may make user name spaces, where no runtime can be asked."""
    command = ["unshare", "--user", "echo", "yes"]
    try:
        said = launcher.output(command, cwd=workdir, env=runtime_environment(environ), timeout=_PROBE_LIMIT)
    except PilotException:  # no program unshare
        return False
    return bool(said)


def _mounts_files(path: str) -> bool:
    """Whether images that are files can be mounted: by root, by a setuid helper, or by any user through FUSE."""
    prefix = Path(path).resolve().parents[1]
    for pattern in _SETUID_HELPERS:
        for helper in prefix.glob(pattern):
            status = helper.stat()
            if status.st_uid == 0 and status.st_mode & stat.S_ISUID:
                return True
    return os.geteuid() == 0 or os.access("/dev/fuse", os.R_OK | os.W_OK)


def site_wishes(container_options: str, bind: str, bindmounts: str) -> tuple[list[str], list[str], list[str]]:
    """Binds, other options and what is none of the allowed ones, from all places where a site says such things.

    container_options: of the queue; bind: of the settings, by commas; bindmounts: of the queue's catchall, by
    semicolons. Raises as site_options.
    """
    binds, options, refused = site_options(container_options)
    binds += [one for text, sign in ((bind, ","), (bindmounts, ";")) for one in text.split(sign) if one.strip()]
    return binds, options, refused


def site_options(text: str) -> tuple[list[str], list[str], list[str]]:
    """Binds, other options and what is none of the allowed ones, of a queue's container_options.

    Raises PilotException(BADQUEUECONFIGURATION) for quotes without an end, or an option without its value.
    """
    binds: list[str] = []
    options: list[str] = []
    refused: list[str] = []
    try:
        words = iter(shlex.split(text))
    except ValueError as exc:
        raise PilotException(
            f"container_options {text!r} of the queue cannot be understood: {exc}",
            code=ErrorCodes.BADQUEUECONFIGURATION,
        ) from exc
    for word in words:
        name, equals, value = word.partition("=")
        if name in _FLAGS and not equals:
            options.append(word)
        elif name in _WITH_VALUE or name in _BIND:
            if not equals and not (value := next(words, "")):
                said = f"container_options of the queue end with {name}, and not with its value"
                raise PilotException(said, code=ErrorCodes.BADQUEUECONFIGURATION)
            if name in _BIND:
                binds += [one for one in value.split(",") if one]
            else:
                options += [name, value]
        else:
            refused.append(word)
    return binds, options, refused


def parse_bind(text: str) -> Bind:
    """A bind as runtimes are told of it: OUTSIDE[:INSIDE[:ro|rw]]. Raises PilotException(BADQUEUECONFIGURATION)."""
    outside, _, rest = text.strip().partition(":")
    inside, _, mode = rest.partition(":")
    if not outside.startswith("/") or (inside and not inside.startswith("/")) or mode not in ("", "ro", "rw"):
        said = f"bind mount {text!r} of the queue or the settings is not OUTSIDE[:INSIDE[:ro]] with full paths"
        raise PilotException(said, code=ErrorCodes.BADQUEUECONFIGURATION)
    return Bind(Path(outside), Path(inside) if inside else None, writable=mode != "ro")


def runtime_environment(
    environ: Mapping[str, str], scratch: Path | None = None, *, fetches: bool = False
) -> dict[str, str]:
    """What of the pilot's environment a runtime gets. fetches: to fetch an image, with the registry's password.

    scratch: where it keeps files of its own, which would else go to the user's home; a site's choice stays.
    """
    settings = (*_RUNTIME_SETTINGS, *(_FETCH_SETTINGS if fetches else ()))
    names = {f"{prefix}_{name}" for prefix in ("APPTAINER", "SINGULARITY") for name in settings}
    names.update(_RUNTIME_VARIABLES, _FETCH_VARIABLES if fetches else ())
    found = {"PATH": os.defpath, **{name: value for name, value in environ.items() if name in names}}
    if scratch:
        # Under both names the same: a runtime that finds two complains, and that would pass for the payload's words.
        chosen = found.get("APPTAINER_CONFIGDIR") or found.get("SINGULARITY_CONFIGDIR") or str(scratch)
        for prefix in ("APPTAINER", "SINGULARITY"):
            found.update({f"{prefix}_TMPDIR": str(scratch), f"{prefix}_CONFIGDIR": chosen})
    return found


def check_image(image: str, where: str) -> None:
    """Raises PilotException(IMAGENOTFOUND) for no image, or a file that is not there. where: what names it."""
    if not image:
        raise PilotException(f"{where} names no image", code=ErrorCodes.IMAGENOTFOUND)
    if "://" not in image and not Path(image).exists():
        raise PilotException(f"image {image} is not there ({where})", code=ErrorCodes.IMAGENOTFOUND)


def container_environment(environ: Mapping[str, str], inside: Mapping[str, str]) -> dict[str, str]:
    """The runtime's own environment. inside: variables for the container, which take this way past --cleanenv.

    Arguments of commands can be read by everybody on a node, an environment cannot.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith(("APPTAINERENV_", "SINGULARITYENV_"))}
    for name, value in inside.items():
        kept[f"APPTAINERENV_{name}"] = kept[f"SINGULARITYENV_{name}"] = value
    return kept


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    code: int
    words: str


def _rule(pattern: str, code: int, words: str) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), code, words)


# The first that fits wins. The words are those of Apptainer 1.x and Singularity 3.x.
_RULES = (
    _rule(r"loop devices? (?:left|available)|no (?:more available )?loop devices|(?:find|attach).* loop device",
          ErrorCodes.SINGULARITYNOLOOPDEVICES, "the node has no loop device left for images that are files"),
    _rule(r"failed to create user namespace|user namespace.*(no space left|not permitted)|max_user_namespaces",
          ErrorCodes.SINGULARITYFAILEDUSERNAMESPACE, "the node does not allow user name spaces"),
    _rule(r"invoking the NEWUSER namespace", ErrorCodes.SINGULARITYNEWUSERNAMESPACE,
          "the node does not allow new user name spaces"),
    # Both programs are written in Go, whose own words for the same are the second.
    _rule(r"resource temporarily unavailable|failed to create new OS thread", ErrorCodes.SINGULARITYRESOURCEUNAVAILABLE,
          "the node has no process or memory left"),
    _rule(r"no space left on device|disk quota exceeded", ErrorCodes.NOLOCALSPACE, "the disk is full"),
    _rule(r"unknown image format|format not recognized|could not open image .*(unexpected EOF|permission denied)"
          r"|bad superblock|filesystem extraction failed|squashfuse|/dev/fuse",
          ErrorCodes.SINGULARITYIMAGEMOUNTFAILURE, "the image could not be used"),
    _rule(r"not mounting requested bind point|mount source .* doesn't exist|bind.*(no such file|doesn't exist)"
          r"|destination .* doesn't exist in container|while mounting (?!image)",
          ErrorCodes.SINGULARITYBINDPOINTFAILURE, "a directory of the node could not be seen in the container"),
    _rule(r"failed to mount image|mount.*squashfs|while mounting image",
          ErrorCodes.SINGULARITYIMAGEMOUNTFAILURE, "the image could not be used"),
    _rule(r"could not open image|no such image|image .* (not found|does not exist)|failed to retrieve path for",
          ErrorCodes.IMAGENOTFOUND, "the image is not there"),
    _rule(r"stat /bin/sh: no such file|executable file not found", ErrorCodes.PAYLOADEXECUTIONFAILURE,
          "the image has no /bin/sh to run a payload with"),
)  # fmt: skip
# The same for fetching an image: what registries answer, and what their clients make of it.
_FETCH_RULES = (
    _rule(r"no space left on device|disk quota exceeded", ErrorCodes.NOLOCALSPACE, "the disk is full"),
    _rule(r"manifest[ _]unknown|name[ _]unknown|not found|unauthorized|denied|unsupported transport|no default remote"
          r"|requested access|invalid reference|unable to parse",
          ErrorCodes.IMAGENOTFOUND, "the registry does not have it for us"),
)  # fmt: skip


def container_error(output: str, ending: str) -> PilotException:
    """What a container's failure means. output: what the runtime said; ending: "exit code 255", say."""
    return _judge(_RULES, output, ending, "the container failed")


def fetch_error(image: str, output: str, ending: str) -> PilotException:
    """What it means that an image could not be fetched. The arguments are those of container_error."""
    error = _judge(_FETCH_RULES, output, ending, "it could not be fetched")
    return PilotException(f"image {image}: {error.diag}", code=error.code)


def _judge(rules: Sequence[_Rule], output: str, ending: str, otherwise: str) -> PilotException:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # What the runtime gave up for is its last word; without such a word, what it said last.
    fatal = [line for line in lines if re.search(r"FATAL|ERROR", line)]
    said = "".join(c if c.isprintable() else "?" for c in (fatal[-1] if fatal else " / ".join(lines[-3:])))[-300:]
    for rule in rules:
        if rule.pattern.search(output):
            return PilotException(f"{rule.words} ({ending}: {said})", code=rule.code)
    return PilotException(
        f"{otherwise} ({ending}: {said or 'it said nothing'})", code=ErrorCodes.SINGULARITYGENERALFAILURE
    )
