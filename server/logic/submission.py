"""Submission: checked jobs get their numbers, their files get their names, and all of them are stored or none."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from server.db import datasets, dispatch, files, information, jobs, sandboxes, shares, sources
from server.db.database import Connection
from server.db.datasets import NewDataset
from server.db.files import Entry, Name, Promise
from server.db.jobs import Change, Value
from server.db.tables import CLASS_COLUMNS
from server.logic import activation, resourcetypes
from server.logic.context import Context, Identity
from server.logic.errors import BadField, BadJob
from server.logic.eventjobs import add_events
from server.logic.eventmerge import claim_ranges, is_merge
from server.logic.jobfiles import InputSpec, OutputSpec
from server.logic.jobform import DEFAULT_USER, JobForm, parameters_of, read_job
from server.logic.mergeform import complete_merge
from server.logic.names import FILE_LENGTH, complaint_about_file, is_pattern, shown, with_names
from server.logic.plugins import plugins_of
from server.logic.sharetree import ShareTree, facts_of
from server.logic.software import SOFTWARE, missing_software, platform_of
from server.logic.states import Status
from server.logic.timeouts import Limits, patience, read_limits

#: Jobs of one call: more are sent in several calls, so that none blocks the others for long.
MOST_JOBS = 10_000


@dataclass
class Placed:
    """A job with its number and the names of its files.

    Attributes:
        inputs: what was asked for, and the LFN that means.
        waiting: inputs that are not there yet.
        needs: the jobs of this submission that make inputs of it, each with one of those.
    """

    form: JobForm
    job_id: int
    outputs: list[tuple[OutputSpec, str]] = field(default_factory=list)
    log: str = ""
    inputs: list[tuple[InputSpec, str]] = field(default_factory=list)
    waiting: list[Name] = field(default_factory=list)
    needs: dict[int, str] = field(default_factory=dict)

    def promises(self) -> list[Promise]:
        """What it will make."""
        made = [(spec, lfn) for spec, lfn in self.outputs if not _is_nameless(spec)]
        return [
            Promise(spec.scope, lfn, spec.dataset or None, self.job_id, self.form.user)
            for spec, lfn in (*made, (self.form.log, self.log))
        ]

    def datasets(self) -> list[NewDataset]:
        """Those that it names, of patterns, too."""
        specs = (*(spec for spec, _ in self.outputs), self.form.log)
        vo, user = self.form.texts["VO"] or None, self.form.user
        return [NewDataset(spec.scope, spec.dataset, vo, user) for spec in specs if spec.dataset]


def submit_jobs(context: Context, submitted: Sequence[object], identity: Identity) -> list[dict[str, object]]:
    """Store jobs, all or none.

    Jobs of one submission may be each other's inputs. A job whose inputs are there is queued at once, the others wait.

    Returns:
        For each job PandaID, jobStatus, outputs (scope, lfn, local) and log (scope, lfn).

    Raises:
        BadField: there are too many of them.
        BadJob: a job cannot be accepted; nothing was stored.
    """
    if len(submitted) > MOST_JOBS:
        raise BadField("jobs", f"has {len(submitted)} jobs; submit at most {MOST_JOBS} at a time")
    forms = [read_job(index, job, identity.name or DEFAULT_USER) for index, job in enumerate(submitted)]
    for form in forms:
        complete_merge(form, submitted[form.index])
        if not identity.may_act_for(form.user):
            raise form.fail(
                "user", f"is {shown(form.user)}, but you are {shown(identity.name)}: only operators may do that"
            )
    if not forms:
        return []
    with context.database.durable() as connection:
        placed, entries = place_jobs(context, connection, forms, identity.name or "submitter")
    # An input may be lost already; its job fails the way it would have failed later.
    lost = {name for name, entry in entries.items() if entry.status == "lost"}
    activation.settle(context, lost)
    if any(_must_be_prepared(context, job.form) for job in placed):
        context.bell.ring("setupper")
    return _answers(context, placed)


def place_jobs(
    context: Context, connection: Connection, forms: Sequence[JobForm], actor: str
) -> tuple[list[Placed], dict[Name, Entry]]:
    """Store checked jobs in the caller's transaction.

    Returns:
        The jobs with their numbers, and what the catalogue has of their inputs.

    Raises:
        BadJob: a job cannot be accepted; the transaction must be undone.
    """
    _check_surroundings(connection, forms)
    _sort_out(connection, forms)
    first = jobs.reserve_ids(connection, "PandaID", len(forms))
    placed = [Placed(form, first + position) for position, form in enumerate(forms)]
    _name_outputs(connection, placed)
    entries = _name_inputs(connection, placed)
    _store(context, connection, placed, entries, actor)
    return placed, entries


def _must_be_prepared(context: Context, form: JobForm) -> bool:
    return plugins_of(context.settings).prepares(form.texts["VO"])


def _check_surroundings(connection: Connection, forms: Sequence[JobForm]) -> None:
    """Queues and sandboxes must be there."""
    queues = information.find_queues(connection, {form.queue for form in forms})
    for form in forms:
        if form.queue not in queues:
            raise form.fail(
                "queue", f"this server has no queue {shown(form.queue)}; `pilotkit queue list` shows those it has"
            )
        if form.sandbox and sandboxes.find_cache_file(connection, form.sandbox) is None:
            raise form.fail("sandbox", f"{shown(form.sandbox)} is not on this server; upload it first")
        if form.merge is not None:
            try:
                _check_surroundings(connection, [form.merge])
            except BadJob as error:
                raise form.fail("events", f"merge, {error.field}: {error.why}") from None
    _check_software(connection, forms)


def _check_software(connection: Connection, forms: Sequence[JobForm]) -> None:
    """Queues that publish their software must have what jobs name."""
    published: dict[str, object] = {}
    for form in forms:
        platform = platform_of(str(form.definition.get("cmtConfig", "")))
        container = str(form.definition.get("container_name", ""))
        if not platform and not container:
            continue
        if form.queue not in published:
            found = sources.read_entry(connection, SOFTWARE, form.queue)
            published[form.queue] = found.entry if found else None
        if complaint := missing_software(published[form.queue], platform, container):
            raise form.fail("container_name" if container else "cmtConfig", complaint)


def _sort_out(connection: Connection, forms: Sequence[JobForm]) -> None:
    """Give jobs that name no resource type the one they fit."""
    types = resourcetypes.read_types(connection)
    for form in forms:
        kind = resourcetypes.type_of(types, form.numbers["coreCount"], form.numbers["minRamCount"])
        form.texts["resource_type"] = form.texts["resource_type"] or kind


def _name_outputs(connection: Connection, placed: Sequence[Placed]) -> None:
    """Give every output a name nobody else has: one that is taken gets the job's number in front.

    A file that a submitter said is there is somebody's as well: an output of its name would overwrite it.
    """
    wanted = [(spec.scope, spec.lfn) for job in placed for spec in (*job.form.outputs, job.form.log) if spec.lfn]
    taken = set(files.find_entries(connection, wanted)) | files.find_given(connection, wanted)
    taken |= {(spec.scope, spec.lfn) for job in placed for spec in job.form.inputs if spec.replica is not None}
    for job in placed:
        for spec in job.form.outputs:
            name = spec.lfn if _is_nameless(spec) else _free_name(job, spec.scope, spec.lfn, taken)
            job.outputs.append((spec, name))
        log = job.form.log
        # Not the number alone: a new database on a storage that is in use begins at 1 again.
        own = f"{job.job_id}.{uuid.uuid4().hex[:8]}.log.tgz"
        job.log = _free_name(job, log.scope, log.lfn or own, taken)


def _is_nameless(output: OutputSpec) -> bool:
    """Whether no file of this name will be in storage: a pattern's are not known yet, others go into an archive."""
    return is_pattern(output.lfn) or "packed" in output.wire


def _free_name(job: Placed, scope: str, lfn: str, taken: set[Name]) -> str:
    name = lfn
    if (scope, name) in taken:
        name = f"{job.job_id}.{lfn}"
        if (scope, name) in taken:
            name = f"{job.job_id}.{uuid.uuid4().hex[:8]}.{lfn}"
        if complaint_about_file(name):
            raise job.form.fail(
                "outputs", f"{shown(lfn)} is taken, and too long ({FILE_LENGTH} is the most) to be made unique"
            )
    taken.add((scope, name))
    return name


def _name_inputs(connection: Connection, placed: Sequence[Placed]) -> dict[Name, Entry]:
    """Find what inputs mean: the outputs of this submission first, then the catalogue; returns its entries."""
    made: dict[Name, list[tuple[int, str]]] = {}
    for job in placed:
        for spec, lfn in job.outputs:
            made.setdefault((spec.scope, spec.lfn), []).append((job.job_id, lfn))
    for job in placed:
        for wanted in job.form.inputs:
            makers = made.get((wanted.scope, wanted.lfn), []) if wanted.replica is None else []
            job.inputs.append((wanted, _meant(job, wanted, makers, placed[0].job_id)))
    _check_circles(placed)
    unknown = {(spec.scope, lfn) for job in placed for spec, lfn in job.inputs if spec.replica is None}
    entries = files.find_entries(connection, unknown)
    for job in placed:
        names = [(spec.scope, lfn) for spec, lfn in job.inputs if spec.replica is None]
        job.waiting = [name for name in names if name not in entries or entries[name].status != "ready"]
    return entries


def _meant(job: Placed, wanted: InputSpec, makers: Sequence[tuple[int, str]], first: int) -> str:
    """The LFN of an input: the output of another job of this submission, or what the catalogue has or will have."""
    others = [maker for maker in makers if maker[0] != job.job_id]
    if len(others) > 1:
        indices = f"job {others[0][0] - first} and of job {others[1][0] - first}"
        raise job.form.fail(
            "inputs",
            f"{shown(wanted.lfn)} is an output of {indices}: name those differently, to say which one is meant",
        )
    if others:
        maker, lfn = others[0]
        job.needs[maker] = wanted.lfn
        return lfn
    if any(lfn == wanted.lfn for _, lfn in makers):
        raise job.form.fail("inputs", f"{shown(wanted.lfn)} is an output of this very job: it would wait for itself")
    return wanted.lfn


def _check_circles(placed: Sequence[Placed]) -> None:
    """Refuse jobs of one submission that wait for each other in a circle: none of them would ever start."""
    jobs_by_id = {job.job_id: job for job in placed}
    free: set[int] = set()
    for start in placed:
        path = {start.job_id: iter(start.needs)}
        while path:
            last = next(reversed(path))
            maker = next((maker for maker in path[last] if maker not in free), None)
            if maker is None:
                free.add(last)
                path.popitem()
            elif maker in path:
                ids = [*path, maker]
                circle = [jobs_by_id[job_id] for job_id in ids[ids.index(maker) :]]
                raise _circle(circle)
            else:
                path[maker] = iter(jobs_by_id[maker].needs)


def _circle(circle: Sequence[Placed]) -> BadJob:
    """The error of jobs each of which needs an output of the next; the last is the first once more."""
    steps = [f"{shown(job.needs[maker.job_id])} of job {maker.form.index}" for job, maker in pairwise(circle)]
    return circle[0].form.fail("inputs", f"would wait for itself: it needs {', which needs '.join(steps)}")


def _store(
    context: Context, connection: Connection, placed: Sequence[Placed], entries: dict[Name, Entry], actor: str
) -> None:
    now = context.clock()
    limits_of = functools.cache(lambda vo: read_limits(context, vo))
    tree = ShareTree(shares.read_shares(connection))
    classes: dict[tuple[Value, ...], int] = {}
    rows: list[dict[str, Value]] = []
    changes: list[Change] = []
    for job in placed:
        status = Status.ASSIGNED if job.waiting else Status.ACTIVATED
        if _must_be_prepared(context, job.form):
            status = Status.PENDING
        row = _job_row(job, status, now, limits_of(job.form.texts["VO"]))
        row["gshare"] = tree.share_of(facts_of(row, job.form.definition))
        if status == Status.ACTIVATED:
            requirements = {name: row[name] for name in CLASS_COLUMNS}
            key = tuple(requirements.values())
            if key not in classes:
                classes[key] = dispatch.class_of(connection, requirements, now)
            row["classID"] = classes[key]
        rows.append(row)
        if status == Status.PENDING:
            changes.append(Change(job.job_id, 1, status, now, actor, f"submitted for {job.form.user}"))
            continue
        changes.append(Change(job.job_id, 1, Status.DEFINED, now, actor, f"submitted for {job.form.user}"))
        reason = f"waits for {len(job.waiting)} of {len(job.inputs)} inputs" if job.waiting else "all inputs are there"
        changes.append(Change(job.job_id, 1, str(row["jobStatus"]), now, "activator", reason))
    jobs.add_jobs(connection, rows, {job.job_id: _definition(job) for job in placed})
    files.add_files(connection, [row for job in placed for row in _file_rows(job, entries)])
    add_events(connection, [(job.job_id, job.form) for job in placed], now)
    datasets.open_datasets(connection, [dataset for job in placed for dataset in job.datasets()], now)
    files.promise(connection, [promise for job in placed for promise in job.promises()], now)
    for job in placed:
        if is_merge(job.form.definition.get("eventServiceMerge")):
            claim_ranges(connection, job.job_id, job.form.user, [lfn for _, lfn in job.inputs], now)
    jobs.add_history(connection, changes)


def _job_row(job: Placed, status: Status, now: float, limits: Limits) -> dict[str, Value]:
    form = job.form
    return {
        "PandaID": job.job_id,
        "jobStatus": str(status),
        "attemptNr": 1,
        "computingSite": form.queue,
        "prodUserName": form.user,
        "classID": None,
        "debug": form.debug,
        "creationTime": now,
        "stateChangeTime": now,
        "modificationTime": now,
        "watchTime": now + patience(limits, status, form.numbers["currentPriority"]),
        **form.numbers,
        **form.texts,
        "jobName": form.texts["jobName"] or f"job{job.job_id}",
    }


def _definition(job: Placed) -> dict[str, object]:
    """What a pilot is told beside columns and files; a job's own parameters follow the names its files got."""
    definition = dict(job.form.definition)
    if job.form.command is not None:
        outputs = {spec.local: lfn for spec, lfn in job.outputs}
        inputs = {lfn: spec.local for spec, lfn in job.inputs}
        definition["jobPars"] = parameters_of(job.form, outputs, inputs)
    else:
        names = [(spec.lfn, lfn) for spec, lfn in job.outputs] + [(wanted.lfn, lfn) for wanted, lfn in job.inputs]
        renamed = {old: new for old, new in names if old != new}
        definition["jobPars"] = with_names(str(definition.get("jobPars", "")), renamed)
    if optional := [lfn for spec, lfn in job.outputs if spec.optional]:
        definition["allowNoOutput"] = ",".join(optional)
    return definition


def _file_rows(job: Placed, entries: dict[Name, Entry]) -> Iterator[dict[str, Value | dict[str, str]]]:
    empty: dict[str, Value] = dict.fromkeys(("endpoint", "guid", "fsize", "checksum", "surl"))
    common: dict[str, Value] = {"PandaID": job.job_id, "attemptNr": 1}
    for wanted, lfn in job.inputs:
        entry = entries.get((wanted.scope, lfn))
        known = dict(wanted.replica._asdict() if wanted.replica else empty)
        if entry and entry.status == "ready":
            known = {key: getattr(entry, key) for key in empty}
        ready = wanted.replica is not None or (entry is not None and entry.status == "ready")
        yield {
            **common,
            **known,
            "type": "input",
            "status": "ready" if ready else "waiting",
            "scope": wanted.scope,
            "lfn": lfn,
            "local": wanted.local,
            "dataset": wanted.dataset or f"{wanted.scope}.inputs",
            "wire": wanted.wire or None,
        }
    log = job.form.log
    for spec, lfn, kind in (*((spec, lfn, "output") for spec, lfn in job.outputs), (log, job.log, "log")):
        wire = {**spec.wire, **({"optional": "True"} if spec.optional else {})}
        if kind == "log":
            wire.setdefault("logGUID", str(uuid.uuid4()))
        yield {
            **common,
            **empty,
            "type": kind,
            "status": "defined",
            "scope": spec.scope,
            "lfn": lfn,
            "local": spec.local or lfn,
            "dataset": spec.dataset or None,
            "endpoint": spec.endpoint or None,
            "wire": wire or None,
        }


def _answers(context: Context, placed: Sequence[Placed]) -> list[dict[str, object]]:
    with context.database.reading() as connection:
        live = jobs.read_live_many(connection, [job.job_id for job in placed])
    return [
        {
            "PandaID": job.job_id,
            "jobStatus": live[job.job_id].jobStatus,
            "outputs": [{"scope": spec.scope, "lfn": lfn, "local": spec.local} for spec, lfn in job.outputs],
            "log": {"scope": job.form.log.scope, "lfn": job.log},
        }
        for job in placed
    ]
