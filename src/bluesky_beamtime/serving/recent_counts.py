"""How many runs were found a moment ago, for whoever turns the pages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_SHARE = 20
"""A count that took a second serves for so many."""

_AT_MOST = 64


class RecentCounts:
    """Keeps counts for a while that grows with what they took.

    Tiled wants a count with each page. One that an index answers takes no time, one
    that looks into the metadata of every run takes longer than the page: while someone
    turns pages, no more than a twentieth of the time goes into it.

    Parameters
    ----------
    clock
        Seconds that never go back.

    Notes
    -----
    Any number of threads may ask at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[int, float]] = {}

    def of(self, question: str, count: Callable[[], int]) -> int:
        """Return how many there are, or were a moment ago.

        Parameters
        ----------
        question
            What is counted; the same text means the same.
        count
            Counts; what it raises is passed on.
        """
        began = self._clock()
        with self._lock:
            number, until = self._kept.get(question, (0, began))
        if began < until:
            return number
        number = count()
        now = self._clock()
        with self._lock:
            # Taken out first: the newest are at the end.
            self._kept.pop(question, None)
            self._kept[question] = number, now + _SHARE * (now - began)
            while len(self._kept) > _AT_MOST:
                del self._kept[next(iter(self._kept))]
        return number
