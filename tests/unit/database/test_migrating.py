"""Files of older versions: read as they are, brought up to date by an explicit verb."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Database, encode, migrate, schema
from bluesky_beamtime.database.liveness import WriterLock
from bluesky_beamtime.database.migrations import STEPS
from bluesky_beamtime.errors import (
    BeamtimeFileError,
    NewerVersionError,
    OlderVersionError,
    RunStateError,
)
from bluesky_beamtime.testing import assert_documents_equal

FROZEN = Path(__file__).parents[2] / "data" / "databases"
FOLDERS = sorted(path for path in FROZEN.iterdir() if path.is_dir())
OLDER = [path for path in FOLDERS if int(path.name[1:]) < schema.SCHEMA_VERSION]


@pytest.fixture(params=OLDER, ids=lambda path: path.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give a copy of a frozen file, with its frames."""
    folder = tmp_path / "old"
    shutil.copytree(request.param, folder)
    return folder / "beamtime.db"


def files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files; SQLite's empty side files are not ours."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    }
    return {name: data for name, data in found.items() if data or ".db" not in name}


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def structure(path: Path) -> dict[str, Any]:
    """Return all of a schema that matters, however its statements are laid out."""
    found: dict[str, Any] = {}
    with closing(sqlite3.connect(path)) as c:
        rows = c.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
        for kind, name, table, sql in rows.fetchall():
            if kind != "table" or "VIRTUAL" in (sql or ""):
                found[f"{kind} {name}"] = (table, " ".join((sql or "").split()))
                continue
            found[f"table {name}"] = {
                pragma: sorted(c.execute(f"PRAGMA {pragma}({name})").fetchall())
                for pragma in ("table_xinfo", "foreign_key_list", "index_list")
            }
            # The numbers of indexes say in which order they were made.
            indexes = found[f"table {name}"]["index_list"]
            found[f"table {name}"]["index_list"] = sorted(row[1:] for row in indexes)
        for pragma in ("user_version", "application_id", "journal_mode"):
            found[pragma] = c.execute(f"PRAGMA {pragma}").fetchone()
    return found


def look_at_all(beamtime: Beamtime) -> list[Any]:
    """Read everything that a Beamtime can tell of its runs."""
    found: list[Any] = [len(beamtime), repr(beamtime).rpartition(",")[0]]
    for run in beamtime:
        summary = run.summary()
        found.append(summary)
        found += [repr(run), run._repr_html_() != "", run.tags, run.num_events]
        found += [run.start, run.stop, run.metadata, run.sample, run.accounting]
        for name, stream in run.streams.items():
            dataset = stream.read().compute()
            # As text, in which NaN is NaN.
            values = {str(key): value.values for key, value in dataset.items()}
            found.append((name, encode(values)))
        assert beamtime[run.uid[:12]].uid == run.uid
        assert beamtime[run.scan_id].scan_id == run.scan_id
        text = str(run.plan_name)
        assert run.uid in {each.uid for each in beamtime.search(text=text)}
        assert run.uid in {each.uid for each in beamtime.search(plan_name=text)}
    return found


def test_the_version_before_this_one_is_frozen() -> None:
    assert {int(path.name[1:]) for path in OLDER} == set(
        range(1, schema.SCHEMA_VERSION)
    )
    assert set(STEPS) == set(range(1, schema.SCHEMA_VERSION))


def test_an_older_file_is_read_and_no_byte_changes(old: Path) -> None:
    before = files(old.parent)
    with Beamtime(old, mode="r") as beamtime:
        assert len(beamtime) > 0
        look_at_all(beamtime)
        assert len(beamtime.search(text="there is no such text")) == 0
    assert files(old.parent) == before
    assert version_of(old) == int(OLDER[0].name[1:])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_an_older_file_is_read_from_a_disk_that_cannot_be_written(old: Path) -> None:
    for path in (old.parent, *old.parent.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for folder in old.parents:
        if folder == Path("/tmp"):
            break
        folder.chmod(0o555)
    script = (
        "import os, sys; from bluesky_beamtime import Beamtime\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "with Beamtime(sys.argv[1], mode='r') as b:\n"
        "    print(len(b), len(b.search(text=b[-1].plan_name)) > 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(old)],
        capture_output=True,
        text=True,
        cwd="/",
    )
    for folder in (old.parent, old.parent.parent):
        folder.chmod(0o755)
    assert done.stdout.split()[1:] == ["True"], done.stderr


def test_recording_into_an_older_file_is_refused_and_says_how(old: Path) -> None:
    before = files(old.parent)
    with pytest.raises(OlderVersionError, match=r"beamtime migrate beamtime\.db"):
        Beamtime(old)
    assert files(old.parent) == before


def test_migration_gives_the_schema_of_a_new_file(old: Path, tmp_path: Path) -> None:
    Database(tmp_path / "new.db").close()
    done = migrate(old)
    assert (done.before, done.after) == (1, schema.SCHEMA_VERSION)
    assert structure(old) == structure(tmp_path / "new.db")
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.execute(
            "INSERT INTO run_texts_fts(run_texts_fts) VALUES ('integrity-check')"
        )


def test_migration_keeps_everything(old: Path) -> None:
    def documents(beamtime: Beamtime) -> list[Any]:
        return [(run.uid, list(run.documents())) for run in beamtime]

    before = files(old.parent)
    with Beamtime(old, mode="r") as beamtime:
        told, said = look_at_all(beamtime), documents(beamtime)
    migrate(old)
    with Beamtime(old, mode="r") as beamtime:
        assert look_at_all(beamtime) == told
        for (uid, now), (same, then) in zip(documents(beamtime), said, strict=True):
            assert uid == same
            assert_documents_equal(now, then)
    after = files(old.parent)
    assert set(after) - set(before) == {"beamtime.db.v1-backup"}
    changed = {name for name, data in before.items() if after[name] != data}
    assert changed == {"beamtime.db"}


def test_a_migrated_file_is_recorded_into(old: Path) -> None:
    from event_model import compose_run

    migrate(old)
    with Beamtime(old, on_error="raise") as beamtime:
        highest = max(run.scan_id or 0 for run in beamtime)
        bundle = compose_run(metadata={"scan_id": beamtime.next_scan_id(), "why": "on"})
        beamtime("start", bundle.start_doc)
        beamtime("stop", bundle.compose_stop())
        assert beamtime[-1].scan_id == highest + 1
        assert beamtime[-1].exit_status == "success"


def test_the_copy_is_the_file_as_it_was(old: Path) -> None:
    with Beamtime(old, mode="r") as beamtime:
        told = look_at_all(beamtime)
    was = structure(old) | {"journal_mode": ("delete",)}
    backup = migrate(old).backup
    assert backup == old.with_name("beamtime.db.v1-backup")
    assert structure(backup) == was
    # Going back: the copy takes the file's place.
    shutil.move(backup, old)
    with Beamtime(old, mode="r") as beamtime:
        assert look_at_all(beamtime) == told
    # And forth again.
    assert migrate(old).backup == backup
    assert structure(old)["user_version"] == (schema.SCHEMA_VERSION,)


def test_an_older_copy_is_never_replaced(old: Path) -> None:
    old.with_name("beamtime.db.v1-backup").write_text("mine")
    assert migrate(old).backup == old.with_name("beamtime.db.v1-backup-2")
    assert old.with_name("beamtime.db.v1-backup").read_text() == "mine"


def test_without_a_copy(old: Path) -> None:
    assert migrate(old, backup=False).backup is None
    assert not list(old.parent.glob("*backup*"))
    assert version_of(old) == schema.SCHEMA_VERSION


def test_migrating_again_changes_nothing(old: Path) -> None:
    migrate(old)
    before = files(old.parent)
    again = migrate(old)
    assert (again.before, again.backup) == (schema.SCHEMA_VERSION, None)
    assert "nothing was changed" in str(again)
    assert files(old.parent) == before


def test_a_file_that_is_recorded_into_is_refused(old: Path) -> None:
    before = files(old.parent)
    lock = WriterLock(old)
    try:
        with pytest.raises(RunStateError, match=r"live process.*close it"):
            migrate(old)
    finally:
        lock.release()
    assert files(old.parent) == before
    # What a killed process left holds nobody up.
    old.with_name(".beamtime.db.0123456789ab.lock").touch()
    assert migrate(old).after == schema.SCHEMA_VERSION


def test_what_a_killed_writer_left_in_the_log_comes_along(old: Path) -> None:
    script = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "c.execute(\"INSERT INTO runs (uid, metadata, start) VALUES ('late', '{}', "
        '\'{\\"uid\\":\\"late\\",\\"why\\":\\"log\\"}\')");'
        "c.commit(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(old)])
    assert done.returncode == -9
    backup = migrate(old).backup
    assert backup is not None
    for path in (old, backup):
        with closing(sqlite3.connect(path)) as connection:
            query = "SELECT count(*) FROM runs WHERE uid = 'late'"
            assert connection.execute(query).fetchone() == (1,)


@pytest.mark.parametrize("backup", [True, False])
def test_a_newer_file_is_refused(tmp_path: Path, backup: bool) -> None:
    path = tmp_path / "x.db"
    Database(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    before = files(tmp_path)
    with pytest.raises(NewerVersionError, match="pip install -U"):
        migrate(path, backup=backup)
    assert files(tmp_path) == before


def test_what_is_no_beamtime_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"junk")
    for name in ("x.db", "none.db"):
        with pytest.raises(BeamtimeFileError):
            migrate(tmp_path / name)
    assert os.listdir(tmp_path) == ["x.db"]


def test_a_broken_reference_stops_it(old: Path) -> None:
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("INSERT INTO run_tags VALUES ('nobody', 'tag')")
        connection.commit()
    with pytest.raises(BeamtimeFileError, match="1 rows refer to what is not there"):
        migrate(old, backup=False)
    assert version_of(old) == 1


# Dies when the statement of that number is about to be executed; says how many it saw.
KILLED = """
import os, sys
from bluesky_beamtime.database import migrating
real, left, seen = migrating.connect_to_write, int(sys.argv[2]), 0
def connect(*args):
    def trace(statement):
        global left, seen
        left, seen = left - 1, seen + 1
        if statement == "COMMIT":
            print(seen)
        if left == 0:
            os.kill(os.getpid(), 9)
    connection = real(*args)
    connection.set_trace_callback(trace)
    return connection
migrating.connect_to_write = connect
migrating.migrate(sys.argv[1])
"""


def test_a_kill_leaves_the_old_version_or_the_new(old: Path, tmp_path: Path) -> None:
    def migrate_and_die(path: Path, statement: int) -> str:
        script = [sys.executable, "-c", KILLED, str(path), str(statement)]
        done = subprocess.run(script, capture_output=True, text=True)
        assert done.returncode == (-9 if statement else 0), done.stderr
        return done.stdout

    shutil.copytree(old.parent, tmp_path / "whole")
    commit = int(migrate_and_die(tmp_path / "whole" / old.name, 0))
    was = structure(old)
    for statement in (1, commit // 3, 2 * commit // 3, commit - 1, commit, commit + 1):
        folder = tmp_path / str(statement)
        shutil.copytree(old.parent, folder)
        path = folder / old.name
        migrate_and_die(path, statement)
        version = version_of(path)
        assert version == (1 if statement <= commit else schema.SCHEMA_VERSION)
        if version == 1:
            assert structure(path) == was
        assert migrate(path).after == schema.SCHEMA_VERSION
        with Beamtime(path, mode="r") as beamtime:
            assert [run.exit_status for run in beamtime]
            assert [list(run.documents()) for run in beamtime]
