"""Scan numbers."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from bluesky_beamtime.database import Database, reserve_scan_id, schema


def test_numbers_begin_at_one_and_go_on(database: Database, tmp_path: Path) -> None:
    assert [reserve_scan_id(database) for _ in range(3)] == [1, 2, 3]
    database.close()
    again = Database(tmp_path / "x.db")
    assert reserve_scan_id(again) == 4
    again.close()


def test_they_are_larger_than_everything_known(database: Database) -> None:
    assert reserve_scan_id(database, 40) == 41
    assert reserve_scan_id(database, 7) == 42
    with database.writing() as connection:
        row = {"uid": "a", "scan_id": 100, "metadata": "", "start": ""}
        connection.execute(schema.runs.insert().values(**row))
    assert reserve_scan_id(database) == 101


def test_absurd_numbers_are_not_gone_on_from(database: Database) -> None:
    with database.writing() as connection:
        row = {"uid": "a", "scan_id": 2**63 - 1, "metadata": "", "start": ""}
        connection.execute(schema.runs.insert().values(**row))
    assert reserve_scan_id(database, 2**80) == 1


def test_threads_and_processes_never_share_one(
    database: Database, tmp_path: Path
) -> None:
    script = (
        "import sys; from bluesky_beamtime.database import Database, reserve_scan_id\n"
        "database = Database(sys.argv[1])\n"
        "print(*[reserve_scan_id(database) for _ in range(50)])\n"
        "database.close()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x.db")]
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    numbers: list[int] = []

    def reserve() -> None:
        numbers.extend([reserve_scan_id(database) for _ in range(50)])

    threads = [threading.Thread(target=reserve) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for child in children:
        numbers += map(int, child.communicate()[0].split())
    assert sorted(numbers) == list(range(1, 251))
