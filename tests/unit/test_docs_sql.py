"""The SQL of the how-to, asked of a file with the driver and with the command."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime import Beamtime, Person

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "ask-with-sqlite3.md"
# Each query, and what the page says that it prints.
QUERIES = re.findall(
    r"```sql\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", PAGE.read_text(), re.DOTALL
)
NUMBER = {"source": "x", "dtype": "number", "shape": []}
FRAMES = {**NUMBER, "dtype": "array", "shape": [4, 4], "external": "STREAM:"}
MORNING = 1795161600.0  # 2026-11-20 08:00 UTC


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make the beamtime that the page speaks of, by documents with known times."""
    path = tmp_path_factory.mktemp("sql") / "2026-11-LaB6.db"
    with (
        pytest.MonkeyPatch.context() as patch,
        Beamtime(path) as beamtime,
    ):
        patch.setenv("TZ", "UTC")
        time.tzset()
        beamtime.users = [Person("Ada", orcid="0000-0002-1825-0097")]
        beamtime.sample = {"name": "LaB6", "formula": "LaB6", "serial": "NIST 660c"}
        frames = path.parent / "2026-11-LaB6.zarr/frames/2026_11_20/count_00001/cam1"
        run(
            *(beamtime, 1, "count", [{}, {}], {"cam1": FRAMES}),
            uri=f"file://localhost{frames}",
            purpose="align the beam",
            optics={"energy": 12.0},
            operator="Zoë",
        )
        points = [{"x": -2.0, "diode": 1584}, {"x": 0.0, "diode": 9966}]
        points += [{"x": 2.0, "diode": 1563}]
        keys = {"x": NUMBER, "diode": NUMBER}
        said = {"purpose": "find the edge", "optics": {"energy": 7.1}}
        run(beamtime, 2, "scan", points, keys, **said)
        run(beamtime, 3, "scan", points[:1], keys, reason="beam dump", **said)
        second = beamtime[2]
        second.tag("good", "paper")
        second.star()
        second.note("the edge is where it should be", author="Ada")
        yield path
    time.tzset()


def run(
    beamtime: Beamtime,
    number: int,
    plan: str,
    points: list[dict[str, Any]],
    data_keys: dict[str, Any],
    *,
    uri: str | None = None,
    reason: str = "",
    **metadata: Any,
) -> None:
    """Record the documents of a run."""
    uid, begin = f"run-{number}", MORNING + 600 * (number - 1)
    start = {"uid": uid, "time": begin, "scan_id": number, "plan_name": plan}
    beamtime("start", {**start, **metadata})
    descriptor = {"uid": f"d-{number}", "run_start": uid, "time": begin}
    beamtime("descriptor", {**descriptor, "name": "primary", "data_keys": data_keys})
    if uri is not None:
        resource = {"uid": f"r-{number}", "run_start": uid, "data_key": "cam1"}
        kind = {"mimetype": "application/x-zarr", "uri": uri, "parameters": {}}
        beamtime("stream_resource", {**resource, **kind})
    for seq_num, data in enumerate(points, 1):
        event = {"uid": f"e-{number}-{seq_num}", "descriptor": f"d-{number}"}
        event |= {"seq_num": seq_num, "time": begin + seq_num, "data": data}
        beamtime("event", {**event, "timestamps": dict.fromkeys(data, begin)})
    stop = {"uid": f"s-{number}", "run_start": uid, "time": begin + 9}
    status = "fail" if reason else "success"
    beamtime("stop", {**stop, "exit_status": status, "reason": reason})


def test_the_page_has_queries() -> None:
    assert len(QUERIES) >= 10
    assert sum(bool(shown) for _, shown in QUERIES) >= 9


@pytest.mark.parametrize(("query", "shown"), QUERIES)
def test_queries_answer_what_the_page_shows(file: Path, query: str, shown: str) -> None:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        rows = connection.execute(query).fetchall()
    lines = ["|".join("" if v is None else str(v) for v in row) for row in rows]
    if shown:
        assert lines == shown.splitlines()
    program = shutil.which("sqlite3")
    if program is not None:
        printed = subprocess.run(
            [program, "-readonly", str(file), query],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={"TZ": "UTC", "HOME": str(file.parent)},
        ).stdout
        assert printed.splitlines() == lines


@pytest.mark.parametrize("query", [query for query, _ in QUERIES])
def test_beamtime_sql_takes_them_too(file: Path, query: str) -> None:
    with Beamtime(file, mode="r") as beamtime:
        assert list(beamtime.sql(query).columns)
