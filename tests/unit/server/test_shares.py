"""Global shares: tagging, whose turn it is, what is counted, and what operators see and set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from server.db import shares as share_records
from server.db import tables
from server.db.shares import Share
from server.logic import queues, shares
from server.logic.errors import BadField
from server.logic.sharetree import Facts, ShareTree
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import Dispatcher, dispatcher_in

#: Production has 3/4 of everything, and MC 2/3 of that.
TREE: dict[str, object] = {
    "Production": {
        "value": 60,
        "children": {
            "MC": {"value": 40, "prodSourceLabel": "managed", "processingType": "simul|evgen"},
            "Reprocessing": {"value": 20, "prodSourceLabel": "managed"},
        },
    },
    "Analysis": {"value": 20, "prodSourceLabel": "user|panda"},
}
KINDS: dict[str, dict[str, object]] = {
    "MC": {"label": "managed", "processingType": "simul"},
    "Reprocessing": {"label": "managed", "processingType": "reco"},
    "Analysis": {"label": "user"},
}


@pytest.fixture
def dispatcher(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[Dispatcher]:
    """With one web worker, which knows all that was handed out."""
    with dispatcher_in(tmp_path, empty_database, workers=1) as made:
        yield made


def gshare(dispatcher: Dispatcher, job_id: int) -> str:
    return str(dispatcher.job(job_id)["gshare"])


def take(dispatcher: Dispatcher, number: int, **request: object) -> list[str]:
    """The shares of the next jobs, each asked for by itself."""
    return [
        gshare(dispatcher, int(str(dispatcher.get_job(label="unified", **request)["PandaID"]))) for _ in range(number)
    ]


def by_priority(number: int) -> list[dict[str, object]]:
    """Jobs each of which is more urgent than the one before."""
    return [{"priority": priority} for priority in range(number)]


def count(dispatcher: Dispatcher) -> None:
    """What the daemon does, and the time it takes until it is noticed."""
    while shares.tag_anew(dispatcher.context):
        pass
    shares.count_jobs(dispatcher.context)
    dispatcher.clock.now += 60


def share(name: str, parent: str | None = None, value: float = 1.0, rule: dict[str, str] | None = None) -> Share:
    columns = {column: (rule or {}).get(column) for column in tables.share.RULE_COLUMNS}
    return Share(name, parent, 0, value, **columns)


# ---- the tree


def test_targets_are_parts_of_the_parents_and_add_up() -> None:
    tree = ShareTree([share("a", value=3), share("b", value=1), share("a1", "a", 2), share("a2", "a", 1)])
    assert {node.name: node.target for node in tree.walk()} == {"a": 0.75, "a1": 0.5, "a2": 0.25, "b": 0.25}
    assert sum(leaf.target for leaf in tree.leaves) == pytest.approx(1)


@pytest.mark.parametrize(
    ("usage", "ranking"),
    [
        ({}, ["a1", "a2", "b"]),  # nothing runs: the largest first
        ({"a1": 10.0}, ["b", "a2", "a1"]),  # a has 10 of 75, b nothing
        ({"a1": 50.0, "b": 50.0}, ["a2", "a1", "b"]),  # siblings first: what a2 leaves is a1's, not b's
        ({"a1": 90.0, "b": 10.0}, ["b", "a2", "a1"]),
        ({"Undefined": 1000.0}, ["a1", "a2", "b"]),
    ],
)
def test_the_share_furthest_below_its_target_comes_first_and_siblings_borrow_first(
    usage: dict[str, float], ranking: list[str]
) -> None:
    tree = ShareTree([share("a", value=3), share("b", value=1), share("a1", "a", 2), share("a2", "a", 1)])
    assert tree.ranking(usage) == ranking


def test_a_share_without_a_target_comes_last_and_test_comes_first() -> None:
    tree = ShareTree([share("none", value=0), share("a"), share("Test", value=1)])
    assert tree.ranking({"a": 1.0, "Test": 1e9}) == ["Test", "a", "none"]


@pytest.mark.parametrize(
    ("column", "expression", "fits", "fits_not"),
    [
        ("prodSourceLabel", "user|panda", "panda", "pandas"),
        ("workingGroup", "AP_(?!REPR).*", "AP_HIGG", "AP_REPR"),
        ("campaign", "MC2[34].*", "MC23a", "mc23a"),
        ("processingType", "simul", "simul", "simulation"),
        ("transPath", ".*Sim_tf.py", "http://x/Sim_tf.py", "Sim_tf_py3"),
        ("resource_type", ".*_HIMEM", "SCORE_HIMEM", "SCORE"),
    ],
)
def test_each_attribute_is_matched_as_a_whole(column: str, expression: str, fits: str, fits_not: str) -> None:
    tree = ShareTree(
        [share("it", rule={column: expression}), share("no rule, no jobs"), share("rest", rule={"transPath": ".*"})]
    )
    plain = Facts("x", "x", "x", "x", "x", "x")
    assert tree.share_of(replace(plain, **{column: fits})) == "it"
    assert tree.share_of(replace(plain, **{column: fits_not})) == "rest"
    assert ShareTree([]).share_of(plain) == "Undefined"


def test_the_first_share_whose_whole_rule_fits_gets_the_job() -> None:
    tree = ShareTree(
        [share("one", rule={"prodSourceLabel": "a", "workingGroup": "b"}), share("two", rule={"prodSourceLabel": "a"})]
    )
    assert tree.share_of(Facts("a", "b", "", "", "", "")) == "one"
    assert tree.share_of(Facts("a", "c", "", "", "", "")) == "two"


# ---- tagging


def test_jobs_are_tagged_when_they_are_submitted(dispatcher: Dispatcher) -> None:
    shares.set_shares(dispatcher.context, {**TREE, "Data": {"value": 1, "campaign": "data.*", "transPath": ".*/x"}})
    made = dispatcher.submit(*KINDS.values(), {"campaign": "data26", "transformation": "http://s/x"}, {"label": "odd"})
    assert [gshare(dispatcher, job) for job in made] == ["MC", "Reprocessing", "Analysis", "Data", "Undefined"]


def test_queued_jobs_get_their_shares_anew_when_shares_change_and_others_keep_theirs(dispatcher: Dispatcher) -> None:
    waiting, started, queued = dispatcher.submit(
        {"inputs": ["not.yet"], "campaign": "c"}, {"label": "user", "campaign": "c"}, {"label": "user", "campaign": "c"}
    )
    assert dispatcher.get_job()["PandaID"] == started
    shares.set_shares(dispatcher.context, {"A": {"value": 1, "campaign": "c"}})
    assert dispatcher.bell.rung[-1] == shares.SCRIPT
    count(dispatcher)
    assert [gshare(dispatcher, job) for job in (waiting, started, queued)] == ["A", "Undefined", "A"]
    assert take(dispatcher, 1) == ["A"]
    assert dispatcher.no_job(label="unified").reason == "waiting_for_inputs"


def test_the_next_attempt_has_the_share_of_todays_rules(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"label": "user", "campaign": "c", "max_attempts": 2})
    dispatcher.get_job()
    shares.set_shares(dispatcher.context, {"A": {"value": 1, "campaign": "c"}})
    dispatcher.fail(job)
    assert gshare(dispatcher, job) == "A"
    count(dispatcher)
    assert take(dispatcher, 1) == ["A"]


def test_a_job_that_moved_meanwhile_keeps_its_class(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"label": "user"})
    with dispatcher.context.database.durable() as connection:
        (job,) = share_records.find_queued(connection, 0, 10)
        seen_elsewhere = {**job, "computingSite": "OTHER"}
        assert not share_records.move_job(connection, seen_elsewhere, "A", None)
        assert share_records.move_job(connection, job, "A", None)


def test_many_queued_jobs_are_tagged_piece_by_piece(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "_BATCH", 3)
    made = dispatcher.submit(*by_priority(8))
    shares.set_shares(dispatcher.context, {"A": {"value": 1, "processingType": ".*"}})
    assert shares.tag_anew(dispatcher.context)
    assert [gshare(dispatcher, job) for job in made].count("A") == 3
    shares.set_shares(dispatcher.context, {"B": {"value": 1, "processingType": ".*"}})  # it begins anew
    count(dispatcher)
    assert {gshare(dispatcher, job) for job in made} == {"B"}
    assert not shares.tag_anew(dispatcher.context)


# ---- whose turn it is


def test_jobs_go_out_in_the_proportion_of_the_targets(dispatcher: Dispatcher) -> None:
    shares.set_shares(dispatcher.context, TREE)
    dispatcher.submit(*[kind for kind in KINDS.values() for _ in range(40)])
    assert Counter(take(dispatcher, 40)) == {"MC": 20, "Reprocessing": 10, "Analysis": 10}
    count(dispatcher)  # what was counted by itself and what the daemon counts agree
    assert Counter(take(dispatcher, 16)) == {"MC": 8, "Reprocessing": 4, "Analysis": 4}


def test_siblings_borrow_what_a_share_leaves_before_others_do(dispatcher: Dispatcher) -> None:
    shares.set_shares(dispatcher.context, TREE)
    dispatcher.submit(*[kind for name, kind in KINDS.items() if name != "MC" for _ in range(40)])
    assert Counter(take(dispatcher, 40)) == {"Reprocessing": 30, "Analysis": 10}
    assert Counter(take(dispatcher, 20))["Analysis"] >= 10  # and at last anybody


def test_use_is_weighed_by_cores_and_core_power(dispatcher: Dispatcher) -> None:
    shares.set_shares(dispatcher.context, TREE)
    queues.add_queues(dispatcher.context, {"STRONG": {"corepower": 40}})
    kinds = [{**KINDS["Reprocessing"], "cores": 8, "queue": "STRONG"}, {**KINDS["Analysis"], "cores": 1}]
    dispatcher.submit(*[kind for kind in kinds for _ in range(3)])
    assert take(dispatcher, 1, queue="STRONG") == ["Reprocessing"]
    count(dispatcher)
    (line,) = (line for line in shares.list_shares(dispatcher.context) if line["name"] == "Reprocessing")
    assert (line["running"], line["cores"], line["hs06"], line["queued"]) == (1, 8, 320.0, 2)
    assert take(dispatcher, 3) == ["Analysis"] * 3


def test_within_a_share_priority_comes_first_and_then_age(dispatcher: Dispatcher) -> None:
    shares.set_shares(dispatcher.context, TREE)
    ours = KINDS["Analysis"]
    low, high, also = dispatcher.submit(
        {**ours, "priority": 1}, {**ours, "priority": 5, "memory": 7}, {**ours, "priority": 5}
    )
    (urgent,) = dispatcher.submit({"priority": 9999, **KINDS["Reprocessing"]})
    assert [dispatcher.get_job()["PandaID"] for _ in range(3)] == [high, also, low]
    assert dispatcher.get_job(label="unified")["PandaID"] == urgent


def test_urgency_does_not_reach_over_shares(dispatcher: Dispatcher) -> None:
    shares.set_shares(dispatcher.context, TREE)
    dispatcher.submit({**KINDS["Analysis"], "priority": 9999}, {**KINDS["MC"], "priority": 1})
    assert take(dispatcher, 2) == ["MC", "Analysis"]


def test_several_jobs_a_call_keep_to_the_shares_too(dispatcher: Dispatcher) -> None:
    shares.set_shares(dispatcher.context, TREE)
    dispatcher.submit(*[kind for kind in KINDS.values() for _ in range(10)])
    found = dispatcher.ask(number=8, label="unified")
    assert isinstance(found, list)
    assert Counter(gshare(dispatcher, int(str(job["PandaID"]))) for job in found) == {
        "MC": 4,
        "Reprocessing": 2,
        "Analysis": 2,
    }


def test_what_belongs_to_no_share_comes_last_but_it_comes(dispatcher: Dispatcher) -> None:
    shares.set_shares(dispatcher.context, TREE)
    dispatcher.submit({"label": "unknown", "priority": 9999}, {"label": "panda"})
    assert take(dispatcher, 1) == ["Analysis"]
    assert gshare(dispatcher, int(str(dispatcher.get_job(label="unknown")["PandaID"]))) == "Undefined"


def test_a_job_is_found_in_whichever_of_many_shares_it_is(dispatcher: Dispatcher) -> None:
    """The shares whose turn it is have no job that fits: the others are looked at, too."""
    names = [f"S{number:02}" for number in range(50)]
    shares.set_shares(
        dispatcher.context, {name: {"value": 50 - n, "processingType": name} for n, name in enumerate(names)}
    )
    dispatcher.submit(*[{"processingType": name, "memory": 4000} for name in names[:-1]])
    (small,) = dispatcher.submit({"processingType": names[-1], "memory": 100})
    assert dispatcher.get_job(memory=1000)["PandaID"] == small
    assert dispatcher.no_job(memory=1000).reason == "memory"
    assert take(dispatcher, 49) == names[:-1]


def test_now_and_then_the_oldest_job_comes_first_whatever_its_share(dispatcher: Dispatcher) -> None:
    shares.set_shares(dispatcher.context, TREE)
    made = dispatcher.submit({"priority": -5, "memory": 3000}, {"priority": 1}, {**KINDS["MC"]}, {"priority": 3})
    lucky = Dispatcher(replace(dispatcher.context, dice=lambda: 0.1), dispatcher.clock, dispatcher.bell)
    unlucky = Dispatcher(replace(dispatcher.context, dice=lambda: 0.11), dispatcher.clock, dispatcher.bell)
    assert lucky.get_job(label="unified", memory=2000)["PandaID"] == made[1]
    assert unlucky.get_job(label="unified")["PandaID"] == made[2]
    assert lucky.get_job(label="unified")["PandaID"] == made[0]
    assert lucky.ask(number=5, label="unified")[0]["PandaID"] == made[3]  # type: ignore[index]
    assert lucky.no_job(label="unified").reason == "nothing_queued"


@pytest.mark.parametrize(("ratio", "expected"), [("-1", 3), ("100", 0), ("nonsense", 3)])
def test_how_often_age_comes_first_is_a_setting(dispatcher: Dispatcher, ratio: str, expected: int) -> None:
    with dispatcher.context.database.durable() as connection:
        row = {"application": "pandaserver", "component": "dispatch", "key": "SLOPPY_DISPATCH_RATIO", "vo": ""}
        connection.execute(tables.config.insert().values(**row, value=ratio, type="int"))
    made = dispatcher.submit(*by_priority(4))
    eager = Dispatcher(replace(dispatcher.context, dice=lambda: 0.1), dispatcher.clock, dispatcher.bell)
    assert eager.get_job()["PandaID"] == made[expected]


def test_without_shares_priority_alone_decides(dispatcher: Dispatcher) -> None:
    made = dispatcher.submit(*by_priority(4))
    eager = Dispatcher(replace(dispatcher.context, dice=lambda: 0.0), dispatcher.clock, dispatcher.bell)
    assert [eager.get_job()["PandaID"] for _ in made] == made[::-1]


# ---- what is counted and shown


def test_the_list_is_the_tree_with_targets_and_what_is_used(dispatcher: Dispatcher) -> None:
    shares.set_shares(dispatcher.context, TREE)
    dispatcher.submit(*KINDS.values(), {**KINDS["MC"]}, {"label": "odd"})
    take(dispatcher, 2)
    count(dispatcher)
    lines = {line["name"]: line for line in shares.list_shares(dispatcher.context)}
    assert list(lines) == ["Production", "MC", "Reprocessing", "Analysis", "Undefined"]
    assert [line["depth"] for line in lines.values()] == [0, 1, 1, 0, 0]
    assert [line["target_percent"] for line in lines.values()] == [75.0, 50.0, 25.0, 25.0, 0.0]
    assert lines["Production"]["target_hs06"] == 15.0
    assert (lines["Production"]["running"], lines["Production"]["queued"]) == (1, 2)
    assert (lines["Analysis"]["running"], lines["Analysis"]["queued"]) == (1, 0)
    assert (lines["Undefined"]["running"], lines["Undefined"]["queued"]) == (0, 1)


def test_what_was_set_can_be_read_and_set_again(dispatcher: Dispatcher) -> None:
    assert shares.set_shares(dispatcher.context, TREE) == 4
    found = shares.read_tree(dispatcher.context)
    assert found == TREE
    assert shares.set_shares(dispatcher.context, found) == 4
    assert shares.set_shares(dispatcher.context, {}) == 0
    assert shares.read_tree(dispatcher.context) == {}


@pytest.mark.parametrize(
    ("tree", "field"),
    [
        ({"a": 5}, "shares.a"),
        ({"a": {}}, "shares.a.value"),
        ({"a": {"value": True}}, "shares.a.value"),
        ({"a": {"value": -1}}, "shares.a.value"),
        ({"a": {"value": float("inf")}}, "shares.a.value"),
        ({"a": {"value": 1e308}, "b": {"value": 1e308}}, "shares.a.value"),
        ({"a": {"value": 1, "colour": "red"}}, "shares.a.colour"),
        ({"a": {"value": 1, "workingGroup": "("}}, "shares.a.workingGroup"),
        ({"a": {"value": 1, "workingGroup": "x" * 257}}, "shares.a.workingGroup"),
        ({"a": {"value": 1, "children": []}}, "shares.a.children"),
        ({"a": {"value": 1, "campaign": "x", "children": {"b": {"value": 1}}}}, "shares.a"),
        ({"a": {"value": 1, "children": {"a": {"value": 1}}}}, "shares"),
        ({"": {"value": 1}}, "shares"),
        ({"x" * 33: {"value": 1}}, "shares"),
        ({"Undefined": {"value": 1}}, "shares"),
    ],
)
def test_a_tree_that_cannot_be_used_is_refused_and_changes_nothing(
    dispatcher: Dispatcher, tree: dict[str, object], field: str
) -> None:
    shares.set_shares(dispatcher.context, TREE)
    with pytest.raises(BadField) as caught:
        shares.set_shares(dispatcher.context, tree)
    assert caught.value.field == field
    assert shares.read_tree(dispatcher.context) == TREE


def test_queued_jobs_are_found_by_number_whatever_their_states_and_no_state_is_sorted(dispatcher: Dispatcher) -> None:
    forms: list[dict[str, object]] = [{}, {"inputs": ["nobody.makes"]}]
    ids = dispatcher.submit(*forms * 3)
    assert [dispatcher.status(job) for job in ids[:2]] == ["activated", "assigned"]
    dispatcher.get_job()
    with dispatcher.context.database.reading() as connection:
        assert [row["PandaID"] for row in share_records.find_queued(connection, ids[0] - 1, 3)] == ids[1:4]
        assert [row["PandaID"] for row in share_records.find_queued(connection, ids[3], 3)] == ids[4:]
        literal = share_records._FIND_QUEUED.params(after=5, most=9).compile(
            dialect=connection.dialect, compile_kwargs={"literal_binds": True}
        )
        if connection.dialect.name == "sqlite":
            plan = [str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {literal}")]
            walks = "SEARCH jobs USING INDEX jobs_by_status (jobStatus=? AND PandaID>?)"
            # what is sorted then are the first few of each state
            assert (plan.count(walks), [line for line in plan if "SCAN jobs" in line]) == (5, []), plan
        else:  # its tables are nearly empty, where reading all of them is cheapest
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            plan = [str(row[0]).strip() for row in connection.exec_driver_sql(f"EXPLAIN {literal}")]
            assert len([line for line in plan if "jobs_by_status" in line or "jobs_pkey" in line]) == 5, plan
