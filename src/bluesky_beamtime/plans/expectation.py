"""What a run is going to put on the disk, as far as it can be known before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

import numpy as np

from bluesky_beamtime.plans.untyped import bu
from bluesky_beamtime.storage import Footprint, HasFootprint

EVENT_BYTES = 600
"""What an event takes in the database, its indexes included."""

FIELD_BYTES = 60
"""What each field of an event takes in the database."""


@dataclass(frozen=True, slots=True)
class Appetite:
    """What one device takes on the disk."""

    key: str
    """The data key that takes it."""
    size: Callable[[int], float]
    """Returns the bytes that so many events take, before compression."""
    folder: str | None
    """Where; None for the folder of the beamtime, "" for none of this machine's."""
    sure: bool
    """Whether it takes at least so much; not if it is compressed, or if this is what it
    took in an earlier run."""


Recall = Callable[[str], list[Appetite]]
"""Returns what a device took for each event in the last run that had it."""


def planned_events(md: Mapping[str, Any]) -> int | None:
    """Return how many events a start document announces; None if it does not.

    ``num_frames`` is what this package's plans say: frames of each detector, those of
    darks and flats included. Bluesky's own say ``num_points``, which is None where the
    end is open; ``shape`` is that of a grid.
    """
    for key in ("num_frames", "num_points"):
        number = md.get(key)
        if _is_count(number):
            return number
    shape = md.get("shape")
    if isinstance(shape, (list, tuple)):
        sizes = cast("list[Any]", list(shape))  # pyright: ignore[reportUnknownArgumentType]  # whatever stands there
        if sizes and all(map(_is_count, sizes)):
            return math.prod(sizes)
    return None


def planned_rows(md: Mapping[str, Any], detector: str) -> int | None:
    """Return how many frames of an event a plan announces; None if it does not.

    This package's fly scans say ``frames_per_event`` among their arguments.
    """
    number = _entry(_entry(md, "plan_args"), "frames_per_event")
    if isinstance(number, Mapping):
        number = _entry(number, detector)
    return number if _is_count(number) else None


def _entry(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # whatever stands there


def _is_count(value: Any) -> TypeGuard[int]:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and bool(value >= 0)


def find_detectors(staged: Iterable[Any], md: Mapping[str, Any]) -> list[Any]:
    """Return the devices that a run reads, of those that were staged for it.

    What was staged may be a device that holds the detector. Without ``detectors`` in
    the metadata it is everything that was staged.
    """
    roots = list(staged)
    names = md.get("detectors")
    if not isinstance(names, (list, tuple)):
        return roots
    wanted = {str(name) for name in cast("list[Any]", names)}
    found: dict[str, Any] = {}
    for root in roots:
        for device in _with_parts(root):
            name = str(getattr(device, "name", ""))
            if name in wanted:
                found.setdefault(name, device)
    return list(found.values())


def _with_parts(device: Any) -> Iterator[Any]:
    yield device
    children = getattr(device, "children", None)
    if callable(children):
        # A device of ophyd-async.
        for _, child in cast("Iterable[tuple[str, Any]]", children()):
            yield from _with_parts(child)
        return
    walk = getattr(device, "walk_subdevices", None)
    if callable(walk):
        # A device of ophyd.
        for _, child in cast("Iterable[tuple[str, Any]]", walk()):
            yield child


async def appetites(
    device: Any, rows: int | None, recall: Recall | None
) -> list[Appetite]:
    """Return what a device takes for each event.

    It is asked for its footprint, then for its description, which it may give only when
    it is prepared, and at last what it took in an earlier run.

    Parameters
    ----------
    device
        A detector.
    rows
        Frames of one event, as it was prepared; None if it was not.
    recall
        What is known of earlier runs.
    """
    if isinstance(device, HasFootprint):
        prints = device.footprint()
        if prints:
            return [_of_footprint(one, rows) for one in prints]
    name = str(getattr(device, "name", ""))
    described = await _description(device)
    elsewhere = described is None or any(
        isinstance(said, Mapping) and "external" in said for said in described.values()
    )
    earlier = recall(name) if elsewhere and recall is not None and name else []
    if described is None:
        return earlier
    # Where its files go is not in its description.
    folders = {one.key: one.folder for one in earlier}
    return [appetite_of(key, said, folders.get(key)) for key, said in described.items()]


def _of_footprint(one: Footprint, rows: int | None) -> Appetite:
    each_event = one.rows_per_event if rows is None else rows
    return Appetite(
        one.key,
        lambda events: one.size(events * each_event),
        one.folder,
        sure=not one.compressed,
    )


def each(size: float) -> Callable[[int], float]:
    """Return the size of events that take the same each."""
    return lambda events: size * events


async def _description(device: Any) -> Mapping[str, Any] | None:
    """Return the data keys of a device; None if it cannot say now."""
    describe = getattr(device, "describe", None)
    if not callable(describe):
        return None
    try:
        said: Any = await bu.maybe_await(describe())
    except Exception:
        # Most detectors can only when they are prepared.
        return None
    return cast("Mapping[str, Any]", said) if isinstance(said, Mapping) else None


def appetite_of(
    key: str, data_key: Any, folder: str | None = None, *, earlier: bool = False
) -> Appetite:
    """Return what a data key takes for each event.

    Parameters
    ----------
    key
        Its name.
    data_key
        What a descriptor says of it.
    folder
        Where external data goes.
    earlier
        Whether this is from an earlier run.
    """
    said: dict[str, Any] = dict(data_key)
    # A size that is not known ahead is told as None or 0.
    sizes = [int(size) if _is_count(size) else 0 for size in said.get("shape") or ()]
    if not sizes:
        return Appetite(key, each(FIELD_BYTES), None, sure=not earlier)
    external = bool(said.get("external"))
    # Whether the detector's own files are compressed is not known here.
    return Appetite(
        key,
        each(math.prod(sizes) * _dtype(said).itemsize),
        folder if external else None,
        sure=not earlier and not external,
    )


def _dtype(said: Mapping[str, Any]) -> np.dtype[Any]:
    for key in ("dtype_numpy", "dtype_str"):
        text = said.get(key)
        if isinstance(text, str):
            with suppress(TypeError):
                return np.dtype(text)
    return np.dtype("f8")
