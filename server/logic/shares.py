"""Operators' and the daemon's side of global shares: setting and showing them, counting what runs, tagging anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from server.db import dispatch, information, shares
from server.db.jobs import Value
from server.db.shares import Share, Usage
from server.db.tables import CLASS_COLUMNS, NO_SHARE, SHARE_LENGTH
from server.db.tables.share import RULE_COLUMNS
from server.logic.context import Context
from server.logic.errors import BadField
from server.logic.names import has_control_characters, shown
from server.logic.queues import CORE_POWER, power_of
from server.logic.sharetree import Node, ShareTree, facts_of, used

#: The daemon script that counts and tags.
SCRIPT = "global_shares"
#: More shares than this, and deeper, is a mistake; ATLAS has about 50 in four levels.
_MOST_SHARES = 1000
#: Largest value of a share: what all of them amount to must stay a number.
_LARGEST = 1e12
_DEEPEST = 10
_RULE_LENGTH = 256
_KEYS = frozenset({"value", "children", *RULE_COLUMNS})
#: Queued jobs looked at in one transaction: others may write in between.
_BATCH = 1000


def set_shares(context: Context, tree: Mapping[str, object]) -> int:
    """Put a tree of shares in the place of all others; the jobs that are queued get theirs anew within a minute.

    Args:
        tree: {name: {"value": number, "children": tree, and of shares without children a rule}}.

    Returns:
        How many shares there are.

    Raises:
        BadField: a share cannot be used; nothing was changed.
    """
    wanted = list(_read_tree(tree, None, 0))
    names = [share[0] for share in wanted]
    for name in names:
        if names.count(name) > 1:
            raise BadField("shares", f"has {shown(name)} twice: names must be unique in the whole tree")
    if len(wanted) > _MOST_SHARES:
        raise BadField("shares", f"has {len(wanted)} shares; {_MOST_SHARES} is the most")
    stored = [share._replace(position=position) for position, share in enumerate(wanted)]
    with context.database.durable() as connection:
        shares.replace_shares(connection, stored)
    context.policy.forget()
    context.bell.ring(SCRIPT)
    return len(stored)


def _read_tree(tree: Mapping[str, object], parent: str | None, depth: int) -> Iterator[Share]:
    if depth > _DEEPEST:
        raise BadField("shares", f"is deeper than {_DEEPEST} levels at {shown(parent)}")
    for name, content in tree.items():
        if not name or len(name) > SHARE_LENGTH or not name.isprintable() or name == NO_SHARE:
            why = f"a share cannot be called {shown(name)}: 1 to {SHARE_LENGTH} printable characters, not {NO_SHARE}"
            raise BadField("shares", f"has a bad name: {why}")
        where = f"shares.{name}"
        if not isinstance(content, dict):
            raise BadField(where, f'must be like {{"value": 10, "prodSourceLabel": "user"}}, not {shown(content)}')
        unknown = next((key for key in content if key not in _KEYS), None)
        if unknown is not None:
            raise BadField(f"{where}.{unknown}", f"is not known; a share has {', '.join(sorted(_KEYS))}")
        value = content.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
            raise BadField(f"{where}.value", f"must be a number between 0 and {_LARGEST:g}, not {shown(value)}")
        children = content.get("children", {})
        if not isinstance(children, dict):
            raise BadField(f"{where}.children", f"must be shares by name, not {shown(children)}")
        rule = {column: _expression(f"{where}.{column}", content.get(column)) for column in RULE_COLUMNS}
        if children and any(rule.values()):
            raise BadField(where, "has children and a rule: only shares without children have jobs of their own")
        yield Share(name=name, parent=parent, position=0, value=float(value), **rule)
        yield from _read_tree(children, name, depth + 1)


def _expression(where: str, text: object) -> str | None:
    if text is None or text == "":
        return None
    if not isinstance(text, str) or len(text) > _RULE_LENGTH or has_control_characters(text):
        raise BadField(where, f"must be a regular expression of at most {_RULE_LENGTH} characters, not {shown(text)}")
    try:
        re.compile(text)
    except re.error as error:
        raise BadField(where, f"is no regular expression: {error}") from None
    return text


def read_tree(context: Context) -> dict[str, object]:
    """The shares in the form in which they are set."""
    with context.database.reading() as connection:
        tree = ShareTree(shares.read_shares(connection))
    return _as_given(tree.roots)


def _as_given(nodes: list[Node]) -> dict[str, object]:
    found: dict[str, object] = {}
    for node in nodes:
        entry: dict[str, object] = {"value": node.share.value}
        entry |= {column: text for column in RULE_COLUMNS if (text := getattr(node.share, column))}
        if node.children:
            entry["children"] = _as_given(node.children)
        found[node.name] = entry
    return found


def list_shares(context: Context) -> list[dict[str, object]]:
    """A line for each share, parents before their children, with its target and what its jobs use.

    Returns:
        name, parent, depth, value; target_percent of everything; target_hs06 and hs06 in use; running and queued jobs,
        cores in use. What belongs to no share is a line of its own, if there is any. Counted about every half minute.
    """
    with context.database.reading() as connection:
        tree = ShareTree(shares.read_shares(connection))
        usage = {share.gshare: share for share in shares.read_usage(connection)}
    total = sum(share.hs06 for share in usage.values())
    lines = [_line(node, usage, total) for node in tree.walk()]
    known = {node.name for node in tree.walk()}
    lines += [
        {
            "name": name,
            "parent": None,
            "depth": 0,
            "value": 0.0,
            "target_percent": 0.0,
            "target_hs06": 0.0,
            **{key: getattr(share, key) for key in ("hs06", "cores", "running", "queued")},
        }
        for name, share in sorted(usage.items())
        if name not in known
    ]
    return lines


def _line(node: Node, usage: Mapping[str, Usage], total: float) -> dict[str, object]:
    sums = {
        key: used(node, {name: getattr(share, key) for name, share in usage.items()})
        for key in ("hs06", "cores", "running", "queued")
    }
    return {
        "name": node.name,
        "parent": node.share.parent,
        "depth": node.depth,
        "value": node.share.value,
        "target_percent": round(100 * node.target, 2),
        "target_hs06": round(total * node.target, 1),
        "hs06": sums["hs06"],
        **{key: int(sums[key]) for key in ("cores", "running", "queued")},
    }


def count_jobs(context: Context) -> None:
    """Count what runs and what is queued of each share."""
    now = context.clock()
    with context.database.reading() as connection:
        running = shares.count_running(connection)
        queued = shares.count_queued(connection)
        powers = {queue.name: power_of(queue.description) for queue in information.read_queues(connection)}
    found = {share: Usage(share, 0, 0, 0.0, queued.get(share, 0), now) for share in {NO_SHARE, *queued}}
    for (queue, name), (number, cores) in running.items():
        share = found.get(name, Usage(name, 0, 0, 0.0, 0, now))
        hs06 = share.hs06 + cores * powers.get(queue, CORE_POWER)
        found[name] = share._replace(running=share.running + number, cores=share.cores + cores, hs06=hs06)
    with context.database.relaxed() as connection:
        shares.replace_usage(connection, list(found.values()))


def tag_anew(context: Context) -> bool:
    """Give queued jobs the shares they have by the present rules, some thousand at a time.

    Returns:
        Whether there are more to look at.
    """
    with context.database.durable() as connection:
        after = shares.retag_from(connection)
        if after is None:
            return False
        tree = ShareTree(shares.read_shares(connection))
        queued = shares.find_queued(connection, after, _BATCH)
        ids = [int(job["PandaID"] or 0) for job in queued]
        definitions = shares.read_definitions(connection, ids) if tree.reads_definitions else {}
        now = context.clock()
        classes: dict[tuple[Value, ...], int] = {}
        for job_id, job in zip(ids, queued, strict=True):
            share = tree.share_of(facts_of(job, definitions.get(job_id, {})))
            requirements = {**{name: job[name] for name in CLASS_COLUMNS}, "gshare": share}
            key = tuple(requirements.values())
            if job["jobStatus"] == "activated" and key not in classes:
                classes[key] = dispatch.class_of(connection, requirements, now)
            class_id = classes[key] if job["jobStatus"] == "activated" else None
            if (share, class_id) != (job["gshare"], job["classID"]):
                shares.move_job(connection, job, share, class_id)
        last = ids[-1] if len(ids) == _BATCH else None
        return not shares.note_tagged(connection, after, last) or last is not None
