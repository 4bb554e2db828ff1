"""A database in a folder of its own, and runs to put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime.database import Database, JournalIndex, Run, Runs
from bluesky_beamtime.recording import DocumentRecorder

Documents = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "x.db")
    yield database
    database.close()


@pytest.fixture
def record(database: Database) -> Iterator[Callable[[Documents], Run]]:
    """Record documents and return their run."""
    recorder = DocumentRecorder(database, on_error="raise")

    def record(documents: Documents) -> Run:
        for name, doc in documents:
            recorder(name, doc)
        return Run(database, documents[0][1]["uid"], JournalIndex(database.journal))

    yield record
    recorder.close()


@pytest.fixture
def runs(database: Database) -> Runs:
    return Runs(database, JournalIndex(database.journal))
