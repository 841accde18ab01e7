"""The rules of the retry module, and the relations between jobs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from server.db.tables import job_relations, retry_errors


class Rule(NamedTuple):
    """A row of `retry_errors`."""

    ruleID: int
    action: str
    errorSource: str
    errorCode: int
    errorDiag: str
    active: bool
    parameters: Mapping[str, float]
    architecture: str
    release: str
    workQueue: str
    VO: str
    description: str | None
    creator: str
    modificationTime: float


class Relation(NamedTuple):
    """A row of `job_relations`."""

    PandaID: int
    parentID: int
    kind: str
    time: float


_RULE = tuple(retry_errors.c[name] for name in Rule._fields)
_RELATION = tuple(job_relations.c[name] for name in Relation._fields)


def find_rules(connection: Connection, codes: Collection[int]) -> list[Rule]:
    """The rules for any of these error codes, the oldest first."""
    query = select(*_RULE).where(retry_errors.c.errorCode.in_(codes)).order_by(retry_errors.c.ruleID)
    return [Rule._make(row) for row in connection.execute(query)]


def read_rules(connection: Connection) -> list[Rule]:
    """All rules, the oldest first."""
    return [Rule._make(row) for row in connection.execute(select(*_RULE).order_by(retry_errors.c.ruleID))]


def add_rule(connection: Connection, rule: Rule) -> Rule:
    """Store a rule; its number is made."""
    values = rule._asdict()
    del values["ruleID"]
    number = connection.execute(insert(retry_errors).values(values).returning(retry_errors.c.ruleID)).scalar_one()
    return rule._replace(ruleID=int(number))


def set_active(connection: Connection, rule_id: int, active: bool, now: float) -> bool:
    """Switch a rule on, or to passive; False if there is none of this number."""
    statement = update(retry_errors).where(retry_errors.c.ruleID == rule_id)
    return connection.execute(statement.values(active=active, modificationTime=now)).rowcount == 1


def remove_rule(connection: Connection, rule_id: int) -> bool:
    """Remove a rule; False if there is none of this number."""
    return connection.execute(delete(retry_errors).where(retry_errors.c.ruleID == rule_id)).rowcount == 1


def add_relation(connection: Connection, relation: Relation) -> None:
    """Note that a job comes from another."""
    connection.execute(insert(job_relations).values(relation._asdict()))


def find_parents(connection: Connection, job_id: int) -> list[Relation]:
    """The jobs that a job comes from."""
    query = select(*_RELATION).where(job_relations.c.PandaID == job_id).order_by(job_relations.c.parentID)
    return [Relation._make(row) for row in connection.execute(query)]


def find_children(connection: Connection, job_id: int) -> list[Relation]:
    """The jobs that come from a job."""
    query = select(*_RELATION).where(job_relations.c.parentID == job_id).order_by(job_relations.c.PandaID)
    return [Relation._make(row) for row in connection.execute(query)]
