"""Names of fields and devices as files can have them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from zlib import crc32

_LONGEST = 120


def safe_name(name: str) -> str:
    """Return a name that every file system takes."""
    return _shorter(re.sub(r"[^\w.+-]+", "_", name).strip(".")) or "_"


def level_name(name: str) -> str:
    """Return a name of one level of a hierarchy: a slash would begin another one."""
    safe = _shorter(re.sub(r"[/\x00-\x1f\ud800-\udfff]", "_", name))
    # A leading dot is a hidden file, or the folder above.
    return f"_{safe}" if not safe or safe[0] == "." else safe


def nexus_name(name: str) -> str:
    """Return a name that NeXus allows: letters, digits, underscores, no digit first."""
    safe = _shorter(re.sub(r"[^A-Za-z0-9_]", "_", name))
    return f"_{safe}" if not safe or safe[0].isdigit() else safe


def _shorter(name: str) -> str:
    """Return a name that is no longer than file systems allow, in any encoding."""
    if len(name.encode("utf-8", "replace")) <= 2 * _LONGEST:
        return name
    begin = name.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore")
    return f"{begin}_{crc32(name.encode('utf-8', 'replace')):08x}"


def unique_names(
    names: Iterable[str],
    safe: Callable[[str], str],
    taken: Iterable[str] = (),
) -> dict[str, str]:
    """Return a name for each name, none of them twice whatever the case of letters.

    Parameters
    ----------
    names
        The names, each once.
    safe
        What becomes of a name by itself.
    taken
        Names that cannot be used.
    """
    used = {name.casefold() for name in taken}
    found: dict[str, str] = {}
    for name in names:
        plain = free = safe(name)
        number = 2
        while free.casefold() in used:
            free, number = f"{plain}_{number}", number + 1
        used.add(free.casefold())
        found[name] = free
    return found
