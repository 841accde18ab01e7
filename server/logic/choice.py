"""Which job a pilot is offered: of those that fit, by share, priority and age; now and then the oldest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from server.db import dispatch, information
from server.db.database import Connection
from server.db.dispatch import FIRST_SHARES, ClaimedJob, Head
from server.db.information import Queue
from server.db.jobs import Value
from server.logic import configuration
from server.logic.context import Context
from server.logic.hardware import Hardware, hardware_of, wants_gpu
from server.logic.matching import JobRequest, Obstacle, best_first, label_in_queue, obstacles
from server.logic.policy import Policy, ranking
from server.logic.queues import power_of
from server.logic.throttle import host_of

#: PanDA draws a number from 0 to 100 and takes the oldest job up to its ratio: 11 of 101 (client.md section 3).
_RATIO = 10.0
_DRAWN_FROM = 101


def age_ratio(context: Context) -> float | None:
    """How often age comes first, in %, as operators have set it; it may read the table (see `configuration.number`)."""
    return configuration.number(context, "dispatch", "SLOPPY_DISPATCH_RATIO")


def _chance_of_age(ratio: float | None, *, has_shares: bool) -> float:
    """The chance, between 0 and 1, that a call gets the oldest job, so that none waits for ever.

    Without shares and without the setting it is none: a small site expects its jobs strictly by priority.
    """
    if ratio is None:
        ratio = _RATIO if has_shares else -1.0
    return min((ratio + 1) / _DRAWN_FROM, 1.0)


class Choice:
    """The jobs one request may be offered.

    Attributes:
        misfits: the obstacles of the classes that did not fit, as seen by `look_around`.
    """

    def __init__(
        self, context: Context, request: JobRequest, queue: Queue, policy: Policy, ratio: float | None
    ) -> None:
        """ratio: see `age_ratio`."""
        self.request = request
        self.queue = queue
        self.misfits: list[list[Obstacle]] = []
        self._context = context
        self._policy = policy
        self._chance = _chance_of_age(ratio, has_shares=bool(policy.tree))
        self._label = label_in_queue(request.label, queue.status)
        self._hardware: Hardware | None = None
        self._oldest: frozenset[int] = frozenset()

    def look(self, connection: Connection) -> list[Head]:
        """The jobs to try, best first; empty if none fits.

        Where there are many shares, those whose turn it is are looked at before the others: the cost must not grow with
        the number of shares. Now and then the oldest jobs come first, whatever their share and priority.
        """
        request = self.request
        if request.task_id is not None or request.user is not None:
            return self.look_around(connection)
        self._oldest = frozenset()
        if self._chance and self._context.dice() < self._chance:
            heads = dispatch.find_oldest(connection, request.queue)
            self._look_for_gpus_of(connection, heads)
            oldest = [head for head in heads if not self._what_bars(head)]
            if oldest:
                self._oldest = frozenset(head.PandaID for head in oldest)
                return oldest
        turns = self._turns()
        # A pilot for a country takes its jobs first, whichever share they belong to.
        if len(turns) > FIRST_SHARES and not request.countries:
            heads = dispatch.find_heads_of_shares(connection, request.queue, turns[:FIRST_SHARES])
            self._look_for_gpus_of(connection, heads)
            if fitting := [head for head in heads if not self._what_bars(head)]:
                return self._in_order(fitting, turns)
        return self._look_at_all(connection, turns)

    def look_around(self, connection: Connection) -> list[Head]:
        """The same with a look at every class."""
        self._oldest = frozenset()
        return self._look_at_all(connection, self._turns())

    def _look_at_all(self, connection: Connection, turns: Sequence[str]) -> list[Head]:
        request = self.request
        self.misfits = []
        fitting: list[Head] = []
        heads = dispatch.find_heads(connection, request.queue, request.task_id, request.user)
        self._look_for_gpus_of(connection, heads)
        for head in heads:
            found = self._what_bars(head)
            if found:
                self.misfits.append(found)
            else:
                fitting.append(head)
        return self._in_order(fitting, turns)

    def claim(self, connection: Connection, offer: Iterable[Head], values: Mapping[str, Value]) -> ClaimedJob | None:
        """Claim the first job of an offer that nobody else takes; None if others took them all.

        Args:
            values: the columns of the claim.
        """
        for head in offer:
            job = self._claim(connection, head, values)
            if job is not None:
                power = int(job.columns["coreCount"] or 1) * power_of(self.queue.description)
                self._context.policy.note_claim(self._policy, str(job.columns["gshare"]), power, self._context.clock())
                return job
        return None

    def _claim(self, connection: Connection, head: Head, values: Mapping[str, Value]) -> ClaimedJob | None:
        request = self.request
        if head.PandaID in self._oldest:
            return dispatch.claim_job(connection, head.PandaID, values)
        for task, user in ((request.prefer_task, None), (None, request.prefer_user)):
            if task is None and user is None:
                continue
            task, user = task or request.task_id, user or request.user
            job = dispatch.claim_as_urgent(connection, head.classID, head.currentPriority, task, user, values)
            if job is not None:
                return job
        return dispatch.claim_head(connection, head.classID, request.task_id, request.user, values)

    def _turns(self) -> Sequence[str]:
        return ranking(self._policy, self._context.settings.workers)

    def _in_order(self, heads: list[Head], turns: Sequence[str]) -> list[Head]:
        return best_first(heads, self.request, {share: turn for turn, share in enumerate(turns)})

    def _what_bars(self, head: Head) -> list[Obstacle]:
        if self._hardware is None:
            self._hardware = hardware_of(self.queue.description)
        return obstacles(self.request, self._label, head, self._hardware)

    def _look_for_gpus_of(self, connection: Connection, heads: Iterable[Head]) -> None:
        """Ask what GPUs the pilot's node has; only jobs that need one are worth the question."""
        if not any(wants_gpu(head.architecture) for head in heads):
            return
        if self._hardware is None or not self._hardware.node_gpus:
            sites = {self.queue.name, *(str(self.queue.description.get(key)) for key in ("site", "atlas_site"))}
            gpus = information.read_gpus(connection, sites, host_of(self.request.node)) if self.request.node else []
            self._hardware = hardware_of(self.queue.description, gpus)
