"""SQL of users, which may ask everything and change nothing."""

from __future__ import annotations

import shutil

import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import QueryError


@pytest.fixture
def beamtime(tmp_path):
    with Beamtime(tmp_path / "x.db", sample="LaB6") as beamtime:
        for number in range(5):
            uid = f"r{number}"
            beamtime("start", {"uid": uid, "time": 1.0, "scan_id": number})
        beamtime["r3"].note("a needle")
        yield beamtime


def test_rows_come_as_a_table(beamtime) -> None:
    found = beamtime.sql("SELECT scan_id, uid FROM runs WHERE scan_id > ?", [2])
    assert list(found.columns) == ["scan_id", "uid"]
    assert found.values.tolist() == [[3, "r3"], [4, "r4"]]
    found = beamtime.sql("SELECT uid FROM runs WHERE uid = :uid", {"uid": "r1"})
    assert found.uid.tolist() == ["r1"]
    empty = beamtime.sql("SELECT uid, scan_id FROM runs WHERE 0")
    assert list(empty.columns) == ["uid", "scan_id"]
    assert len(empty) == 0


@pytest.mark.parametrize(
    "query",
    [
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<3) "
        "SELECT x FROM n",
        "EXPLAIN QUERY PLAN SELECT * FROM runs",
        "PRAGMA table_info(runs)",
        "SELECT name FROM pragma_table_info('runs')",
        "SELECT name FROM sqlite_master",
        "SELECT json_extract(start, '$.uid') FROM runs",
        "SELECT * FROM run_list",
        "SELECT * FROM event_values",
        "SELECT 1;",
        "  select 1 -- with a comment",
        "VALUES (1), (2)",
    ],
)
def test_questions(beamtime, query) -> None:
    assert list(beamtime.sql(query).columns)


def test_full_text_in_sql(beamtime) -> None:
    query = """SELECT uid FROM run_texts_fts JOIN runs ON runs.id = run_texts_fts.rowid
        WHERE run_texts_fts MATCH '"EEDLE"'"""
    for _ in range(2):
        assert beamtime.sql(query).uid.tolist() == ["r3"]


WRITING = [
    "DELETE FROM runs",
    "UPDATE runs SET scan_id = 7",
    "INSERT INTO meta VALUES ('a', '1')",
    "DROP TABLE runs",
    "CREATE TABLE mine (a)",
    "CREATE TEMP TABLE mine (a)",
    "ATTACH '{path}' AS other",
    "VACUUM",
    "VACUUM INTO '{path}'",
    "PRAGMA user_version = 9",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA query_only = 0",
    "PRAGMA writable_schema = 1",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "SAVEPOINT a",
    "REINDEX",
    "ANALYZE",
    "INSERT INTO run_texts_fts(run_texts_fts) VALUES ('rebuild')",
    "WITH x AS (SELECT 1) DELETE FROM runs",
    "DELETE FROM runs RETURNING uid",
    "EXPLAIN DELETE FROM runs",
]


@pytest.mark.parametrize("mode", ["a", "r"])
@pytest.mark.parametrize("query", WRITING)
def test_nothing_can_be_changed(beamtime, tmp_path, query, mode) -> None:
    other = tmp_path / "other.db"
    with Beamtime(beamtime.path, mode=mode) as opened:
        with pytest.raises(QueryError, match="SQL can look here, not change"):
            opened.sql(query.format(path=other))
        assert not other.exists()
        assert len(opened) == 5
        # The connection is as good as before.
        assert opened.sql("SELECT count(*) AS n FROM runs").n.tolist() == [5]
    assert len(beamtime.search(text="needle")) == 1


@pytest.mark.parametrize(
    ("query", "parameters", "error"),
    [
        ("SELEC 1", (), "syntax error"),
        ("SELECT missing FROM runs", (), "no such column"),
        ("SELECT * FROM missing", (), "no such table: missing"),
        ("SELECT 1; SELECT 2", (), "one statement"),
        ("SELECT ?", (), "binding"),
        ("SELECT ?", [object()], "bind"),
        ("SELECT :a", {}, "binding"),
        ("", (), "is no question"),
        ("-- nothing", (), "is no question"),
    ],
)
def test_what_is_wrong_is_said(beamtime, query, parameters, error) -> None:
    with pytest.raises(QueryError, match=error):
        beamtime.sql(query, parameters)
    assert beamtime.sql("SELECT 1 AS n").n.tolist() == [1]


def test_the_list_of_tables_cannot_be_changed(beamtime) -> None:
    with pytest.raises(QueryError, match="may not be modified"):
        beamtime.sql("UPDATE sqlite_master SET sql = ''")


def test_a_read_only_copy_can_be_asked(beamtime, tmp_path) -> None:
    beamtime.close()
    folder = tmp_path / "media"
    folder.mkdir()
    shutil.copy(beamtime.path, folder / "x.db")
    (folder / "x.db").chmod(0o444)
    before = (folder / "x.db").read_bytes()
    with Beamtime(folder / "x.db", mode="r") as reader:
        assert reader.sql("SELECT count(*) AS n FROM run_list").n.tolist() == [5]
    assert (folder / "x.db").read_bytes() == before
