"""A database, a recorder, and documents as event-model composes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime.database import Database, JournalIndex, Run
from bluesky_beamtime.recording import DocumentRecorder

NamedDocuments = list[tuple[str, dict[str, Any]]]


class Recording:
    """A database that records, and what was put into it."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.database = Database(path, **options)
        self.recorder = DocumentRecorder(self.database)
        self.journal = JournalIndex(self.database.journal)

    def __call__(self, documents: NamedDocuments) -> Run:
        for name, doc in documents:
            self.recorder(name, doc)
        uid = next(doc["uid"] for name, doc in documents if name == "start")
        return self.run(uid)

    def run(self, uid: str) -> Run:
        return Run(self.database, uid, self.journal)

    def journaled(self) -> list[dict[str, Any]]:
        """Return the lines of the journal."""
        from bluesky_beamtime.database import decode

        try:
            lines = self.database.journal.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [decode(line) for line in lines]

    def close(self) -> None:
        self.recorder.close()
        self.database.close()


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    recording = Recording(tmp_path / "x.db")
    yield recording
    recording.close()


@pytest.fixture
def documents() -> NamedDocuments:
    """Give a run with two streams, in turns, and every kind of key."""
    return make_documents()


@pytest.fixture(name="make_documents")
def make_documents_fixture() -> Any:
    """Give the function that makes them."""
    return make_documents


def make_documents(events: int = 4, **metadata: Any) -> NamedDocuments:
    from event_model import compose_run

    bundle = compose_run(metadata={"plan_name": "count", "scan_id": 7, **metadata})
    found: NamedDocuments = [("start", bundle.start_doc)]
    key = {"source": "s", "dtype": "number", "shape": []}
    streams = []
    for name in ("primary", "baseline"):
        stream = bundle.compose_descriptor(name=name, data_keys={f"{name}_x": key})
        found.append(("descriptor", stream.descriptor_doc))
        streams.append((name, stream))
    for number in range(events):
        for name, stream in streams:
            event = stream.compose_event(
                data={f"{name}_x": number / 3},
                timestamps={f"{name}_x": 1000.0 + number},
            )
            found.append(("event", event))
    found.append(("stop", bundle.compose_stop()))
    return [(name, dict(doc)) for name, doc in found]
