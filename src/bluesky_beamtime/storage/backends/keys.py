"""What may be a key: one set of rules for every backend, checked in one place.

A key is a relative path with forward slashes, such as ``"frames/scan_1/cam/c.0.0"``. A
*prefix* is a key that names what lies below it, or ``""`` for everything; it may end in
one slash, as containers do in listings. The rules are those that every file system and
every object store can keep, so that what one backend takes, all take.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from bluesky_beamtime.errors import PathError

TEMPORARY_PREFIX = ".~beamtime-"
"""How the names of values begin that are still being written; no key has it."""

_MOST_KEY_BYTES = 1024
_MOST_SEGMENT_BYTES = 255
# Control characters fit in no object store's listing, which is XML; nor do these two.
_REFUSED = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")


def _refuse(key: object, reason: str) -> PathError:
    return PathError(
        f"{key!r} is no key: {reason}. A key is a relative path, such as 'runs/a/b'"
    )


def segment_problem(segment: str) -> str | None:
    """Return why one part of a key is refused, None if it is good."""
    if segment in (".", ".."):
        return f"{segment!r} would lead elsewhere"
    if "\\" in segment:
        return "it holds a backslash; separate with '/'"
    found = _REFUSED.search(segment)
    if found:
        what = "NUL" if found[0] == "\0" else f"the control character {found[0]!r}"
        return f"it holds {what}"
    if segment.startswith(TEMPORARY_PREFIX):
        return f"names with {TEMPORARY_PREFIX!r} are kept for values being written"
    try:
        size = len(segment.encode())
    except UnicodeEncodeError:
        return "it is no valid Unicode"
    if size > _MOST_SEGMENT_BYTES:
        return f"a part of it has {size} bytes, {_MOST_SEGMENT_BYTES} is the most"
    return None


def check_key(key: str) -> str:
    """Return ``key`` if it may name a value.

    Raises
    ------
    PathError
        It is empty, absolute, has an empty part or one that leads elsewhere, or holds
        what some backend cannot keep. The message says which.
    """
    if not isinstance(key, str):
        raise _refuse(key, "it is not text")
    if not key:
        raise _refuse(key, "it is empty, which names the root")
    if key.startswith("/"):
        raise _refuse(key, "it begins with '/'")
    if key.endswith("/"):
        raise _refuse(key, "it ends in '/', which names a container")
    for segment in key.split("/"):
        if not segment:
            raise _refuse(key, "it holds '//'")
        problem = segment_problem(segment)
        if problem:
            raise _refuse(key, problem)
    size = len(key.encode())
    if size > _MOST_KEY_BYTES:
        raise _refuse(key, f"it has {size} bytes, {_MOST_KEY_BYTES} is the most")
    return key


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` without its last slash if it may name a container.

    Raises
    ------
    PathError
        It is no key and not ``""``.
    """
    if prefix == "":
        return ""
    return check_key(prefix[:-1] if prefix[-1:] == "/" and prefix != "/" else prefix)


def names_container(key: str) -> bool:
    """Say whether a key is written as listings write containers, or is the root.

    Raises
    ------
    PathError
        It is neither a key nor a prefix.
    """
    return check_prefix(key) != key or key == ""


def join_key(prefix: str, key: str) -> str:
    """Return the key of ``key`` below ``prefix``; either may be empty."""
    return f"{prefix}/{key}" if prefix and key else prefix or key


def listing(keys: Sequence[str], prefix: str, recursive: bool) -> Iterator[str]:
    """Yield what ``list_prefix`` yields, given every key in sorted order.

    Parameters
    ----------
    keys
        All keys of a backend, sorted.
    prefix
        A checked prefix, without a last slash.
    recursive
        Yield all keys below it; otherwise its children, containers with a last slash.
    """
    start = f"{prefix}/" if prefix else ""
    last = ""
    for position in range(bisect_left(keys, start), len(keys)):
        key = keys[position]
        if not key.startswith(start):
            return
        name, slash, _ = key[len(start) :].partition("/")
        child = key if recursive else f"{start}{name}{slash}"
        if child != last:
            last = child
            yield child
