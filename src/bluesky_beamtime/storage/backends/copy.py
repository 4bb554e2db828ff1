"""Values from one backend to another, checked after they have arrived."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from bluesky_beamtime.errors import BackendError, KeyNotFoundError
from bluesky_beamtime.storage.backends.keys import check_prefix, join_key
from bluesky_beamtime.storage.backends.protocol import StorageBackend
from bluesky_beamtime.storage.backends.values import get_size

_COMPARED_AT_ONCE = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyReport:
    """What :func:`copy_prefix` did."""

    values: int
    """Values that were copied."""
    size: int
    """Their bytes."""
    skipped: tuple[str, ...]
    """Keys in the source that ``include`` left out, or that vanished meanwhile."""


def copy_prefix(
    source: StorageBackend,
    destination: StorageBackend,
    prefix: str = "",
    to: str | None = None,
    *,
    verify: bool = True,
    include: Callable[[str], bool] | None = None,
    last: Collection[str] = ("zarr.json",),
) -> CopyReport:
    """Copy every value below a prefix, over what is there.

    Safe to repeat after a failure. Values are held in memory one at a time.

    Parameters
    ----------
    source, destination
        The backends.
    prefix
        Below what to copy; ``""`` for everything.
    to
        Prefix in the destination; by default the same.
    verify
        Read every value back and compare it.
    include
        Called with each key of the source; those for which it is false are left out.
    last
        Names, the last part of keys, that are copied after all others, deepest first: a
        reader that finds the metadata of an array then finds its data too.

    Raises
    ------
    BackendError
        A value did not arrive as it was sent, or a backend refused.
    """
    prefix = check_prefix(prefix)
    target = prefix if to is None else check_prefix(to)
    first: list[str] = []
    closing: list[str] = []
    skipped: list[str] = []
    copied = size = 0
    for key in source.list_prefix(prefix, recursive=True):
        if include is not None and not include(key):
            skipped.append(key)
        else:
            (closing if key.rpartition("/")[2] in last else first).append(key)
    closing.sort(key=lambda key: (-key.count("/"), key))
    for key in (*first, *closing):
        try:
            data = source.get_bytes(key)
        except KeyNotFoundError:
            skipped.append(key)
            continue
        arrived = join_key(target, key[len(prefix) + 1 :] if prefix else key)
        destination.put_bytes(arrived, data)
        if verify:
            check_value(destination, arrived, data)
        copied += 1
        size += len(data)
    return CopyReport(values=copied, size=size, skipped=tuple(skipped))


def check_value(backend: StorageBackend, key: str, data: bytes | memoryview) -> None:
    """Read a value back, some MiB at a time, and compare it.

    Raises
    ------
    BackendError
        It is not what it should be.
    """
    found = get_size(backend, key)
    if found != len(data):
        raise _changed(backend, key, f"{found} bytes, {len(data)} were sent")
    view = memoryview(data)
    for start in range(0, len(view), _COMPARED_AT_ONCE):
        part = view[start : start + _COMPARED_AT_ONCE]
        if memoryview(backend.get_range(key, start, len(part))) != part:
            raise _changed(backend, key, f"other bytes from {start} on")


def _changed(backend: StorageBackend, key: str, how: str) -> BackendError:
    return BackendError(
        f"{key!r} did not arrive whole in {backend.url}: {how}. Copy again; if it "
        "happens again, do not trust that store",
        filename=key,
    )
