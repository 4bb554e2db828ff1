"""What is opened, what is refused, and what stays untouched."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, select

from bluesky_beamtime.database import Database, schema
from bluesky_beamtime.errors import (
    BeamtimeFileError,
    DatabaseError,
    NewerVersionError,
    ReadOnlyError,
)


def count_runs(database: Database) -> int:
    with database.reading() as connection:
        query = select(func.count()).select_from(schema.runs)
        return connection.execute(query).scalar_one()


def add_run(database: Database, uid: str = "r") -> None:
    with database.writing() as connection:
        connection.execute(
            schema.runs.insert().values(uid=uid, metadata="{}", start="{}")
        )


def content(folder: Path) -> dict[str, bytes]:
    """Return every file; those of a reader's own, which are SQLite's, apart."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and not path.name.endswith("-shm")
    }


def test_a_new_file_has_every_table(tmp_path: Path) -> None:
    Database(tmp_path / "x.db").close()
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        names = {
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            )
        }
        # The tables that FTS5 keeps for its index.
        full_text = {name for name in names if name.startswith("run_texts_fts")}
        assert "run_texts_fts" in full_text
        assert names - full_text == set(schema.metadata.tables)
        for pragma, value in (
            ("user_version", schema.SCHEMA_VERSION),
            ("application_id", schema.APPLICATION_ID),
            ("journal_mode", "wal"),
        ):
            assert connection.execute(f"PRAGMA {pragma}").fetchone() == (value,)
    assert sorted(os.listdir(tmp_path)) == ["x.db"]


def test_the_old_readers_find_their_columns(tmp_path: Path) -> None:
    Database(tmp_path / "x.db").close()
    wanted = {
        "samples": "id name formula serial tags beamline_pos extra",
        "runs": "uid sample_id plan_name time_start time_stop exit_status num_events "
        "metadata",
        "streams": "uid run_uid name data_keys time_created",
        "events": "uid stream_uid seq_num time data timestamps",
        "image_refs": "event_uid field_name zarr_group index_in_stack shape_x shape_y "
        "shape dtype compression_codec",
    }
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        for table, columns in wanted.items():
            found = {
                row[1] for row in connection.execute(f"PRAGMA table_info({table})")
            }
            assert found >= set(columns.split())


@pytest.mark.parametrize("name", ["x.db", "beam.2026-03", "with space%20#?.db", "é"])
def test_any_name_does(tmp_path: Path, name: str) -> None:
    for mode in ("a", "r"):
        database = Database(tmp_path / name, mode=mode)
        if mode == "a":
            add_run(database)
        assert count_runs(database) == 1
        stem = name.removesuffix(".db")
        assert database.store == tmp_path / f"{stem}.zarr"
        assert database.journal == tmp_path / f"{stem}.journal.jsonl"
        database.close()


def test_an_empty_file_is_made_a_beamtime(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    with pytest.raises(BeamtimeFileError, match="empty"):
        Database(path, mode="r")
    assert path.read_bytes() == b""
    database = Database(path)
    assert count_runs(database) == 0
    database.close()


@pytest.mark.parametrize("mode", ["a", "r"])
@pytest.mark.parametrize(
    "junk",
    [b"junk", b"\0" * 4096, b"SQLite format 3\0", b"SQLite format 3\0" + b"x" * 9999],
)
def test_another_kind_of_file_is_refused_and_untouched(
    tmp_path: Path, junk: bytes, mode: str
) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(junk)
    with pytest.raises(BeamtimeFileError, match=r"not a beamtime.*nothing was changed"):
        Database(path, mode=mode)
    with pytest.raises(sqlite3.DatabaseError):
        Database(path, mode=mode)
    assert content(tmp_path) == {"x.db": junk}


@pytest.mark.parametrize("mode", ["a", "r"])
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_the_database_of_another_program_is_refused_and_untouched(
    tmp_path: Path, journal: str, mode: str
) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("CREATE TABLE runs (uid TEXT)")
        connection.execute("PRAGMA application_id = 12")
        connection.commit()
    before = content(tmp_path)
    with pytest.raises(BeamtimeFileError, match="another program"):
        Database(path, mode=mode)
    assert content(tmp_path) == before


def test_a_new_file_whose_number_is_still_in_the_log_is_a_beamtime(
    tmp_path: Path,
) -> None:
    # A process that is killed at once leaves everything in the write-ahead log.
    script = (
        "import os, sys; from bluesky_beamtime.database import opening as o; "
        "real = o._create_tables\n"
        "def create(connection):\n"
        "    real(connection); connection.execute('COMMIT'); os.kill(os.getpid(), 9)\n"
        "o._create_tables = create\n"
        "o.create_or_check(o.Path(sys.argv[1]), 'kill')"
    )
    path = tmp_path / "x.db"
    done = subprocess.run([sys.executable, "-c", script, str(path)])
    assert done.returncode == -9
    assert b"bbmt" not in path.read_bytes()
    database = Database(path)
    assert count_runs(database) == 0
    database.close()


@pytest.mark.parametrize("mode", ["a", "r"])
def test_a_newer_file_is_refused_and_untouched(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.db"
    Database(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    before = content(tmp_path)
    with pytest.raises(NewerVersionError, match=r"newer version.*pip install -U"):
        Database(path, mode=mode)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "mode", "match"),
    [
        ("x.zarr", "a", r"'x.db'.*'x.zarr'"),
        ("x.zarr", "r", "store of frames"),
        ("", "a", "is a folder"),
        ("", "r", "is a folder"),
        ("none/x.db", "a", "no folder.*make it first"),
        ("none/x.db", "r", r"no beamtime at.*Beamtime\('x.db'\) starts"),
        ("x.db", "r", r"no beamtime at.*Beamtime\('x.db'\) starts"),
    ],
)
def test_a_wrong_path_says_what_to_do(
    tmp_path: Path, name: str, mode: str, match: str
) -> None:
    with pytest.raises(BeamtimeFileError, match=match):
        Database(tmp_path / name, mode=mode)
    assert os.listdir(tmp_path) == []


def test_a_wrong_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mode is 'a'.*'w'"):
        Database(tmp_path / "x.db", mode="w")
    with pytest.raises(ValueError, match="durability is 'kill' or 'power'"):
        Database(tmp_path / "x.db", durability="none")
    assert os.listdir(tmp_path) == []


def test_reading_changes_no_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    database = Database(path)
    add_run(database)
    database.close()
    before = content(tmp_path)
    for _ in range(2):
        reader = Database(path, mode="r")
        assert count_runs(reader) == 1
        with pytest.raises(ReadOnlyError, match="mode='r'"):
            add_run(reader)
        reader.close()
    assert {name: data for name, data in content(tmp_path).items() if data} == before


def leave_log(path: Path) -> None:
    """Record a run and die, so that it is in the write-ahead log alone."""
    script = (
        "import os, sys; from bluesky_beamtime.database import Database, schema\n"
        "database = Database(sys.argv[1])\n"
        "with database.writing() as c:\n"
        "    c.execute(schema.runs.insert().values(uid='r', metadata='', start=''))\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)])
    assert done.returncode == -9
    assert path.with_name("x.db-wal").stat().st_size > 0


def test_reading_changes_no_byte_of_what_a_killed_writer_left(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    leave_log(path)
    before = content(tmp_path)
    for _ in range(2):
        reader = Database(path, mode="r")
        assert count_runs(reader) == 1
        reader.close()
    assert content(tmp_path) == before


READ_AS_NOBODY = """
import os, sys, tempfile
from bluesky_beamtime.database import Database, schema
from sqlalchemy import func, select
os.setgid(65534); os.setuid(65534)
path = sys.argv[1]
assert not os.access(path, os.W_OK) and not os.access(os.path.dirname(path), os.W_OK)
database = Database(path, mode="r")
with database.reading() as c:
    print(c.execute(select(func.count()).select_from(schema.runs)).scalar_one())
database.close()
try:
    Database(path)
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("killed", [False, True])
def test_a_disk_that_cannot_be_written_is_read(tmp_path: Path, killed: bool) -> None:
    path = tmp_path / "x.db"
    if killed:
        leave_log(path)
        (tmp_path / "x.db-shm").unlink()
    else:
        database = Database(path)
        add_run(database)
        database.close()
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)
    tmp_path.chmod(0o555)
    for file in tmp_path.iterdir():
        file.chmod(0o444)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", READ_AS_NOBODY, str(path)],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.stdout.split() == ["1", "ReadOnlyError"], done.stderr
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_many_may_start_the_same_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    barrier = threading.Barrier(8)
    failures: list[BaseException] = []

    def start(number: int) -> None:
        try:
            barrier.wait()
            database = Database(path)
            add_run(database, str(number))
            database.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    database = Database(path, mode="r")
    assert count_runs(database) == 8
    database.close()


def test_a_closed_database_says_so(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")
    add_run(database)
    database.close()
    database.close()
    assert database.closed
    with pytest.raises(DatabaseError, match="is closed"):
        count_runs(database)
    with pytest.raises(DatabaseError, match="is closed"):
        add_run(database)


def test_damage_inside_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    database = Database(path)
    for number in range(200):
        add_run(database, f"{number:036d}")
    database.close()
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page : page + 64] = b"\xff" * 64
    path.write_bytes(data)
    with (
        pytest.raises(BeamtimeFileError, match="damaged"),
        closing(Database(path, mode="r")) as reader,
        reader.reading() as connection,
    ):
        connection.execute(select(schema.runs)).all()


def test_links_lead_to_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    database = Database(tmp_path / "link" / "x.db")
    assert database.store == tmp_path / "real" / "x.zarr"
    add_run(database)
    database.close()
    (tmp_path / "other.db").symlink_to(tmp_path / "real" / "x.db")
    database = Database(tmp_path / "other.db", mode="r")
    assert count_runs(database) == 1
    assert database.store == tmp_path / "real" / "x.zarr"
    database.close()


def without_log(path: Path) -> None:
    """Make a file as copies are: alone, without a write-ahead log."""
    with closing(Database(path)) as database:
        add_run(database, "before")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode = delete").fetchone() == (
            "delete",
        )


def test_a_copy_gets_its_log_back_when_it_is_recorded_into(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    without_log(path)
    Database(path, mode="r").close()
    assert not path.with_name("x.db-wal").exists()
    with closing(Database(path)) as database:
        add_run(database, "after")
        assert path.with_name("x.db-wal").exists()
        assert count_runs(database) == 2


def test_a_copy_that_somebody_reads_is_recorded_into_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    without_log(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        with closing(Database(path)) as database:
            assert not path.with_name("x.db-wal").exists()
            reader.execute("COMMIT")
            add_run(database, "after")
            assert count_runs(database) == 2
