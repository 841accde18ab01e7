"""May a failed attempt be followed by another one, and of what kind? Pure rules; those by error are of chapter 20."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from server.db.retries import Rule

#: The pilot was told to leave (SIGTERM), was preempted, or its slot ended: not the job's fault (pilot.md 3).
UNCHARGED_PILOT_CODES = frozenset({1201, 1379, 1213})
#: However often nobody is to blame, a job is not started more often than this beyond its attempts.
UNCHARGED_LIMIT = 20

NO_RETRY = "no_retry"
LIMIT_RETRY = "limit_retry"
INCREASE_MEMORY = "increase_memory"
INCREASE_MEMORY_XTIMES = "increase_memory_xtimes"
INCREASE_CPUTIME = "increase_cputime"
REDUCE_INPUT = "reduce_input_per_job"
#: The actions, the most drastic first: of two rules that are as narrow, the first of these wins.
ACTIONS = (NO_RETRY, LIMIT_RETRY, REDUCE_INPUT, INCREASE_MEMORY, INCREASE_MEMORY_XTIMES, INCREASE_CPUTIME)
#: Parameter of an action: its name, default (None: it must be given), least and most.
PARAMETERS: Mapping[str, tuple[str, float | None, float, float]] = {
    LIMIT_RETRY: ("maxAttempt", None, 1, 50),
    INCREASE_MEMORY: ("step", 1000, 1, 10**6),  # MB a core; the documents name no figure
    INCREASE_MEMORY_XTIMES: ("factor", 1.5, 1, 10),
    INCREASE_CPUTIME: ("factor", 1.5, 1, 10),
}


@dataclass(frozen=True)
class Retry:
    """What follows a failed attempt.

    Attributes:
        again: the job is queued again with the next attempt number.
        charged: the attempt counts as one of those the job may fail.
    """

    again: bool
    charged: bool


@dataclass(frozen=True)
class Failure:
    """How an attempt failed, as rules see it.

    Attributes:
        errors: code and text by source (pilot, exe, jobDispatcher, ...); `trans` is the payload's exit code.
        architecture, release, work_queue, vo: what a rule may be limited to; the work queue is the prodSourceLabel.
    """

    errors: Mapping[str, tuple[int, str]]
    architecture: str = ""
    release: str = ""
    work_queue: str = ""
    vo: str = ""


@dataclass(frozen=True)
class Needs:
    """What a job asks of a slot: cores, MB of memory, s of wall time (0: it does not say)."""

    cores: int
    memory: int
    walltime: int


def after_failure(*, attempt: int, failed_attempts: int, max_attempts: int, pilot_code: int, killed: bool) -> Retry:
    """What follows a failed attempt, whatever its error.

    A job with one attempt is never run twice, whoever is to blame: its owner may have a reason.

    Args:
        attempt: number of the attempt that failed, from 1.
        failed_attempts: attempts charged before this one.
        max_attempts: how many the job may fail.
        pilot_code: the pilot's error code; 0 if it gave none.
        killed: somebody wanted the job to end.
    """
    charged = abs(pilot_code) not in UNCHARGED_PILOT_CODES
    left = failed_attempts + charged < max_attempts and attempt < max_attempts + UNCHARGED_LIMIT
    return Retry(again=left and max_attempts > 1 and not killed, charged=charged)


def matches(rule: Rule, failure: Failure) -> bool:
    """Whether a rule is meant for a failure; its expression must fit the text from its beginning."""
    code, text = failure.errors.get(rule.errorSource, (0, ""))
    if abs(code) != rule.errorCode or not code:
        return False
    scope = (
        (rule.architecture, failure.architecture),
        (rule.release, failure.release),
        (rule.workQueue, failure.work_queue),
        (rule.VO, failure.vo),
    )
    if any(wanted and wanted != there for wanted, there in scope):
        return False
    return re.compile(rule.errorDiag, re.DOTALL).match(text) is not None


def choose(rules: Iterable[Rule], failure: Failure) -> tuple[Rule | None, list[Rule]]:
    """The one rule that is applied to a failure, and the passive ones that would have been.

    The narrowest wins, that is the one with most of its scope given; then the most drastic action, the smallest limit,
    the oldest rule.
    """
    found = sorted((rule for rule in rules if matches(rule, failure)), key=_rank)
    return next((rule for rule in found if rule.active), None), [rule for rule in found if not rule.active]


def _rank(rule: Rule) -> tuple[int, int, float, int]:
    width = sum(not text for text in (rule.architecture, rule.release, rule.workQueue, rule.VO))
    return width, ACTIONS.index(rule.action), parameter_of(rule), rule.ruleID


def parameter_of(rule: Rule) -> float:
    """The figure of a rule's action; 0 if it has none."""
    name, default, _, _ = PARAMETERS.get(rule.action, ("", 0, 0, 0))
    return float(rule.parameters.get(name, default or 0))


def may_retry(rule: Rule | None, failed_attempts: int) -> bool:
    """Whether a rule lets a job have another attempt. failed_attempts: those charged so far, this one included."""
    if rule is None:
        return True
    if rule.action == LIMIT_RETRY:
        return failed_attempts < parameter_of(rule)
    return rule.action != NO_RETRY


def changed_needs(rule: Rule | None, needs: Needs, *, peak_memory: int, duration: int, most: Needs) -> Needs:
    """What the next attempt asks for.

    Args:
        needs: what this one asked for.
        peak_memory: what it used at most, in MB; 0 if that is not known.
        duration: how long it ran, in s.
        most: what the queue has; 0: it does not say.
    """
    if rule is None:
        return needs
    memory, walltime = max(needs.memory, peak_memory), max(needs.walltime, duration)
    if rule.action == INCREASE_MEMORY:
        return _limited(needs, memory=memory + int(parameter_of(rule)) * needs.cores, most=most)
    if rule.action == INCREASE_MEMORY_XTIMES:
        return _limited(needs, memory=int(memory * parameter_of(rule)), most=most)
    if rule.action == INCREASE_CPUTIME:
        return _limited(needs, walltime=int(walltime * parameter_of(rule)), most=most)
    return needs


def _limited(needs: Needs, *, memory: int = 0, walltime: int = 0, most: Needs) -> Needs:
    """More than a queue has would keep the job there for ever, and less than before is no increase."""
    return Needs(
        needs.cores,
        max(needs.memory, min(memory, most.memory) if most.memory else memory),
        max(needs.walltime, min(walltime, most.walltime) if most.walltime else walltime),
    )


def effect_of(rule: Rule, before: Needs, after: Needs) -> str:
    """What a rule does, in words."""
    if rule.action == NO_RETRY:
        return "the job is not tried again"
    if rule.action == LIMIT_RETRY:
        return f"the job may fail {parameter_of(rule):g} times at most"
    if rule.action == REDUCE_INPUT:
        return "whoever makes jobs of this task should give them fewer inputs; this one keeps its own"
    if before == after:
        return "nothing, since the queue has no more than the job asks for already"
    if rule.action == INCREASE_CPUTIME:
        return f"the next attempt asks for {after.walltime} s of wall time instead of {before.walltime}"
    return f"the next attempt asks for {after.memory} MB of memory instead of {before.memory}"
