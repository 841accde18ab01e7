"""What the messages of transfer tools mean: one table, from a pattern to a kind of failure, its codes and its words.

A failure has a kind, which says what may help (another place, another try, nothing), and a pilot error code for each
direction. The raw lines are kept in the text: they are what a site's administrator can search for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.util.blot import without_secrets

# So much of a tool's own words goes into an error's text (characters): the server keeps 250 of it all.
_RAW_LIMIT = 160


class Kind(str, Enum):
    """Kinds of failures, as the table of attempts in the log has them."""

    MISSING = "missing"
    DENIED = "denied"
    DAMAGED = "damaged"
    SIZE = "wrong size"
    FULL = "full"
    EXISTS = "exists"
    UNREACHABLE = "unreachable"
    STALLED = "stalled"
    CUT = "cut"
    MIDDLEWARE = "middleware"
    UNSUPPORTED = "unsupported"
    CANCELLED = "cancelled"
    OTHER = "other"


# Kinds that the same place may not show another time; after the others it has given its answer.
MAY_PASS = frozenset({Kind.UNREACHABLE, Kind.STALLED, Kind.CUT, Kind.OTHER})

# Kinds of failures of an upload after which something may lie in storage: half-written, or, by a server that was in
# trouble when all was sent, whole and never verified. Some tools leave something after failures without a name, too.
HALF_WRITTEN = MAY_PASS | {Kind.CANCELLED, Kind.DAMAGED, Kind.FULL}

# Kind -> code at stage-in, code at stage-out. Codes of stage-out are chosen so that what a later attempt may mend is in
# the table of recoverable codes (pilot.md, section 3, step 12).
CODES: dict[Kind, tuple[int, int]] = {
    Kind.MISSING: (ErrorCodes.MISSINGINPUTFILE, ErrorCodes.STAGEOUTFAILED),
    Kind.DENIED: (ErrorCodes.STAGEINAUTHENTICATIONFAILURE, ErrorCodes.STAGEOUTAUTHENTICATIONFAILURE),
    Kind.DAMAGED: (ErrorCodes.GETADMISMATCH, ErrorCodes.PUTADMISMATCH),
    Kind.SIZE: (ErrorCodes.STAGEINFAILED, ErrorCodes.STAGEOUTFAILED),
    Kind.FULL: (ErrorCodes.NOLOCALSPACE, ErrorCodes.NOREMOTESPACE),
    Kind.EXISTS: (ErrorCodes.STAGEINFAILED, ErrorCodes.FILEEXISTS),
    Kind.UNREACHABLE: (ErrorCodes.STAGEINFAILED, ErrorCodes.STAGEOUTFAILED),
    Kind.STALLED: (ErrorCodes.STAGEINTIMEOUT, ErrorCodes.STAGEOUTTIMEOUT),
    Kind.CUT: (ErrorCodes.STAGEINFAILED, ErrorCodes.STAGEOUTFAILED),
    Kind.MIDDLEWARE: (ErrorCodes.MIDDLEWAREIMPORTFAILURE, ErrorCodes.MIDDLEWAREIMPORTFAILURE),
    Kind.UNSUPPORTED: (ErrorCodes.MIDDLEWAREIMPORTFAILURE, ErrorCodes.MIDDLEWAREIMPORTFAILURE),
    Kind.CANCELLED: (ErrorCodes.STAGEINFAILED, ErrorCodes.STAGEOUTFAILED),
    Kind.OTHER: (ErrorCodes.STAGEINFAILED, ErrorCodes.STAGEOUTFAILED),
}

# The kinds of errors that are raised with a code alone.
_KINDS = {
    ErrorCodes.MISSINGINPUTFILE: Kind.MISSING,
    ErrorCodes.MISSINGOUTPUTFILE: Kind.MISSING,
    ErrorCodes.GETADMISMATCH: Kind.DAMAGED,
    ErrorCodes.GETMD5MISMATCH: Kind.DAMAGED,
    ErrorCodes.PUTADMISMATCH: Kind.DAMAGED,
    ErrorCodes.PUTMD5MISMATCH: Kind.DAMAGED,
    ErrorCodes.NOLOCALSPACE: Kind.FULL,
    ErrorCodes.NOREMOTESPACE: Kind.FULL,
    ErrorCodes.MIDDLEWAREIMPORTFAILURE: Kind.MIDDLEWARE,
}


class TransferError(PilotException):
    """A transfer failed. The text keeps no secrets of the URLs in it.

    kind: what sort of failure it is. leftover: whether an upload has begun, and what it left could not be removed: who
    tries again may replace what is there.
    """

    def __init__(self, message: str, kind: Kind, *, read: bool, code: int | None = None) -> None:
        """read: whether it was a stage-in, which decides on the code when none is given."""
        super().__init__(without_secrets(message), code=CODES[kind][0 if read else 1] if code is None else code)
        self.kind = kind
        self.leftover = False


def kind_of(error: PilotException) -> Kind:
    """The kind of any error that came out of a copytool."""
    return error.kind if isinstance(error, TransferError) else _KINDS.get(error.code, Kind.OTHER)


@dataclass(frozen=True)
class Rule:
    """A pattern in a tool's output, what it means, and the words that say so."""

    pattern: re.Pattern[str]
    kind: Kind
    words: str


def _rule(pattern: str, kind: Kind, words: str) -> Rule:
    return Rule(re.compile(pattern, re.IGNORECASE | re.MULTILINE), kind, words)


# What Rucio's clients say themselves; where they hand on the words of another tool the rules below know those.
_OF_RUCIO = (
    _rule(r"not enough quota|insufficient quota", Kind.FULL, "the storage limit of the Rucio account is reached"),
    _rule(r"quota of referenced RSE is exceeded|out of disk space", Kind.FULL, "there is no space left"),
    _rule(r"checksum validation failed|file consistency", Kind.DAMAGED, "the checksum is another one"),
    _rule(
        r"RSE does not exist|RSE expression (is considered invalid|resulted in an empty set)",
        Kind.MISSING,
        "Rucio does not know this storage",
    ),
    _rule(
        r"no available sources|data identifier not found|scope does not exist",
        Kind.MISSING,
        "Rucio knows no place where it can be read",
    ),
    _rule(
        r"cannot authenticate|can not authorize|no authentication information|X509_USER_PROXY is not set"
        r"|cannot find a valid X509 proxy|KeyError: 'client_proxy'",
        Kind.DENIED,
        "Rucio's clients have no credentials, or none that are accepted",
    ),
    _rule(
        r"could not load rucio configuration|client parameters are missing|one dependency is missing",
        Kind.MIDDLEWARE,
        "Rucio's clients are not set up on this node",
    ),
    _rule(r"alert.certificate.expired", Kind.DENIED, "the credentials have expired"),
    # Before the names of errors of object stores: Rucio has a ServiceUnavailable of its own around these words.
    _rule(r"EOF occurred in violation", Kind.CUT, "the connection was cut"),
    _rule(r"certificate.verify.failed", Kind.DENIED, "the server's certificate is not trusted"),
    _rule(r"cannot connect to the rucio server", Kind.UNREACHABLE, "Rucio's server cannot be reached"),
    _rule(r"not available for writing", Kind.UNREACHABLE, "the storage takes no files at present"),
    _rule(r"RSE does not support requested protocol", Kind.MISSING, "Rucio has no such protocol for this storage"),
)
# The same for what stands around the words of another tool.
_AROUND_RUCIO = (
    _rule(r"access to .{1,30} denied", Kind.DENIED, "access is denied"),
    _rule(
        r"referenced RSE not reachable|service is not available at the moment|connection to RSE not established"
        r"|resource is temporary not available",
        Kind.UNREACHABLE,
        "Rucio's clients cannot work with the storage",
    ),
)
# Object stores have names for errors, which are never part of other text; `404: ` and the like are those of requests
# without one (HEAD in S3, all of Google's).
_OF_BUCKETS = (
    _rule(r"\bNoSuchBucket\b|specified bucket (does|was) not (exist|found)", Kind.MISSING, "the bucket is not there"),
    _rule(r"\bNoSuchKey\b|^404: |\(404\) when calling", Kind.MISSING, "the file is not there"),
    _rule(
        r"\b(ExpiredToken|RequestExpired|TokenRefreshRequired)\b|request has expired",
        Kind.DENIED,
        "the credentials have expired",
    ),
    _rule(
        r"\b(SignatureDoesNotMatch|InvalidAccessKeyId|InvalidToken|RefreshError|invalid_grant)\b",
        Kind.DENIED,
        "the keys are not accepted",
    ),
    _rule(r"\bRequestTimeTooSkewed\b", Kind.DENIED, "the clock of this node is wrong"),
    _rule(
        r"\b(NoCredentialsError|PartialCredentialsError|DefaultCredentialsError|ProfileNotFound)\b"
        r"|Unable to locate credentials",
        Kind.DENIED,
        "there are no keys for the object store",
    ),
    _rule(r"\bAccessDenied\b|^40[13]: |\(403\) when calling", Kind.DENIED, "access is denied"),
    _rule(r"\b(PreconditionFailed|ConditionalRequestConflict)\b|^412: ", Kind.EXISTS, "the file is there already"),
    _rule(r"\b(QuotaExceeded|EntityTooLarge|XMinioStorageFull)\b", Kind.FULL, "there is no space left"),
    _rule(
        r"\b(BadDigest|XAmzContentChecksumMismatch|XAmzContentSHA256Mismatch|FlexibleChecksumError)\b",
        Kind.DAMAGED,
        "the checksum at the other end is another one",
    ),
    _rule(
        r"\b(SlowDown|ServiceUnavailable|TooManyRequests)\b|^(429|503): |\(503\) when calling",
        Kind.UNREACHABLE,
        "the server has too much to do",
    ),
    _rule(
        r"\b(EndpointConnectionError|ConnectTimeoutError|ProxyConnectionError)\b",
        Kind.UNREACHABLE,
        "the server cannot be reached",
    ),
    _rule(
        r"\b(ConnectionClosedError|IncompleteReadError|ResponseStreamingError|ChunkedEncodingError)\b",
        Kind.CUT,
        "the connection was cut",
    ),
)

# The first that fits wins, so the particular stands before the general. The texts are those of Rucio, boto3, Google's
# library, xrdcp, gfal2, curl, Python's HTTP library, and the system's own error messages, on which most site scripts
# are built.
RULES: tuple[Rule, ...] = (
    *_OF_RUCIO,
    *_OF_BUCKETS,
    _rule(
        r"checksum (error|mismatch)|checksums? (do|does) not match|adler32 mismatch|\[3019\]",
        Kind.DAMAGED,
        "the checksum at the other end is another one",
    ),
    _rule(r"size mismatch|sizes? (do|does) not match|wrong size", Kind.SIZE, "the size there is another one"),
    _rule(
        r"no space left|quota exceeded|\[3009\]|insufficient storage|ENOSPC|out of space",
        Kind.FULL,
        "there is no space left",
    ),
    _rule(
        r"(proxy|certificate|token|credentials?) (has |is |have )?expired|expired (proxy|certificate|token)",
        Kind.DENIED,
        "the credentials have expired",
    ),
    _rule(
        r"permission (denied|refused)|not authori[sz]ed|unauthori[sz]ed|forbidden|is disallowed|access denied"
        r"|auth(entication|entification|orization)? (failed|error)|\[3010\]|\[3030\]|operation not permitted",
        Kind.DENIED,
        "access is denied",
    ),
    _rule(
        r"tls error|certificate verif\w+ failed|is not trusted|alert (bad|unknown|unsupported) ",
        Kind.DENIED,
        "the secure connection failed (credentials, or the server's certificate)",
    ),
    _rule(
        r"no such file|does not exist|not found on|file not found|\[3011\]|404 not found|no such object",
        Kind.MISSING,
        "the file is not there",
    ),
    _rule(r"file exists|already exists|is there already|\[3018\]", Kind.EXISTS, "the file is there already"),
    _rule(r"protocol not supported", Kind.UNSUPPORTED, "the transfer tool has no plugin for this protocol"),
    _rule(r"command not found|: not found$|no module named", Kind.MIDDLEWARE, "the transfer tool is not installed"),
    _rule(r"operation expired|timed? ?out|timeout|\[3031\]", Kind.STALLED, "the server did not answer in time"),
    _rule(
        r"invalid address|could not resolve|name or service not known|name resolution|unknown host|failed to resolve",
        Kind.UNREACHABLE,
        "the name of the server is not known here",
    ),
    _rule(
        r"connection reset|broken pipe|stream disconnect|socket disconnected|transfer closed|premature"
        r"|unexpected(ly)? (end|eof|closed)|connection (was )?(closed|lost|aborted|broken)|invalid read in request"
        r"|\[error\] invalid session|incomplete",
        Kind.CUT,
        "the connection was cut",
    ),
    # What XRootD's client says of a file that it has lost, and its server of one that the client comes back to.
    _rule(r"\[error\] initialization error", Kind.OTHER, "the connection was cut, or could not be made"),
    _rule(r"\[3003\]", Kind.CUT, "the connection was cut, and the file is still open there"),
    _rule(
        r"connection refused|connection error|no route to host|network is unreachable|could ?(n.t|not) connect"
        r"|failed to connect|socket error|host is down|service unavailable",
        Kind.UNREACHABLE,
        "the server cannot be reached",
    ),
    *_AROUND_RUCIO,
)


def classify(output: str) -> Rule:
    """What a tool's output means; without a known message a rule of kind OTHER."""
    for rule in RULES:
        if rule.pattern.search(output):
            return rule
    return Rule(re.compile(""), Kind.OTHER, "it failed")


def tool_error(what: str, output: str, ending: str, *, read: bool) -> TransferError:
    """The error for a tool that failed. what: file and place; output: its raw words; ending: "exit code 54", say."""
    rule = classify(output)
    return TransferError(
        f"{what}: {rule.words} ({ending}: {raw_words(output) or 'it said nothing'})", rule.kind, read=read
    )


def raw_words(output: str) -> str:
    """The last lines of a tool's output in one line, fit for an error's text."""
    lines: Sequence[str] = [line.strip() for line in output.splitlines() if line.strip()]
    # Before it is cut: half a signature is not recognised any more.
    text = without_secrets(" / ".join(lines[-3:]))
    return "".join(c if c.isprintable() else "?" for c in text)[-_RAW_LIMIT:]
