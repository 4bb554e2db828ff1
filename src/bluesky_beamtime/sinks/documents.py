"""What the documents of a run say of it, and of its streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

Document = Mapping[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Stream:
    """What a descriptor says."""

    name: str
    data_keys: Mapping[str, Document]
    objects: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, descriptor: Document) -> Stream:
        """Return what a descriptor says."""
        name = descriptor.get("name", "")
        keys = descriptor["data_keys"]
        objects = dict(descriptor.get("object_keys") or {})
        claimed = {key for each in objects.values() for key in each}
        # What no object claims is the stream's.
        if rest := [key for key in keys if key not in claimed]:
            objects[name] = [*objects.get(name, ()), *rest]
        return cls(name, keys, objects)

    def object_of(self, key: str) -> str:
        """Return the name of the object that a data key belongs to."""
        return next((name for name, keys in self.objects.items() if key in keys), key)


def run_metadata(start: Document, stream: Stream) -> dict[str, Any]:
    """Return what every record of a stream says of its run."""
    return {
        "run_uid": start.get("uid"),
        "scan_id": start.get("scan_id"),
        "stream": stream.name,
    }


def began(start: Document) -> datetime:
    """Return when a run began, for records that nobody gave a time."""
    return time_of(start.get("time")) or EPOCH


def text_of(value: Any) -> str | None:
    """Return text; None for what is none."""
    return value if isinstance(value, str) else None


def time_of(value: Any) -> datetime | None:
    """Return a time of seconds since 1970; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def time_of_ns(value: Any) -> datetime | None:
    """Return a time of nanoseconds since 1970."""
    return EPOCH + timedelta(microseconds=(int(value) + 500) // 1000)
