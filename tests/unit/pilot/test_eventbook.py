"""The event ranges of one job, when outputs cannot be stored, the server does not listen, or the payload lies."""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import ESRecoverable, MessageFailure, PilotException, StageOutFailure
from pilot.control.events import EventBook
from pilot.control.eventsource import EventHelpers, EventSource, Group, RangesAnswer
from pilot.control.jobrun import JobRun
from pilot.eventservice.esprocess.esmessage import parse_out_message
from pilot.info.filespec import FileSpec
from pilot.info.jobdata import JobData
from pilot.util.https import Json, RequestFailed
from tests.unit.pilot.builders import SETTINGS, context, job_run

NEVER = threading.Event()


class Server(EventSource):
    """An event service that a test has in its hand. away: does not answer; answer: to the next reports."""

    def __init__(self, number: int) -> None:
        self.left = [
            {"eventRangeID": f"1-2-3-{n}-1", "startEvent": 2 * n, "lastEvent": 2 * n + 1} for n in range(number)
        ]
        self.away = False
        self.answer = RangesAnswer()
        self.told: list[tuple[str, str]] = []
        self.archives: list[Json] = []

    def _check(self) -> None:
        if self.away:
            raise RequestFailed("no answer", temporary=True)

    def get(self, job: JobData, number: int) -> list[dict[str, Json]]:
        self._check()
        given, self.left = self.left[:number], self.left[number:]
        return [dict(one) for one in given]

    def update(self, job: JobData, groups: Sequence[Group]) -> RangesAnswer:
        self._check()
        for group in groups:
            ranges = group["eventRanges"]
            assert isinstance(ranges, list)
            self.told += [
                (str(one["eventRangeID"]), str(one["eventStatus"])) for one in ranges if isinstance(one, dict)
            ]
            if "zipFile" in group:
                self.archives.append(group["zipFile"])
        return self.answer

    @property
    def knows_places(self) -> bool:
        return True


class Bench:
    """A job with ranges, a server, and a storage that a test may break."""

    def __init__(self, tmp_path: Path, number: int = 3, **settings: float) -> None:
        quick = {"event_save_gap": 0.0, "event_update": 0.0, **settings}
        pilot = replace(SETTINGS.pilot, final_update_patience=0.5, retry_delay=0.01)
        changed = replace(SETTINGS, payload=replace(SETTINGS.payload, **quick), pilot=pilot)
        made = context(tmp_path, settings=changed)
        self.run = job_run(made.workdir / "job")
        self.run.workdir.mkdir()
        self.server = Server(number)
        self.broken = False
        self.members: dict[str, str] = {}
        self.aborted: list[int] = []
        helpers = EventHelpers(self._save, lambda run, error, grace: self.aborted.append(error.code))
        self.book = EventBook(made, self.run, self.server, helpers, inside="/srv/workDir")

    def _save(self, run: JobRun, files: list[FileSpec], cancel: threading.Event) -> None:
        if self.broken:
            raise StageOutFailure("the storage is away")
        with tarfile.open(run.workdir / files[0].lfn) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                assert stream is not None
                self.members[member.name] = stream.read().decode()
        files[0].ddmendpoint = "SITE_DISK"

    def take(self, number: int = 1) -> list[str]:
        return [str(one["eventRangeID"]) for one in self.book.get_event_ranges(number)]

    def say(self, text: str) -> None:
        self.book.handle_out_message(parse_out_message(text))

    def done(self, range_id: str, name: str = "out", text: str = "x") -> None:
        path = self.run.workdir / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.say(f"{name},{range_id},CPU:1,WALL:1")


def test_an_output_that_cannot_be_stored_now_is_stored_later(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (one,) = bench.take()
    bench.broken = True
    bench.done(one)
    bench.book.look()
    assert bench.server.told == [(one, "running")] or bench.server.told == []
    assert bench.book.unstored() == ["out"]
    bench.broken = False
    bench.book.finish(NEVER)
    assert (one, "finished") in bench.server.told
    assert (bench.members, bench.book.unstored()) == ({"out": "x"}, [])
    assert not (bench.run.workdir / "out").exists(), "it is stored, and takes no more space"
    assert bench.run.figures["nEvents"] == "2"


def test_a_storage_that_stays_away_is_the_jobs_error_and_the_range_is_not_finished(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (one,) = bench.take()
    bench.done(one)
    bench.broken = True
    with pytest.raises(StageOutFailure, match="the storage is away"):
        bench.book.finish(NEVER)
    assert (one, "finished") not in bench.server.told
    assert (bench.run.workdir / "out").exists()


def test_reports_that_were_lost_are_sent_again_in_order(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    one, other = bench.take(2)
    bench.server.away = True
    bench.say(f"ERR_X {one}: why")
    bench.book.look()
    bench.done(other)
    bench.book.look()
    assert bench.server.told == []
    bench.server.away = False
    with pytest.raises(ESRecoverable):
        bench.book.finish(NEVER)
    assert bench.server.told == [(one, "running"), (other, "running"), (one, "failed"), (other, "finished")]


def test_a_server_that_never_answers_again_costs_no_more_than_patience_and_the_job_has_failed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (one,) = bench.take()
    bench.server.away = True
    bench.done(one)
    with pytest.raises(RequestFailed, match="no answer"):
        bench.book.finish(NEVER)
    assert bench.members == {"out": "x"}


def test_a_server_that_is_away_lets_the_payload_wait(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.server.away = True
    with pytest.raises(ESRecoverable):
        bench.take()
    bench.server.away = False
    assert len(bench.take()) == 1


def test_a_job_that_ends_in_a_hurry_asks_nobody(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (one,) = bench.take()
    bench.done(one)
    bench.run.lifecycle.errors.append(PilotException("SIGTERM", code=ErrorCodes.SIGTERM))
    bench.book.finish(NEVER)
    assert (bench.server.told, bench.members) == ([], {})


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "link", "folder", "missing", "/srv/workDir/../x"])
def test_an_output_outside_of_the_jobs_directory_is_none(tmp_path: Path, name: str) -> None:
    bench = Bench(tmp_path)
    (bench.run.workdir.parent / "outside").write_text("secret")
    (bench.run.workdir / "link").symlink_to("/etc/passwd")
    (bench.run.workdir / "folder").mkdir()
    (one,) = bench.take()
    bench.say(f"{name},{one},CPU:1,WALL:1")
    with pytest.raises(ESRecoverable, match="is no file in the job's directory"):
        bench.book.finish(NEVER)
    assert (bench.server.told[-1], bench.members) == ((one, "failed"), {})


def test_names_are_those_that_the_payload_sees_and_two_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    one, other = bench.take(2)
    for folder, range_id in (("a", one), ("b", other)):
        path = bench.run.workdir / folder / "out"
        path.parent.mkdir()
        path.write_text(folder)
        bench.say(f"/srv/workDir/{folder}/out,{range_id},CPU:1,WALL:1")
    bench.book.finish(NEVER)
    assert bench.members == {"out": "a", f"{other}.out": "b"}
    assert len(bench.server.archives) == 1
    archive = bench.server.archives[0]
    assert isinstance(archive, dict) and archive["numEvents"] == 2


def test_no_output_of_a_range_takes_anothers_place_in_the_archive(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    one, other = bench.take(2)
    for folder in "abcd":
        path = bench.run.workdir / folder / "out"
        path.parent.mkdir()
        path.write_text(folder)
    bench.say(f"a/out,b/out,c/out,{one},CPU:1,WALL:1")
    bench.say(f"a/out,d/out,{other},CPU:1,WALL:1")
    bench.book.finish(NEVER)
    assert bench.members == {"out": "a", f"{one}.out": "b", f"{one}.2.out": "c", f"{other}.out": "d"}


def test_an_output_that_is_removed_again_fails_its_range_and_no_other(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    one, other = bench.take(2)
    bench.done(one, "first")
    bench.done(other, "second")
    (bench.run.workdir / "first").unlink()
    with pytest.raises(ESRecoverable, match="of 2 event ranges 1 failed"):
        bench.book.finish(NEVER)
    assert [told for told in bench.server.told if told[1] != "running"] == [(one, "failed"), (other, "finished")]
    assert bench.members == {"second": "x"}


def test_a_range_is_answered_for_once_and_only_by_who_has_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (one,) = bench.take()
    bench.done(one)
    for text in (f"ERR_X {one}: after all", "out,9-9-9-9-9,CPU:1,WALL:1"):
        with pytest.raises(MessageFailure, match="which it has not, or not any more"):
            bench.say(text)
    bench.book.finish(NEVER)
    assert [told for told in bench.server.told if told[1] != "running"] == [(one, "finished")]


def test_a_soft_kill_stops_new_ranges_and_lets_the_others_be_done(tmp_path: Path) -> None:
    bench = Bench(tmp_path, number=5)
    (one,) = bench.take()
    bench.server.answer = RangesAnswer([True], "softkill")
    bench.done(one)
    bench.book.look()
    bench.book.look()
    assert bench.take() == []
    assert (bench.aborted, bench.book.verdict()) == ([], None)


def test_a_kill_order_ends_the_job(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.take()
    bench.server.answer = RangesAnswer([False], "tobekilled")
    bench.book.look()
    assert bench.aborted == [ErrorCodes.PANDAKILL]
