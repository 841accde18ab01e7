"""The pilot's command line, and nothing else.

Every option is one field of `Arguments`: its flags, default, help, and, where the feature behind it is still to come,
the sentence with which it is refused. Long options may be written with hyphens or underscores; booleans stand bare or
with =True or =False, because existing submit files write them so.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import NoReturn, TypeVar, Union

from pilot import __version__

T = TypeVar("T", str, int, bool)
Value = Union[str, int, bool]

# Lifetime of a pilot (s): 3 days and 18 hours, a little under the longest slots of the grid.
DEFAULT_LIFETIME = 324000
DEFAULT_LEASETIME = 3600
DEFAULT_PORT = 25443

# Why an option is refused for now; each completes the sentence "--option: ...".
_HARVESTER = "running under Harvester's push mode is not part of this release; start the pilot in PULL mode without it"
_EVENTSERVICE = "executors of event service jobs other than generic are not part of this release; leave it out"
_HPC = "other modes come with Harvester's push mode, which is not part of this release; leave it out"


def _option(default: T, *flags: str, help: str, later: str = "", choices: tuple[str, ...] = ()) -> T:
    """Declare one option. `later` says why any value but the default is refused for now."""
    # A dataclass field stands for its value in the class body; that is how dataclasses.field itself is typed.
    return field(default=default, metadata={"flags": flags, "help": help, "later": later, "choices": choices})


@dataclass(frozen=True)
class Arguments:
    """The command line, parsed. Empty text and 0 mean: not given."""

    queue: str = _option("", "-q", "--queue", help="panda queue (mandatory, except with --job)")
    site: str = _option("", "-s", "--site", help="site name sent to the dispatcher (default: the queue)")
    resource: str = _option("", "-r", "--resource", help="resource name sent to the dispatcher (default: the queue)")
    workdir: str = _option("", "-a", "--workdir", help="where the pilot makes its work directory (current directory)")
    debug: bool = _option(False, "-d", "--debug", help="write debug messages to the log")
    workflow: str = _option(
        "generic", "-w", "--workflow", help="workflow: generic, or stager (the payload has a lease)"
    )
    lifetime: int = _option(DEFAULT_LIFETIME, "-l", "--lifetime", help="lifetime of the pilot (s)")
    leasetime: int = _option(DEFAULT_LEASETIME, "-L", "--leasetime", help="lease time of the stager workflow (s)")
    joblabel: str = _option("ptest", "-j", "--joblabel", help="prodSourceLabel asked for: managed, user, test, ptest")
    versiontag: str = _option("PR", "-i", "--versiontag", help="PR or RC; RC asks for jobs labelled rc_test2")
    job_type: str = _option("", "--job-type", help="job type asked for: managed or user")
    country_group: str = _option("", "--country-group", help="country group in the getJob request")
    working_group: str = _option("", "--working-group", help="working group in the getJob request")
    allow_other_country: bool = _option(False, "--allow-other-country", help="take jobs of other country groups")
    allow_same_user: bool = _option(
        True, "--allow-same-user", help="later jobs come from the first job's task, and so its user"
    )
    resource_type: str = _option("", "-R", "--resource-type", help="SCORE, MCORE, SCORE_HIMEM, ... or a pattern")
    getjob_requests: int = _option(2, "-v", "--getjobrequests", help="empty answers before giving up")
    getjob_failures: int = _option(5, "-x", "--getjobfailures", help="failed requests before giving up")
    no_serverupdate: bool = _option(False, "-z", "--noserverupdate", help="no server: heartbeats go to a file")
    url: str = _option("", "--url", help="address of the dispatcher (setting pandaserver)")
    port: int = _option(DEFAULT_PORT, "-p", "--port", help="its port, when neither --url nor the setting names one")
    cacert: str = _option("", "--cacert", help="file with CA certificates or X.509 proxy for https")
    capath: str = _option("", "--capath", help="directory of CA certificates for https")
    no_proxyverification: bool = _option(
        False, "-t", "--noproxyverification", help="do not check the proxy before a job is asked for"
    )
    verify_payloadproxy: bool = _option(
        False,
        "-u",
        "--verifypayloadproxy",
        help="check the payload's proxy",
    )
    no_tokenrenewal: bool = _option(False, "-y", "--notokenrenewal", help="do not renew token and proxy")
    queuedata_url: str = _option("", "--queuedata-url", help="URL or file of the queue description")
    storagedata_url: str = _option("", "--storagedata-url", help="URL or file of the storage description")
    config: str = _option("", "--config", help="configuration file, read over default.cfg")
    pilot_user: str = _option("", "--pilot-user", help="experiment plugin (setting [Experiment] name)")
    stageout_attempts: int = _option(1, "--stageout-attempts", help="times each output file is tried")
    input_dir: str = _option("", "--input-dir", help="take input files from this directory")
    input_destination_dir: str = _option(
        "",
        "--input-destination-dir",
        help="put input files into this directory, and links to them into the job's; what is there is used, and stays",
    )
    output_dir: str = _option("", "--output-dir", help="put output files into this directory instead of storage")
    harvester_workdir: str = _option("", "--harvester-workdir", help="Harvester's work directory", later=_HARVESTER)
    harvester_datadir: str = _option("", "--harvester-datadir", help="Harvester's data directory", later=_HARVESTER)
    harvester_eventstatusdump: str = _option(
        "", "--harvester-eventstatusdump", help="Harvester's event status file", later=_HARVESTER
    )
    harvester_workerattributes: str = _option(
        "", "--harvester-workerattributes", help="Harvester's worker attributes file", later=_HARVESTER
    )
    harvester_submitmode: str = _option(
        "PULL", "--harvester-submit-mode", help="PULL or PUSH", later=_HARVESTER, choices=("PULL", "PUSH")
    )
    hpc_resource: str = _option("", "--hpc-resource", help="name of the HPC: hooks of pilot/resource")
    hpc_mode: str = _option("manytoone", "--hpc-mode", help="HPC mode", later=_HPC)
    es_executor_type: str = _option("generic", "--es-executor-type", help="event service executor", later=_EVENTSERVICE)
    pod: bool = _option(False, "--pod", help="running in a Kubernetes pod: its name and limits hold for the node's")
    nocvmfs: bool = _option(False, "-b", "--nocvmfs", help="no CVMFS checks (there are none in the generic plugin)")
    cleanup: bool = _option(True, "--cleanup", help="remove the pilot's work directory at the end")
    no_pilot_log: bool = _option(False, "--no-pilot-log", help="write no pilotlog.txt")
    redirect_stdout: str = _option("", "--redirect-stdout", help="write stdout to this file")
    no_workerstatus: bool = _option(False, "-k", "--noworkerpilotstatusupdate", help="no worker status calls")
    use_realtime_logging: bool = _option(
        False, "--use-realtime-logging", help="send what payloads write while they run (docs/livelog.md)"
    )
    realtime_logging_server: str = _option(
        "", "--realtime-logging-server", help="where to: logstash;http://host:port or stomp;... (the dispatcher)"
    )
    realtime_logname: str = _option("", "--realtime-logname", help="name of the log there (setting [Realtime] logname)")
    baseurls: str = _option("", "-g", "--baseurls", help="URLs below which transformations may lie, comma-separated")
    use_rucio_traces: bool = _option(True, "--use-rucio-traces", help="send transfer traces to Rucio")
    rucio_host: str = _option(
        "", "--rucio-host", help="address of Rucio (setting [Rucio] host, or the node's rucio.cfg)"
    )
    subscribe_to_msgsvc: bool = _option(
        False,
        "--subscribe-to-msgsvc",
        help="ask for jobs when a message broker says so (section [Message_broker] of default.cfg)",
    )
    doctor: bool = _option(
        False,
        "--doctor",
        help="test the queue end to end",
        later="the queue test is not part of this release; run a job with --job FILE instead",
    )
    autopsy: str = _option(
        "", "--autopsy", help="tell what became of the jobs of a pilot, from its directory; then end"
    )
    job: str = _option("", "--job", help="run the job definition in this JSON file; no server is asked")
    shadow: bool = _option(False, "--shadow", help="tell what a limit would have ended, and end nothing for it")
    fault: str = _option(
        "", "--fault", help="inject a fault", later="fault injection is not part of this release; leave it out"
    )


def parse(argv: Sequence[str]) -> Arguments:
    """Parse the command line without the program's name.

    Writes a sentence to stderr and raises SystemExit(2) when an option is wrong, missing or not supported yet.
    """
    parser = _parser()
    namespace = parser.parse_args([_hyphens(word) for word in argv])
    args = Arguments(**vars(namespace))
    for item in fields(Arguments):
        if item.metadata["later"] and getattr(args, item.name) != item.default:
            parser.error(f"{item.metadata['flags'][-1]}: {item.metadata['later']}.")
    if not args.queue and not args.job and not args.autopsy:
        parser.error("which queue? Give its name with -q QUEUE (or a job definition with --job FILE).")
    if args.no_serverupdate and not args.job:
        parser.error("--noserverupdate: without a server there are no jobs; give one with --job FILE.")
    for name, flag, least in _LEAST:
        if getattr(args, name) < least:
            parser.error(f"{flag}: must be {least} or more, but is {getattr(args, name)}.")
    if not 1 <= args.port <= 65535:
        parser.error(f"--port: must be 1 to 65535, but is {args.port}.")
    return args


_LEAST = (
    ("lifetime", "--lifetime", 1),
    ("leasetime", "--leasetime", 1),
    ("getjob_requests", "--getjobrequests", 1),
    ("getjob_failures", "--getjobfailures", 1),
    ("stageout_attempts", "--stageout-attempts", 1),
)


def _hyphens(word: str) -> str:
    """--getjob_requests=3 and --getjob-requests=3 are the same option; what follows the = is left alone."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "yes", "1"):
        return True
    if text.lower() in ("false", "no", "0"):
        return False
    raise argparse.ArgumentTypeError(f"must be True or False, but is '{text}'")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong, without the sixty lines of usage in which nobody would find it."""
        self.exit(2, f"pilot.py: {message}\n`pilot.py --help` shows all options.\n")


def _parser() -> argparse.ArgumentParser:
    # Abbreviations are off: a typing error must not become another option on a hundred thousand nodes.
    parser = _Parser(
        prog="pilot.py",
        usage="pilot.py -q QUEUE [options]",
        description="Fetch jobs for a panda queue from a dispatcher and run them.",
        epilog="Example: ./pilot.py -q MY_QUEUE --url http://127.0.0.1:25080 -j user",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pilotkit {__version__}")
    for item in fields(Arguments):
        flags = item.metadata["flags"]
        text = item.metadata["help"] + (" (not in this release)" if item.metadata["later"] else "")
        if isinstance(item.default, bool):
            parser.add_argument(
                *flags,
                dest=item.name,
                type=_boolean,
                nargs="?",
                const=True,
                default=item.default,
                metavar="True|False",
                help=text,
            )
        else:
            choices: tuple[str, ...] | None = item.metadata["choices"] or None
            kind = type(item.default)
            parser.add_argument(
                *flags,
                dest=item.name,
                type=kind,
                default=item.default,
                choices=choices,
                metavar=_metavar(kind),
                help=text,
            )
    return parser


def _metavar(kind: type) -> str:
    return "N" if kind is int else "TEXT"
