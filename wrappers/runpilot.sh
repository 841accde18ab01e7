#!/bin/sh
# runpilot.sh: start a pilot as a batch job does.
#
#   runpilot.sh -q QUEUE [any option of pilot.py ...]
#
# Finds a Python and the pilot, makes a scratch directory for it, passes signals on to it, waits for it, cleans up and
# leaves with the pilot's own shell code. All options go to the pilot unchanged. What can be set in the environment:
#
#   PILOT_DIR           the folder of pilot.py                        (default: found from where this script is)
#   PILOT_PYTHON        the Python to use, 3.9 or later with requests   (default: the first one found)
#   PILOT_SCRATCH       where the scratch directory is made           (default: TMPDIR, else /tmp)
#   PILOTKIT_SPOOL_DIR  where updates that could not be sent wait for the next pilot; outlives this one
#                       (default: pilotkit-spool-<uid> beside the scratch directory)
#   PILOT_KEEP_SCRATCH  set to anything: leave the scratch directory behind, to look into it
#
# Exit code: the pilot's. When it could not be started, one of the codes the pilot itself uses for the like:
#   66  no scratch directory could be made   67  pilot.py not found   76  no suitable Python
#   128 + n  stopped by signal n before the pilot was started
set -u

EXIT_NO_SCRATCH=66
EXIT_NO_PILOT=67
EXIT_NO_PYTHON=76

# prints the version when this Python will do, else what is wrong with it; one too old to read it prints nothing
PROBE='
import sys
from importlib.util import find_spec
version = ".".join(str(number) for number in sys.version_info[:3])
if sys.version_info < (3, 9):
    print("is Python " + version)
    sys.exit(1)
if find_spec("requests") is None:
    print("(Python " + version + ") lacks requests")
    sys.exit(1)
print(version)
'

pilot_pid=''
early_signal=''
interrupted=''
scratch=''

say() {
    printf 'runpilot: %s\n' "$*" >&2
}

# A signal reaches the pilot, which ends its job in order; we only ever wait for it.
# shellcheck disable=SC2329  # called by the traps
pass_on() { # name number
    interrupted=yes
    if [ -n "$pilot_pid" ]; then
        kill -s "$1" "$pilot_pid" 2>/dev/null
    else
        early_signal=$2
    fi
}

leave() { # code
    if [ -n "$scratch" ]; then
        if [ -n "${PILOT_KEEP_SCRATCH-}" ] || [ "$keep" = yes ]; then
            say "the scratch directory is kept: $scratch"
        else
            # a payload may have taken the permissions of its folders away
            rm -rf -- "$scratch" 2>/dev/null || { chmod -R u+rwX -- "$scratch"; rm -rf -- "$scratch"; }
        fi
    fi
    exit "$1"
}

leave_if_stopped() {
    if [ -n "$early_signal" ]; then
        say "stopped by signal $early_signal before the pilot was started"
        leave $((128 + early_signal))
    fi
}

# Sets pilot_dir: PILOT_DIR, else seen from this script, in a checkout or an installed pilotkit (pilot/launch/wrappers).
find_pilot() {
    here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
    if [ -n "${PILOT_DIR-}" ]; then
        set -- "$PILOT_DIR"
    else
        set -- "${here%/*}" "${here%/*/*/*}"
    fi
    for pilot_dir in "$@"; do
        [ -f "$pilot_dir/pilot.py" ] && return
    done
    say "there is no pilot.py in '$1'. Set PILOT_DIR to the folder that holds it."
    leave $EXIT_NO_PILOT
}

# Sets python. One candidate after the other; what is wrong with each is said only when none will do.
find_python() {
    complaints=''
    if [ -n "${PILOT_PYTHON-}" ]; then
        try_python "$PILOT_PYTHON" && return
    else
        for candidate in "$pilot_dir/.venv/bin/python3" python3 python3.13 python3.12 python3.11 python3.10 python3.9 \
            /usr/bin/python3 python; do
            try_python "$candidate" && return
        done
    fi
    say "no suitable Python. The pilot needs 3.9 or later with requests:${complaints:-"
    none was found in PATH (${PATH-})"}"
    say "Install what is missing (python3 -m pip install requests) or set PILOT_PYTHON to a Python that has it."
    leave $EXIT_NO_PYTHON
}

try_python() { # name or path
    if ! path=$(command -v -- "$1"); then
        [ "$1" != "${PILOT_PYTHON-}" ] || complaints="
    PILOT_PYTHON=$1 is not there"
        return 1
    fi
    if answer=$("$path" -c "$PROBE" 2>/dev/null </dev/null); then
        python=$path
        python_version=$answer
        return 0
    fi
    complaints="$complaints
    $path ${answer:-does not work}"
    return 1
}

# Sets scratch_base and scratch. What the user set must work; TMPDIR is only a hint and batch systems get it wrong.
make_scratch() {
    if [ -n "${PILOT_SCRATCH-}" ]; then
        set -- "$PILOT_SCRATCH"
    else
        set -- "${TMPDIR:-/tmp}" /tmp
    fi
    for scratch_base in "$@"; do
        scratch=$(umask 077 && mktemp -d "$scratch_base/pilotkit-XXXXXXXXXX" 2>/dev/null) && return
        say "no scratch directory can be made in '$scratch_base'"
    done
    scratch=''
    say "Set PILOT_SCRATCH to a folder on the local disk that this user can write to."
    leave $EXIT_NO_SCRATCH
}

# A folder in /tmp may have been made by somebody else: what waits there is trusted, so it must be ours alone.
make_spool() {
    spool=${PILOTKIT_SPOOL_DIR:-$scratch_base/pilotkit-spool-$(id -u)}
    mkdir -m 700 -- "$spool" 2>/dev/null
    if [ -n "$(find "$spool" -prune -type d -user "$(id -u)" 2>/dev/null)" ] && chmod 700 "$spool"; then
        PILOTKIT_SPOOL_DIR=$spool
        export PILOTKIT_SPOOL_DIR
    else
        unset PILOTKIT_SPOOL_DIR
        say "'$spool' is not a folder of ours, so updates that cannot be sent will not outlive this pilot."
        say "Remove it or set PILOTKIT_SPOOL_DIR to another folder on the local disk."
    fi
}

# Sets workdir_given and keep from the pilot's own options.
read_options() {
    workdir_given=no
    keep=no
    previous=''
    for option in "$@"; do
        case $option in
            -a | -a?* | --workdir | --workdir=*) workdir_given=yes ;;
            --cleanup=[Ff]alse) keep=yes ;;
            [Ff]alse) [ "$previous" != --cleanup ] || keep=yes ;;
        esac
        previous=$option
    done
}

read_options "$@"
trap 'pass_on HUP 1' HUP
trap 'pass_on INT 2' INT
trap 'pass_on QUIT 3' QUIT
trap 'pass_on USR1 10' USR1
trap 'pass_on TERM 15' TERM
trap 'pass_on XCPU 24' XCPU

find_pilot
find_python
make_scratch
make_spool
[ "$workdir_given" = yes ] || set -- -a "$scratch" "$@"
leave_if_stopped
say "pilot $pilot_dir/pilot.py, Python $python_version ($python), scratch $scratch"

"$python" "$pilot_dir/pilot.py" "$@" </dev/null &
pilot_pid=$!
[ -z "$early_signal" ] || kill -s "$early_signal" "$pilot_pid" 2>/dev/null

# A trapped signal ends "wait" early, with 128 + its number: wait again. 127 then means that the pilot had just ended.
code=127
while
    interrupted=''
    wait "$pilot_pid"
    status=$?
    [ "$status" -eq 127 ] || code=$status
    [ -n "$interrupted" ] && [ "$status" -ne 127 ]
do :; done
leave "$code"
