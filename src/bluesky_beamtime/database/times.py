"""Times as people write them."""

from __future__ import annotations

import time


def local_time(seconds: float, how: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return seconds since 1970 in local time.

    It is ``–`` if no calendar has them: documents may hold any number.
    """
    try:
        return time.strftime(how, time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return "–"
