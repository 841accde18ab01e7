"""The parts of a transfer that decide: what a tool's words mean, when one is stalled, and the table of attempts."""

from __future__ import annotations

import threading

import pytest

from pilot.api.attempts import Attempt, host_and_protocol, table
from pilot.common.errorcodes import ErrorCodes, describe
from pilot.common.exception import PilotException
from pilot.copytool.errors import CODES, Kind, TransferError, classify, kind_of, raw_words, tool_error
from pilot.util.credentials import bucket_variables, tool_environment
from pilot.util.parallel import in_parallel
from pilot.util.watch import Limits, Watch

C = ErrorCodes


# What Rucio's clients 41.5 say, with the words of the tools that they use.
REAL_OF_RUCIO = [
    ("InsufficientAccountLimit: There is not enough quota left to fulfil the operation.\n"
     "Details: There is insufficient quota on any of the target RSE's to fulfill the operation.", Kind.FULL),
    ("RSE does not support requested operation.\nDetails: 'prefix'\n[Errno 28] No space left on device", Kind.FULL),
    ("The requested service is not available at the moment.\nDetails: [Errno 28] No space left on device", Kind.FULL),
    ("The requested service is not available at the moment.\nDetails: Source file not found.", Kind.MISSING),
    ("Source file not found.\nDetails: [Errno 2] No such file or directory: '/tmp/rse///test/d7/9f//f'", Kind.MISSING),
    ("No available sources", Kind.MISSING),
    ("RSE does not exist.\nDetails: RSE 'NONE' cannot be found in vo 'def'", Kind.MISSING),
    ("InvalidRSEExpression: Provided RSE expression is considered invalid.\n"
     "Details: RSE Expression resulted in an empty set.", Kind.MISSING),
    ("RSEProtocolNotSupported: RSE does not support requested protocol.\nDetails: No protocol for provided settings",
     Kind.MISSING),
    ("RSEAccessDenied: Referenced RSE not reachable.\nDetails: [FATAL] Connection error", Kind.UNREACHABLE),
    ("RSEAccessDenied: Referenced RSE not reachable.\nDetails: X509_USER_PROXY is not set", Kind.DENIED),
    ("RSE does not support requested operation.\nDetails: The requested service is not available at the moment.\n"
     "Details: An unknown exception occurred.\nDetails: Run: [ERROR] Server responded with an error: [3010] Unable to "
     "create /data/locked/test/cb/64/l.rucio.upload; permission denied? (destination)", Kind.DENIED),
    ("RSEWriteBlocked: RSE excluded; not available for writing.\n"
     "Details: XRD1 is not available for writing. No actions have been taken", Kind.UNREACHABLE),
    ("Access to local destination denied.\nDetails: [Errno 13] Permission denied: '/mnt/rse/test'", Kind.DENIED),
    ("CannotAuthenticate: Cannot authenticate.\n"
     "Details: CannotAuthenticate: Cannot authenticate to account nobody with given credentials", Kind.DENIED),
    ("KeyError: 'client_proxy'", Kind.DENIED),
    ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed "
     "certificate in certificate chain (_ssl.c:1006)'))))", Kind.DENIED),
    ("ServerConnectionException: Cannot connect to the Rucio server.", Kind.UNREACHABLE),
    ("ConfigLoadingError: Could not load Rucio configuration file. Rucio tried loading the following configuration "
     "file:\n\t /nonexistent/rucio.cfg", Kind.MIDDLEWARE),
    ("Checksum validation failed: Local checksum: 28ac26ab, Rucio checksum: 00000001", Kind.DAMAGED),
    ("Details: Checksum mismatch. Source: 28ac26ab Destination: fa9b48a0", Kind.DAMAGED),
    ("Details: Filesize mismatch. Source: 5 Destination: 4", Kind.SIZE),
    ("root://h:1094//data/f is there already with other contents, and is not overwritten", Kind.EXISTS),
    ("The requested service is not available at the moment.\nDetails: 500 Internal Server Error", Kind.UNREACHABLE),
]  # fmt: skip

# What the tools of Debian 12 (xrdcp 5.5.3, gfal2 2.21, curl 7.88, cp, scp) print, word for word.
REAL = [
    ("Run: [ERROR] Server responded with an error: [3011] Unable to open /data/f; no such file or directory  (source)",
     Kind.MISSING),
    ("Run: [ERROR] Server responded with an error: [3010] Opening path '/elsewhere/none' is disallowed.  (source)",
     Kind.DENIED),
    ("Run: [ERROR] Server responded with an error: [3010] Unable to open /data/a/b/f2; permission denied  (source)",
     Kind.DENIED),
    ("Run: [ERROR] CheckSum error", Kind.DAMAGED),
    ("Run: [FATAL] Connection error:  (source)", Kind.UNREACHABLE),
    ("Run: [FATAL] Invalid address:  (source)", Kind.UNREACHABLE),
    ("Run: [ERROR] Operation expired:  (source)", Kind.STALLED),
    ("curl: (6) Could not resolve host: no.such.host.invalid", Kind.UNREACHABLE),
    ("curl: (7) Failed to connect to 127.0.0.1 port 1 after 0 ms: Couldn't connect to server", Kind.UNREACHABLE),
    ("curl: (18) transfer closed with 999999 bytes remaining to read", Kind.CUT),
    ("[ERROR] Invalid session:  (destination) (code 109, errno 0)", Kind.CUT),
    ("cp: cannot stat '/none': No such file or directory", Kind.MISSING),
    ("cp: error writing '/mnt/f': No space left on device", Kind.FULL),
    ("cp: cannot create regular file '/root/x': Permission denied", Kind.DENIED),
    ("/usr/bin/lsm-get: line 3: site-mover: command not found", Kind.MIDDLEWARE),
    ("/usr/bin/lsm-get: 3: site-mover: not found", Kind.MIDDLEWARE),
    *REAL_OF_RUCIO,
    # boto3 1.44 as the copytool s3 shortens it, and as Rucio and others have it
    ("NoSuchKey: The specified key does not exist.", Kind.MISSING),
    ("404: Not Found", Kind.MISSING),
    ("An error occurred (NoSuchKey) when calling the GetObject operation: The specified key does not exist.",
     Kind.MISSING),
    ("An error occurred (404) when calling the HeadObject operation: Not Found", Kind.MISSING),
    ("NoSuchBucket: The specified bucket does not exist", Kind.MISSING),
    ("AccessDenied: Access Denied", Kind.DENIED),
    ("An error occurred (403) when calling the HeadObject operation: Forbidden", Kind.DENIED),
    ("InvalidAccessKeyId: The AWS Access Key Id you provided does not exist in our records.", Kind.DENIED),
    ("SignatureDoesNotMatch: The request signature we calculated does not match the signature you provided. Check your "
     "key and signing method.", Kind.DENIED),
    ("ExpiredToken: The provided token has expired.", Kind.DENIED),
    ("AccessDenied: Request has expired", Kind.DENIED),
    ("RequestTimeTooSkewed: The difference between the request time and the current time is too large.", Kind.DENIED),
    ("NoCredentialsError: Unable to locate credentials", Kind.DENIED),
    ("PartialCredentialsError: Partial credentials found in explicit, missing: aws_secret_access_key", Kind.DENIED),
    ("ProfileNotFound: The config profile (default) could not be found", Kind.DENIED),
    ("PreconditionFailed: At least one of the pre-conditions you specified did not hold", Kind.EXISTS),
    ("SlowDown: Please reduce your request rate.", Kind.UNREACHABLE),
    ("ServiceUnavailable: Service is unable to handle request.", Kind.UNREACHABLE),
    ("QuotaExceeded: Unknown", Kind.FULL),
    ("EntityTooLarge: Your proposed upload exceeds the maximum allowed size", Kind.FULL),
    ("BadDigest: The Content-MD5 you specified did not match what we received.", Kind.DAMAGED),
    ('EndpointConnectionError: Could not connect to the endpoint URL: "http://127.0.0.1:1/bucket/timeout"',
     Kind.UNREACHABLE),
    ('ConnectTimeoutError: Connect timeout on endpoint URL: "http://10.0.0.1/bucket/k"', Kind.UNREACHABLE),
    ('ReadTimeoutError: Read timeout on endpoint URL: "http://127.0.0.1:1/bucket/k"', Kind.STALLED),
    ("IncompleteReadError: 1000 read, but total bytes expected is 5000.", Kind.CUT),
    ('ConnectionClosedError: Connection was closed before we received a valid response from endpoint URL: "http://h/b"',
     Kind.CUT),
    ("ResponseStreamingError: An error occurred while reading from response stream: IncompleteRead(1 bytes read)",
     Kind.CUT),
    ("SSLError: SSL validation failed for https://127.0.0.1:1/b [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify "
     "failed: self-signed certificate in certificate chain (_ssl.c:1006)", Kind.DENIED),
    # google-cloud-storage 3.17 as the copytool gs shortens it
    ("404: No such object: bucket/none", Kind.MISSING),
    ("404: ('Request failed with status code', 404, 'Expected one of', <HTTPStatus.OK: 200>)", Kind.MISSING),
    ("403: p@x.iam.gserviceaccount.com does not have storage.objects.get access to the Google Cloud Storage object. "
     "Permission 'storage.objects.get' denied on resource (or it may not exist).", Kind.DENIED),
    ("401: Anonymous caller does not have storage.objects.get access to the Google Cloud Storage object.", Kind.DENIED),
    ("412: At least one of the pre-conditions you specified did not hold.", Kind.EXISTS),
    ("429: The rate of change requests to the object bucket/k exceeds the rate limit.", Kind.UNREACHABLE),
    ("503: We encountered an internal error. Please try again.", Kind.UNREACHABLE),
    ("DefaultCredentialsError: File /nowhere was not found.", Kind.DENIED),
    ("RefreshError: ('invalid_grant: Invalid JWT Signature.', {'error': 'invalid_grant'})", Kind.DENIED),
    ("Run: [ERROR] Initialization error:  (destination)", Kind.OTHER),
    (
        "ServiceUnavailable: HTTPSConnectionPool: Max retries exceeded (Caused by SSLError(SSLError(1, '[SSL: "
        "SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired (_ssl.c:2580)')))",
        Kind.DENIED,
    ),
    ("ServiceUnavailable: (Caused by SSLError(SSLEOFError(8, 'EOF occurred in violation of protocol')))", Kind.CUT),
    ("Run: [FATAL] Auth failed: No protocols left to try (source)", Kind.DENIED),
    ("Run: [FATAL] TLS error: Unable to use cert+key file /none/such; does not exist. (source)", Kind.DENIED),
    ("Run: [FATAL] Socket timeout:  (source)", Kind.STALLED),
    # gfal2 2.21, as our helper hands it on: with the system's words for its number.
    ("Error on XrdCl::CopyProcess::Run(): [ERROR] Server responded with an error: [3011] Unable to open /data/none; "
     "no such file or directory\\x00 (source) (code 2, No such file or directory)", Kind.MISSING),
    ("Could not open source: Result HTTP 404 : File not found  after 1 attempts (code 2, No such file or directory)",
     Kind.MISSING),
    ("HTTP 403 : Permission refused  (code 1, Operation not permitted)", Kind.DENIED),
    ("TRANSFER ERROR: Copy failed (streamed). Last attempt: HTTP 403 : Permission refused  (destination) "
     "(code 17, File exists)", Kind.DENIED),
    ("DESTINATION EXISTS The destination file exists and overwrite is not enabled (code 17, File exists)", Kind.EXISTS),
    ("Error on XrdCl::CopyProcess::Run(): [FATAL] Auth failed: No protocols left to try (source) "
     "(code 52, Invalid exchange)", Kind.DENIED),
    ("Could not open source: Result (Neon): Could not read status line: SSL error: sslv3 alert certificate expired "
     "after 1 attempts (code 112, Host is down)", Kind.DENIED),
    ("Error on XrdCl::CopyProcess::Run(): [ERROR] Server responded with an error: [3009] Unable to write /data/x; "
     "no space left on device\\x00 (destination) (code 28, No space left on device)", Kind.FULL),
    ("errno reported by local system call No space left on device (code 28, No space left on device)", Kind.FULL),
    ("Error on XrdCl::CopyProcess::Run(): [FATAL] Connection error:  (source) (code 111, Connection refused)",
     Kind.UNREACHABLE),
    ("Could not open source: Result Could not connect to server after 1 attempts (code 112, Host is down)",
     Kind.UNREACHABLE),
    ("Could not open source: Result Domain name resolution failed after 1 attempts (code 113, No route to host)",
     Kind.UNREACHABLE),
    ("Could not open source: Connection timed out (code 110, Connection timed out)", Kind.STALLED),
    ("Result Invalid read in request after 1 attempts (code 112, Host is down)", Kind.CUT),
    ("TRANSFER ERROR: Copy failed (streamed). Last attempt: (Neon): Could not send request body: connection was closed "
     "by server (destination) (code 6, No such device or address)", Kind.CUT),
    ("TRANSFER ERROR: Copy failed (streamed). Last attempt: (Neon): Could not read status line: Connection reset by "
     "peer (destination) (code 6, No such device or address)", Kind.CUT),
    ("Could not open source: Protocol not supported or path/url invalid: srm://h/x (code 93, Protocol not supported)",
     Kind.UNSUPPORTED),
    ("gfal-copy error: 2 (No such file or directory) - Could not stat the source: Result HTTP 404 : File not found  "
     "after 1 attempts", Kind.MISSING),
    ("something nobody has ever seen", Kind.OTHER),
    ("", Kind.OTHER),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), REAL)
def test_what_real_tools_say_is_understood(text: str, kind: Kind) -> None:
    assert classify(text).kind is kind


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("read", [True, False])
def test_every_kind_has_a_code_for_both_directions_and_keeps_its_kind(kind: Kind, read: bool) -> None:
    code = CODES[kind][0 if read else 1]
    error = TransferError("x", kind, read=read)
    assert (error.code, kind_of(error)) == (code, kind) and describe(code).name != "UNKNOWNEXCEPTION"


@pytest.mark.parametrize(
    ("output", "read", "code", "said"),
    [
        (REAL[0][0], True, 1331, "f: the file is not there (exit code 54: "),
        (REAL[2][0], True, 1338, "access is denied"),
        (REAL[2][0], False, 1383, "access is denied"),
        ("No space left on device", False, 1333, "there is no space left"),
        ("No space left on device", True, 1098, "there is no space left"),
        ("", True, 1099, "it failed (exit code 54: it said nothing)"),
        ("", False, 1137, "it said nothing"),
    ],
)
def test_a_tools_failure_has_code_words_and_the_raw_lines(output: str, read: bool, code: int, said: str) -> None:
    error = tool_error("f", output, "exit code 54", read=read)
    assert error.code == code and said in error.diag
    assert raw_words(output) in error.diag


def test_raw_words_are_the_last_lines_and_printable() -> None:
    assert raw_words("one\ntwo\n\nthree\x1b[0m\nfour\n") == "two / three?[0m / four"
    assert len(raw_words("x" * 10_000)) == 160


@pytest.mark.parametrize(
    ("code", "kind"),
    [(C.GETADMISMATCH, Kind.DAMAGED), (C.MIDDLEWAREIMPORTFAILURE, Kind.MIDDLEWARE), (9999, Kind.OTHER)],
)
def test_an_error_without_a_kind_gets_one_from_its_code(code: int, kind: Kind) -> None:
    assert kind_of(PilotException("x", code=code)) is kind


# ---- stalled


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([(9.0, 0)], ""),
        ([(10.0, 0)], "no byte moved for 10 s"),
        ([(9.0, 5), (18.0, 5)], ""),
        ([(9.0, 5), (19.0, 5)], "no byte moved for 10 s"),
        ([(9.0, 5), (18.0, 3), (27.0, 3)], ""),
        ([(float(t), t) for t in range(1, 109)], ""),
        ([(float(t), t) for t in range(1, 111)], "not done after 110 s, the limit for 1000 bytes"),
    ],
)
def test_a_transfer_is_stopped_for_lack_of_progress_or_at_its_scaled_limit(
    samples: list[tuple[float, int]], reason: str
) -> None:
    watch = Watch(Limits(stall=10.0, fixed=10.0, speed=10.0), 1000, 0.0)
    said = [watch.look(now, progress) for now, progress in samples]
    assert said[-1] == reason and not any(said[:-1])


def test_a_file_of_unknown_size_is_only_judged_by_its_progress() -> None:
    watch = Watch(Limits(stall=10.0, fixed=1.0, speed=1.0), 0, 0.0)
    assert [watch.look(float(now), now) for now in range(1, 100)] == [""] * 99


# ---- the table


def attempt(**changes: object) -> Attempt:
    made = {"lfn": "f", "direction": "in", "number": 1, "tool": "xrdcp", "endpoint": "A", "host": "h:1094"}
    return Attempt(**{**made, "protocol": "root", "bytes": 5, "seconds": 1.2345, **changes})  # type: ignore[arg-type]


def test_the_table_has_a_line_for_each_attempt() -> None:
    lines = table([attempt(), attempt(lfn="longer", number=2, host="", kind="missing", code=1331, bytes=0)])
    assert lines.splitlines() == [
        "  file    way  try  tool   host    protocol  bytes  seconds  result",
        "  f       in   1    xrdcp  h:1094  root      5      1.23     ok",
        "  longer  in   2    xrdcp  -       root      0      1.23     missing (1331)",
    ]


@pytest.mark.parametrize(
    ("surl", "wanted"),
    [
        ("root://h:1094//data/f", ("h:1094", "root")),
        ("davs://user:secret@h/f", ("h", "davs")),
        ("file://localhost/f", ("", "file")),
        ("/data/f", ("", "file")),
        ("root://[bad/f", ("", "root")),
    ],
)
def test_the_host_of_a_place_is_told_without_secrets(surl: str, wanted: tuple[str, str]) -> None:
    assert host_and_protocol(surl) == wanted


# ---- at the same time


def test_what_fails_first_in_order_is_raised_and_nothing_new_is_begun() -> None:
    done: list[int] = []
    gate = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            assert gate.wait(20)
            raise ValueError("zero")
        if number == 1:
            gate.set()
            raise ValueError("one")
        done.append(number)

    with pytest.raises(ValueError, match="zero"):
        in_parallel(range(50), work, 2, "t")
    assert len(done) < 48


def test_one_item_or_one_at_a_time_needs_no_thread() -> None:
    seen: list[threading.Thread] = []
    in_parallel([1], lambda _: seen.append(threading.current_thread()), 8, "t")
    in_parallel([1, 2], lambda _: seen.append(threading.current_thread()), 1, "t")
    in_parallel([], lambda _: seen.append(threading.current_thread()), 8, "t")
    assert seen == [threading.current_thread()] * 3


def test_each_copytool_gets_the_keys_of_its_own_object_store_and_no_other_does() -> None:
    environ = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "a", "GOOGLE_APPLICATION_CREDENTIALS": "/g"}
    assert tool_environment(environ) == {"PATH": "/bin"}
    assert bucket_variables(environ, "s3") == bucket_variables(environ, "objectstore") == {"AWS_SECRET_ACCESS_KEY": "a"}
    assert bucket_variables(environ, "gs") == {"GOOGLE_APPLICATION_CREDENTIALS": "/g"}
    assert bucket_variables(environ, "xrdcp") == {} and len(bucket_variables(environ)) == 2


def test_tools_get_the_credentials_for_storage_and_not_those_for_the_dispatcher() -> None:
    environ = {"PATH": "/bin", "X509_USER_PROXY": "/p", "BEARER_TOKEN": "t", "PANDA_AUTH_TOKEN": "secret"}
    assert tool_environment(environ) == {"PATH": "/bin", "X509_USER_PROXY": "/p", "BEARER_TOKEN": "t"}
