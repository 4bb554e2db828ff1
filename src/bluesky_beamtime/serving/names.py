"""Names under which fields and streams are served: each its own, fit for a path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from bluesky_beamtime.database.variable_names import free_name

# A slash would be another level; the guard refuses backslashes and what could become
# a slash; clients of Tiled put the others into addresses as they are.
_NOT_IN_PATHS = re.compile(r"[/\\?#\x00-\x1f\x7f]|%(?=[0-9A-Fa-f]{2})")


def path_name(key: str) -> str:
    """Return a name that can stand in a path."""
    name = _NOT_IN_PATHS.sub("_", key)
    return "_" * (len(name) or 1) if name in ("", ".", "..") else name


def apart(
    keys: Iterable[str],
    change: Callable[[str], str] = path_name,
    taken: Iterable[str] = (),
) -> dict[str, str]:
    """Return a name for each key, no two alike.

    Parameters
    ----------
    keys
        What is named.
    change
        Makes a name of a key. Keys that it leaves alone keep their names, whatever
        comes before them.
    taken
        Names that are not free.
    """
    used = set(taken)
    names = {key: change(key) for key in keys}
    kept = {key for key, name in names.items() if key == name and key not in used}
    used |= kept
    for key, name in names.items():
        if key not in kept:
            names[key] = free_name(name, used)
            used.add(names[key])
    return names
