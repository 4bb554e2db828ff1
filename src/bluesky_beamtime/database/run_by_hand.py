"""The documents of one run that is written by hand."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self
from uuid import uuid4

import numpy as np
from numpy.typing import ArrayLike

from bluesky_beamtime.database.data_keys import complete_data_keys, describe_value
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.kinds import is_mapping
from bluesky_beamtime.database.masked import without_mask
from bluesky_beamtime.database.run_recorder import RunRecorder
from bluesky_beamtime.database.scan_ids import reserve_scan_id
from bluesky_beamtime.errors import (
    BeamtimeWarning,
    DocumentError,
    IntegrityError,
    RunStateError,
)

# The words of the event model, and those of older files.
_EXIT_WORDS = {
    "success": "success",
    "abort": "abort",
    "fail": "fail",
    "aborted": "abort",
    "failed": "fail",
}
_OWN_KEYS = ("uid", "time", "plan_name")


class RunByHand:
    """Makes the documents of a run and stores them; one thread at a time.

    The methods are those of :class:`RunWriter`, which says what they take and raise.
    """

    def __init__(self, database: Database, recorder: RunRecorder) -> None:
        self.uid = recorder.uid
        self._database = database
        self._recorder = recorder
        self._streams: dict[str, str] = {}
        self._current: str | None = None
        self._counts = Counter[str]()

    @classmethod
    def begin(
        cls,
        database: Database,
        plan_name: str,
        metadata: dict[str, Any],
        *,
        sample_id: int | None,
        writer: str | None,
    ) -> Self:
        """Store the start document of a run."""
        if "scan_id" not in metadata:
            metadata["scan_id"] = reserve_scan_id(database)
        start = {
            "uid": str(uuid4()),
            "time": _now(),
            "plan_name": plan_name,
            **metadata,
        }
        _validate("start", start)
        run = cls(
            database,
            RunRecorder.insert(database, start, sample_id=sample_id, writer=writer),
        )
        run._report()
        return run

    def end(self, exit_status: str, reason: str) -> None:
        """Store the stop document; for another exit status the run goes on."""
        word = _EXIT_WORDS.get(exit_status)
        if word is None:
            raise DocumentError(
                f"a run ends as 'success', 'abort' or 'fail', not {exit_status!r}"
            )
        self._recorder.stop(
            {
                "uid": str(uuid4()),
                "time": _now(),
                "run_start": self.uid,
                "exit_status": word,
                "reason": reason,
                "num_events": {
                    name: self._counts[uid] for name, uid in self._streams.items()
                },
            }
        )

    def close(self) -> None:
        """Let go of the files of its arrays."""
        self._recorder.close()

    def open_stream(self, name: str, data_keys: Mapping[str, Any]) -> str:
        """Store a descriptor and return its uid."""
        if name in self._streams:
            raise IntegrityError(
                f"run {self.uid} has a stream {name!r} already; "
                f"write_event(..., stream={name!r}) adds to it"
            )
        uid = str(uuid4())
        descriptor = {
            "uid": uid,
            "time": _now(),
            "run_start": self.uid,
            "name": name,
            "data_keys": complete_data_keys(data_keys),
            "object_keys": {},
            "configuration": {},
            "hints": {},
        }
        _validate("descriptor", descriptor)
        self._recorder.descriptor(descriptor)
        self._streams[name] = self._current = uid
        return uid

    def write_event(
        self,
        data: Mapping[str, Any],
        timestamps: Mapping[str, float] | None,
        stream: str | None,
        time: float | None,
    ) -> str:
        """Store an event and return its uid."""
        recorder = self._recorder
        uid = self._stream_uid(stream)
        if not is_mapping(data):
            raise DocumentError(f"the data of an event are a mapping, not {data!r:.80}")
        if timestamps is not None and not is_mapping(timestamps):
            raise DocumentError(
                f"timestamps are a mapping by field, not {timestamps!r:.80}"
            )
        for field in data:
            if not isinstance(field, str):
                raise DocumentError(f"the name of a field is text, not {field!r}")
        event_uid = str(uuid4())
        event = {
            "uid": event_uid,
            "time": _now() if time is None else time,
            "data": dict(data),
            "timestamps": dict(timestamps or {}),
            "seq_num": self._counts[uid] + 1,
            "filled": {},
            "descriptor": uid,
        }
        undescribed = [key for key in data if key not in recorder.data_keys[uid]]
        if undescribed:
            with self._database.inserting():
                recorder.event(event)
                for field in undescribed:
                    recorder.describe_field(uid, field, describe_value(data[field]))
        else:
            recorder.event(event)
        self._counts[uid] += 1
        self._report()
        return event_uid

    def write_image(self, event_uid: str, field_name: str, image: ArrayLike) -> str:
        """Store an image of an event and return the path of its array."""
        self._stream_uid(None)
        if not isinstance(field_name, str) or not field_name:
            raise DocumentError(f"an image needs a name, not {field_name!r}")
        array = np.asarray(without_mask(image, self._recorder.lost))
        path = self._recorder.add_image(
            event_uid, field_name, array, describe_value(array)
        )
        self._report()
        return path

    def _stream_uid(self, stream: str | None) -> str:
        if self._current is None:
            raise RunStateError("No open stream")
        if stream is None:
            return self._current
        if stream in self._streams.values():
            return stream
        uid = self._streams.get(stream)
        if uid is None:
            raise RunStateError(
                f"No open stream {stream!r}: the run has {', '.join(self._streams)}"
            )
        return uid

    def _report(self) -> None:
        """Warn of what could not be kept as it was."""
        run = self._recorder
        remarks, run.remarks = run.remarks, []
        if run.lost:
            objects, run.lost = run.lost, []
            remarks = [
                *remarks,
                f"{len(objects)} objects have no JSON form and are kept as text, or as "
                f"NaN or None where they are masked: "
                f"{'; '.join(objects[:3])}",
            ]
        for remark in remarks:
            # What was written is safe: a filter that raises must not say otherwise.
            with suppress(Warning):
                warnings.warn(f"run {run.uid}: {remark}", BeamtimeWarning, stacklevel=4)


def _now() -> float:
    return time.time()


def checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of what a start document shall say, to which more may be added.

    Raises
    ------
    DocumentError
        No mapping, or it has a key that a RunWriter makes itself.
    """
    if metadata is None:
        return {}
    if not is_mapping(metadata):
        raise DocumentError(f"metadata are a mapping, not {metadata!r:.80}")
    for key in _OWN_KEYS:
        if key in metadata:
            raise DocumentError(
                f"{key!r} cannot be given in the metadata: a RunWriter makes its own; "
                "choose another name"
            )
    return dict(metadata)


def _validate(name: str, document: Mapping[str, Any]) -> None:
    """Refuse what is no document of the event model.

    Raises
    ------
    DocumentError
        It says what is wrong.
    """
    import event_model

    validators: Any = vars(event_model)["schema_validators"]
    try:
        validators[event_model.DocumentNames[name]].validate(document)
    except Exception as error:
        problem = str(getattr(error, "message", error)).splitlines()[0]
        raise DocumentError(
            f"this cannot be the {name} document of a run: {problem}"
        ) from error
