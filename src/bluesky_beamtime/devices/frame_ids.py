"""The ids of an acquisition's frames: what is missing among them."""

from __future__ import annotations

REORDER = 1024
"""Ids behind the newest within which a frame is taken for a straggler."""

_WIDTHS = (16, 31, 32, 63, 64)
_WRAP_WINDOW = 1 << 14
_RESTART = 3


class FrameIds:
    """Finds lost frames by the ids of those that came.

    An id that is skipped counts as lost at once, and no more when its frame comes after
    all. An id that comes twice is a repeated frame and loses nothing. A counter that
    overflows goes on: it is recognised at 16, 31, 32, 63 and 64 bits by a step from
    near its end to near 0, and others by ``id_range``. A source that was restarted
    begins again at a small id; what it lost meanwhile its ids cannot tell.

    Parameters
    ----------
    id_range
        First and last id of a counter that begins again at the first, such as
        ``(1, 65535)`` of GigE Vision; None to find out.

    Attributes
    ----------
    lost : int
        Ids that were skipped and have not come since.
    repeated : int
        Frames whose id had come before.
    """

    def __init__(self, id_range: tuple[int, int] | None = None) -> None:
        self.lost = 0
        self.repeated = 0
        self._declared = id_range is not None
        self._first, self._size = 0, 0
        if id_range is not None:
            first, last = id_range
            if not 0 <= first < last:
                raise ValueError(
                    f"id_range is the first and the last id of a counter, not "
                    f"{id_range!r}"
                )
            self._first, self._size = first, last - first + 1
        self._newest: int | None = None
        self._missing: set[int] = set()
        self._behind: list[int] = []

    def take(self, frame_id: int) -> None:
        """Take the id of the next frame that came."""
        newest = self._newest
        number = frame_id - self._first
        if newest is None:
            self._newest = number
            return
        number = self._unwrapped(number, newest)
        ahead = number - newest
        if ahead > 0:
            self._behind.clear()
            self._skip(newest + 1, number)
            self._newest = number
        elif number in self._missing:
            self._missing.discard(number)
            self.lost -= 1
        else:
            self.repeated += 1
            self._look_for_restart(number, ahead)

    def begin_anew(self) -> None:
        """Take the next id for the first of another count; what was lost stays lost."""
        self._newest = None
        self._missing.clear()
        self._behind.clear()

    def _unwrapped(self, number: int, newest: int) -> int:
        """Return the number in a count that never overflows."""
        if not self._declared:
            if not self._size:
                self._size = _wrapped(number, newest)
            elif number >= self._size:
                # A counter this narrow could not say so: it was a restart.
                self._size = 0
        if not self._size:
            return number
        half = self._size >> 1
        return newest + (number - newest + half) % self._size - half

    def _skip(self, first: int, stop: int) -> None:
        self.lost += stop - first
        self._missing.update(range(max(first, stop - REORDER), stop))
        if len(self._missing) > 2 * REORDER:
            oldest = stop - REORDER
            self._missing = {one for one in self._missing if one >= oldest}

    def _look_for_restart(self, number: int, ahead: int) -> None:
        behind = self._behind
        if behind and not 0 < number - behind[-1] <= REORDER:
            behind.clear()
        behind.append(number)
        if ahead == 0 or len(behind) < (_RESTART if ahead >= -REORDER else 2):
            return
        # Ids that rise again, far from where they were: another count has begun.
        self.repeated -= len(behind)
        self._missing.clear()
        self._newest = behind[0]
        for one in behind[1:]:
            self._skip(self._newest + 1, one)
            self._newest = one
        behind.clear()


def _wrapped(number: int, newest: int) -> int:
    """Return the size of the counter that has overflowed between two ids, else 0."""
    for width in _WIDTHS:
        size = 1 << width
        if number < _WRAP_WINDOW and size - _WRAP_WINDOW <= newest < size:
            return size
    return 0
