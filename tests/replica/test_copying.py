"""What is in the file comes to the server, once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bluesky_beamtime import Beamtime, SampleMetadata
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.errors import (
    BeamtimeFileError,
    BeamtimeWarning,
    NewerVersionError,
    ReadOnlyError,
    RunStateError,
    ServerError,
)
from bluesky_beamtime.testing import assert_documents_equal

from .conftest import caught_up, make_rich_run, make_run, record, wait_for


def test_documents_come_back_from_the_server_as_they_went_in(beamtime, url) -> None:
    docs = [make_run(), make_rich_run(), make_run(3, scan_id=9)]
    for each in docs:
        record(beamtime, each)
    caught_up(beamtime)
    with Beamtime(url, mode="r") as reader:
        assert len(reader) == 3
        for each in docs:
            run = reader[each[0][1]["uid"]]
            assert_documents_equal(run.documents(), each)
            assert run.complete
            assert run.sample == SampleMetadata("LaB6", id=run.sample.id)


def test_a_run_is_seen_while_it_goes_on_and_ends_after_its_events(
    beamtime, url
) -> None:
    docs = make_run(50)
    record(beamtime, docs[:20])
    caught_up(beamtime)
    with Beamtime(url, mode="r") as reader:
        run = reader[-1]
        assert (run.exit_status, run.num_events) == (None, 18)
        assert_documents_equal(run.documents(), docs[:20])
        record(beamtime, docs[20:])
        wait_for(lambda: run.stop is not None)
        # Whoever sees the end sees all.
        assert_documents_equal(run.documents(), docs)
        assert run.exit_status == "success"
        assert run.num_events == 50


def test_what_is_changed_afterwards_follows(beamtime, url, ask) -> None:
    uid = record(beamtime, make_run(tags=["a", "b"]))
    caught_up(beamtime)
    run = beamtime[uid]
    run.tag("c")
    run.untag("a")
    run.star()
    run.note("the shutter was closed", author="me")
    beamtime.note("a good beamtime")
    beamtime.sample = {"name": "LaB6", "formula": "LaB6", "serial": "7"}
    caught_up(beamtime)
    with Beamtime(url, mode="r") as reader:
        there = reader[uid]
        assert there.tags == ["b", "c"]
        assert there.starred
        assert [note.text for note in there.notes] == ["the shutter was closed"]
        assert [note.text for note in reader.notes] == ["a good beamtime"]
        assert there.sample == beamtime[uid].sample
        assert reader.samples["LaB6"].formula == "LaB6"
        assert len(reader.search(text="shutter")) == 1
        assert len(reader.samples["LaB6"].history) == len(
            beamtime.samples["LaB6"].history
        )


def test_the_local_record_is_an_ordinary_beamtime(beamtime, tmp_path, url) -> None:
    docs = make_run()
    record(beamtime, docs)
    with Beamtime(beamtime.path, mode="r") as reader:
        assert_documents_equal(reader[-1].documents(), docs)
    assert beamtime.path.parent == tmp_path
    assert "replica: " in repr(beamtime)


def test_a_file_that_has_runs_is_copied_and_followed(tmp_path, url) -> None:
    docs = [make_run(scan_id=n) for n in range(30)]
    with Beamtime(tmp_path / "x.db") as beamtime:
        for each in docs[:20]:
            record(beamtime, each)
        replica = beamtime.replicate_to(url)
        assert beamtime.replica is replica
        for each in docs[20:]:
            record(beamtime, each)
        caught_up(beamtime)
        assert replica.progress.caught_up
        with pytest.raises(RunStateError, match="follows already"):
            beamtime.replicate_to(url)
    with Beamtime(url, mode="r") as reader:
        assert [run.scan_id for run in reader] == list(range(30))[::-1]
    with (
        Beamtime(tmp_path / "x.db", mode="r") as reader,
        pytest.raises(ReadOnlyError),
    ):
        reader.replicate_to(url)


def test_two_machines_come_together_in_the_order_of_time(tmp_path, url) -> None:
    docs = [make_run(scan_id=n, sample="Si") for n in range(6)]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        Beamtime(url, spool=tmp_path / "one") as one,
        Beamtime(url, spool=tmp_path / "two") as two,
    ):
        # The second machine's come later, though some began before.
        for each in docs[::2]:
            record(one, each)
        caught_up(one)
        for each in docs[1::2]:
            record(two, each)
        caught_up(two)
        assert len(one) == len(two) == 3
    with Beamtime(url, mode="r") as reader:
        assert [run.scan_id for run in reader] == [5, 4, 3, 2, 1, 0]
        assert len(reader.search(sample="Si")) == 6
        assert list(reader.samples) == ["Si"] or len(reader.samples) == 1


def test_runs_of_the_same_moment_have_numbers_of_their_own(beamtime, url) -> None:
    for number in range(40):
        docs = make_run(0, scan_id=number)
        docs[0][1]["time"] = 1.0
        record(beamtime, docs)
    caught_up(beamtime)
    with Beamtime(url, mode="r") as reader:
        assert len(reader) == len(list(reader)) == 40


def test_closing_and_opening_goes_on(tmp_path, url, ask) -> None:
    docs = [make_run(5, scan_id=n) for n in range(6)]
    for each in docs:
        with Beamtime(url, spool=tmp_path) as beamtime:
            record(beamtime, each)
    with Beamtime(url, spool=tmp_path) as beamtime:
        caught_up(beamtime)
    assert ask("SELECT count(*), count(DISTINCT uid) FROM events") == [(30, 30)]
    assert ask("SELECT count(*) FROM runs") == [(6,)]
    assert ask("SELECT count(*) FROM replica_sources") == [(1,)]


def test_of_two_that_record_into_one_file_one_copies(tmp_path, url, ask) -> None:
    with (
        Beamtime(url, spool=tmp_path) as one,
        Beamtime(url, spool=tmp_path) as other,
    ):
        for number in range(10):
            record((one, other)[number % 2], make_run(scan_id=number))
        wait_for(
            lambda: one.replica.progress.caught_up or other.replica.progress.caught_up
        )
        one.close()
        record(other, make_run(scan_id=10))
        caught_up(other)
    assert ask("SELECT count(*) FROM runs") == [(11,)]
    assert ask("SELECT count(*), count(DISTINCT uid) FROM events") == [(22, 22)]


def test_a_copy_of_the_file_that_went_on_by_itself_loses_nothing(
    tmp_path, url, ask
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with Beamtime(url, spool=tmp_path / "a") as beamtime:
        record(beamtime, make_run(10))
        caught_up(beamtime)
        name = beamtime.path.name
    shutil.copytree(tmp_path / "a", tmp_path / "b", dirs_exist_ok=True)
    with Beamtime(tmp_path / "b" / name) as offline:
        record(offline, make_run(20))
        record(offline, make_rich_run())
    with Beamtime(url, spool=tmp_path / "a") as beamtime:
        record(beamtime, make_run(30))
        record(beamtime, make_rich_run())
        caught_up(beamtime)
    with Beamtime(url, spool=tmp_path / "b") as beamtime:
        caught_up(beamtime)
    assert ask("SELECT count(*) FROM runs") == [(5,)]
    assert ask("SELECT count(*) FROM events") == [(10 + 20 + 30 + 14,)]
    assert ask("SELECT count(*) FROM image_refs") == [(12,)]


def test_a_row_that_the_server_refuses_is_put_aside_and_stops_nothing(
    beamtime, ask, caplog
) -> None:
    caught_up(beamtime)
    # No index of PostgreSQL takes so long a word.
    import random

    words = "".join(random.Random(1).choices("abcdefghijklmnop", k=20_000))
    record(beamtime, make_run(plan_name=words))
    record(beamtime, make_run(plan_name="scan"))
    caught_up(beamtime)
    assert ask("SELECT plan_name FROM runs") == [("scan",)]
    assert ask("SELECT DISTINCT table_name FROM replica_refused ORDER BY 1")[0] == (
        "events",
    )
    assert ask("SELECT count(*) FROM replica_refused WHERE table_name = 'runs'") != [
        (0,)
    ]
    assert beamtime.replica.progress.refused > 0
    assert "replica_refused" in caplog.text
    assert len(beamtime) == 2


def test_a_run_that_is_removed_goes_there_too(beamtime, ask) -> None:
    uid = record(beamtime, make_run())
    record(beamtime, make_run())
    caught_up(beamtime)
    with beamtime._database.inserting() as cursor:
        cursor.execute("DELETE FROM runs WHERE uid = ?", (uid,))
    caught_up(beamtime)
    assert ask("SELECT count(*) FROM runs") == [(1,)]
    assert ask("SELECT count(*) FROM events") == [(2,)]


def test_runs_in_the_journal_are_incomplete_there_too(beamtime, url) -> None:
    docs = make_run()
    record(beamtime, docs[:2])
    with pytest.warns(BeamtimeWarning, match="put aside"):
        beamtime("event", {"descriptor": docs[1][1]["uid"]})
    record(beamtime, docs[2:])
    caught_up(beamtime)
    with Beamtime(url, mode="r") as reader:
        assert not reader[-1].complete
        assert "1 incomplete" in repr(reader)


# ------------------------------------------------------------------- what is refused


def test_an_empty_server_and_a_foreign_one_are_named(url, tmp_path, ask) -> None:
    import psycopg

    with pytest.raises(BeamtimeFileError, match="nothing was copied there yet"):
        Beamtime(url, mode="r")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE runs (id int)")
    with pytest.raises(BeamtimeFileError, match="another program"):
        Beamtime(url, mode="r")
    with Beamtime(url, spool=tmp_path) as beamtime:
        record(beamtime, make_run())
        wait_for(lambda: beamtime.replica.progress.failure is not None)
        assert "another program" in str(beamtime.replica.progress.failure)
    assert ask("SELECT count(*) FROM runs") == [(0,)]


def test_a_newer_server_is_refused(beamtime, url) -> None:
    import psycopg

    caught_up(beamtime)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(NewerVersionError, match="version 99"):
        Beamtime(url, mode="r")


@pytest.mark.parametrize(
    "wrong", ["postgresql://", "postgresql://user@host", "postgresql://h:x/db"]
)
def test_what_is_no_url_is_refused_at_once(wrong, tmp_path) -> None:
    with pytest.raises(ServerError, match="postgresql://user@host/database"):
        Beamtime(wrong, spool=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_options_of_a_server_are_refused_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="replicate_to"):
        Beamtime(tmp_path / "x.db", frames="s3://bucket/a")


def test_a_file_without_a_replica_has_no_feed(tmp_path) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        record(beamtime, make_run())
    database = Database(tmp_path / "x.db", mode="r")
    with database.reading() as connection:
        names = connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE name LIKE 'changes%'"
        ).all()
    database.close()
    assert names == []
