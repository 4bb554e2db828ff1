"""Documents of several runs, one among the other, as readings and blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, cast

import numpy as np

from bluesky_beamtime.sinks.documents import Document
from bluesky_beamtime.sinks.from_documents import DocumentRecords
from bluesky_beamtime.sinks.records import DaqBlock, DaqReading

WITHOUT_END = frozenset(("event", "event_page", "datum", "datum_page", "stream_datum"))
"""Documents of which a run may have any number; of the others it has a few."""


class RecordsOfRuns:
    """Gives each document to the :class:`DocumentRecords` of its run.

    What belongs to no run that began here has no records. A StreamResource need not
    name its run; then the first StreamDatum does, by its descriptor.

    Parameters
    ----------
    **options
        Of :class:`DocumentRecords`.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._runs: dict[str, DocumentRecords] = {}
        self._run_of: dict[str, str] = {}
        self._without_run: dict[str, Document] = {}

    def __call__(self, name: str, doc: Document) -> Iterable[DaqReading | DaqBlock]:
        """Return the records that a document completes."""
        run = self._run(name, doc)
        if run is None:
            return ()
        if name == "stop":
            ended = doc["run_start"]
            self._runs.pop(ended, None)
            self._run_of = {k: v for k, v in self._run_of.items() if v != ended}
        elif name == "stream_datum":
            resource = self._without_run.pop(doc["stream_resource"], None)
            if resource is not None:
                return chain(run("stream_resource", resource), run(name, doc))
        return run(name, doc)

    def give_up(self) -> list[str]:
        """Forget the runs that have not ended, and return their uids."""
        going_on = list(self._runs)
        self._runs.clear()
        self._run_of.clear()
        self._without_run.clear()
        return going_on

    def _run(self, name: str, doc: Document) -> DocumentRecords | None:
        if name == "start":
            self._runs[doc["uid"]] = DocumentRecords(**self._options)
            return self._runs[doc["uid"]]
        if name == "stream_resource" and not doc.get("run_start"):
            self._without_run[doc["uid"]] = doc
            return None
        if name in ("descriptor", "stream_resource"):
            uid = cast("str", doc["run_start"])
            self._run_of[doc["uid"]] = uid
        elif name == "stop":
            uid = doc["run_start"]
        else:
            uid = self._run_of.get(doc.get("descriptor", ""), "")
        return self._runs.get(uid)


def to_keep(doc: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a document whose arrays stay as they are: devices may use theirs again."""
    data = doc.get("data")
    if not isinstance(data, Mapping):
        return doc
    values = cast("Mapping[str, Any]", data)
    if not any(isinstance(value, np.ndarray) for value in values.values()):
        return doc
    return {
        **doc,
        "data": {
            key: np.array(cast("Any", value))
            if isinstance(value, np.ndarray)
            else value
            for key, value in values.items()
        },
    }
