"""``verify`` finds what is wrong, says where, and changes nothing."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bluesky_beamtime import Beamtime
from bluesky_beamtime.cli import app
from bluesky_beamtime.database import migrate

FROZEN = Path(__file__).parents[2] / "data" / "databases" / "v1"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a beamtime with a step scan, a fly scan, arrays in events, and samples."""
    folder = tmp_path_factory.mktemp("whole") / "b"
    shutil.copytree(FROZEN, folder)
    migrate(folder / "beamtime.db", backup=False)
    return folder


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "b")
    return tmp_path / "b" / "beamtime.db"


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        for statement in statements:
            assert connection.execute(statement).rowcount != 0, statement
        connection.commit()


def problems(path: Path, **options: Any) -> list[tuple[str, str]]:
    with Beamtime(path, mode="r") as beamtime:
        report = beamtime.verify(**options)
    assert report.ok == (not report.problems)
    assert all(each.next_step and each.where for each in report.problems)
    return [(each.kind, each.what) for each in report.problems]


def arrays(path: Path, name: str) -> list[Path]:
    return sorted(path.with_suffix(".zarr").rglob(f"{name}/c.*"))


def test_all_is_well(path: Path) -> None:
    before = {p: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()}
    steps: list[Any] = []
    with Beamtime(path, mode="r") as beamtime:
        report = beamtime.verify(progress=lambda *step: steps.append(step))
    assert report.problems == []
    assert report.checked["runs"] == 4
    assert report.checked["rows"] > 20
    assert report.checked["frames"] > 5
    assert steps
    assert all(done <= total for _, done, total in steps)
    after = {p: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()}
    changed = {p for p in after if before.get(p) != after[p]}
    assert {p.suffix for p in changed} <= {".db-wal", ".db-shm"}


def test_an_older_file_is_checked_too(tmp_path: Path) -> None:
    shutil.copytree(FROZEN, tmp_path / "old")
    with Beamtime(tmp_path / "old" / "beamtime.db", mode="r") as beamtime:
        assert beamtime.verify().problems == []


def break_json(path: Path) -> None:
    sql(path, "UPDATE events SET data = '{\"x\": ' WHERE id = 2")


def break_tag(path: Path) -> None:
    sql(path, """UPDATE runs SET start = '{"x":{"$int":"no"}}' WHERE id = 1""")


def lose_event(path: Path) -> None:
    sql(path, "DELETE FROM events WHERE id = 2")


def double_place(path: Path) -> None:
    sql(path, "UPDATE events SET ordinal = ordinal - 1 WHERE id = 2")


def lose_stream(path: Path) -> None:
    sql(path, "DELETE FROM streams WHERE ordinal = 1")


def count_less(path: Path) -> None:
    sql(path, "UPDATE runs SET num_events = 0 WHERE num_events > 0")


def refer_beyond(path: Path) -> None:
    sql(path, "UPDATE image_refs SET index_in_stack = 99 WHERE id = 1")


def refer_nowhere(path: Path) -> None:
    sql(path, "UPDATE image_refs SET zarr_group = 'runs/none' WHERE id = 1")


def refer_outside(path: Path) -> None:
    sql(path, "UPDATE image_refs SET zarr_group = '../../x' WHERE id = 1")


def stream_outside(path: Path) -> None:
    sql(path, "UPDATE stream_resources SET uri = '../../etc/x'")


def promise_more(path: Path) -> None:
    sql(path, "UPDATE stream_datums SET indices_stop = indices_stop + 9")


def lose_array(path: Path) -> None:
    shutil.rmtree(arrays(path, "cam")[0].parent)


def flip_bit(path: Path) -> None:
    shard = next(p for p in arrays(path, "cam") if p.stat().st_size > 100)
    data = bytearray(shard.read_bytes())
    data[40] ^= 16
    shard.write_bytes(data)


def lose_metadata(path: Path) -> None:
    (arrays(path, "cam")[0].parent / "zarr.json").write_text("{")


def write_journal(path: Path) -> None:
    path.with_name("beamtime.journal.jsonl").write_text('{"run":null}\n')


def leave_orphan(path: Path) -> None:
    (path.with_suffix(".zarr") / "runs" / "nobody" / "primary").mkdir(parents=True)


def break_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[3 * 4096 : 3 * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "kind", "what"),
    [
        (break_json, "value", "no JSON"),
        (break_tag, "value", "damaged"),
        (lose_event, "order", "1 documents are missing"),
        (double_place, "order", "place of another one"),
        (lose_stream, "reference", "a row of streams that is not there"),
        (count_less, "count", "the run says 0"),
        (refer_beyond, "array", "number 99"),
        (refer_nowhere, "array", "none"),
        (refer_outside, "place", "leads out"),
        (stream_outside, "place", "leads out"),
        (promise_more, "frames", "are promised"),
        (lose_array, "frames", ""),
        (flip_bit, "store", "damaged"),
        (lose_metadata, "store", ""),
        (write_journal, "journal", "1 documents"),
        (leave_orphan, "orphan", "no run|not in the tables"),
        (break_page, "file", ""),
    ],
)
def test_damage_is_found(
    path: Path, damage: Callable[[Path], None], kind: str, what: str
) -> None:
    damage(path)
    found = problems(path)
    assert any(k == kind and re.search(what, text) for k, text in found), found


def test_quick_leaves_out_checksums_alone(path: Path) -> None:
    flip_bit(path)
    assert problems(path, quick=True) == []
    promise_more(path)
    assert problems(path, quick=True)


def test_what_is_being_recorded_is_left_out(tmp_path: Path) -> None:
    from event_model import compose_run

    with Beamtime(tmp_path / "x.db") as beamtime:
        bundle = compose_run()
        beamtime("start", bundle.start_doc)
        assert beamtime.verify().problems == []


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_command(path: Path) -> None:
    good = run("verify", str(path))
    assert (good.exit_code, "all is well" in good.stdout) == (0, True)
    flip_bit(path)
    bad = run("verify", str(path))
    assert bad.exit_code == 1
    assert "store" in bad.stdout
    assert run("verify", str(path), "--quick").exit_code == 0
    told = json.loads(run("verify", str(path), "--json").stdout)
    assert told["ok"] is False
    assert set(told["problems"][0]) == {"kind", "where", "what", "next_step"}


def test_recover_command(path: Path) -> None:
    done = run("recover", str(path))
    assert (done.exit_code, "nothing is left" in done.stdout) == (0, True)
    line = {"run": None, "ordinal": None, "kind": "quarantined", "reason": "odd"}
    line |= {"time": 0.0, "name": "event", "doc": {"uid": "x"}}
    journal = path.with_name("beamtime.journal.jsonl")
    journal.write_text(json.dumps(line) + "\n")
    done = run("recover", str(path))
    assert (done.exit_code, "1 stay in the journal" in done.stdout) == (1, True)
    told = json.loads(run("recover", str(path), "--json").stdout)
    assert (told["ok"], told["stored"]) == (False, 0)
    assert list(told["kept"].values()) == [1]
    # A name that was mistyped must not make a file.
    assert run("recover", str(path.with_name("none.db"))).exit_code != 0
    assert not path.with_name("none.db").exists()


def test_migrate_command(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(FROZEN, tmp_path / name)
    files = [str(tmp_path / name / "beamtime.db") for name in ("one", "two")]
    done = run("migrate", *files, str(tmp_path / "none.db"))
    assert done.exit_code == 1
    assert done.stdout.count("version 1 → 2") == 2
    assert (tmp_path / "one" / "beamtime.db.v1-backup").exists()
    again = run("migrate", *files, "--no-backup")
    assert (again.exit_code, again.stdout.count("nothing was changed")) == (0, 2)
