"""What an NTNDArray says about its frame beside the pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bluesky_beamtime.devices.ntndarray import (
    PvaAttribute,
    attributes,
    colour_mode,
    numbers,
)
from bluesky_beamtime.errors import SourceError

COLOUR_MODE = "color_mode"
"""Under this name the configuration says what the samples of a pixel are."""


class PvaAttributes:
    """Attributes of frames: some recorded with each, the others once.

    Numbers that change from frame to frame have a :class:`FrameNumber` each; all others
    are configuration.

    Parameters
    ----------
    pv
        Name of the NTNDArray PV, for messages.
    names
        Those to record with each frame; None for all numbers that follow a PV, a
        parameter of the driver or a function of the IOC.
    """

    def __init__(self, pv: str, names: Sequence[str] | None = None) -> None:
        self._pv = pv
        self._asked = None if names is None else frozenset(names)
        self._known: dict[str, PvaAttribute] = {}
        self._colour = ""
        self._chosen: frozenset[str] = frozenset()
        self._current: dict[str, float] = {}
        self._numbers: tuple[FrameNumber, ...] = ()

    def learn(self, value: Any) -> None:
        """Look which attributes frames have.

        Raises
        ------
        SourceError
            One that was asked for is not there, or is no number.
        """
        self._known = attributes(value)
        self._colour = colour_mode(value)
        found = {
            name: one
            for name, one in self._known.items()
            if isinstance(one.value, (int, float))
        }
        if self._asked is None:
            self._chosen = frozenset(n for n, one in found.items() if one.changes)
        else:
            self._chosen = self._asked
            for name in sorted(self._asked - found.keys()):
                raise SourceError(
                    f"frames of PV {self._pv!r} have no number among their attributes "
                    f"that is called {name!r}; they have "
                    f"{', '.join(sorted(found)) or 'none'}"
                )
        if sorted(self._chosen) != [one.attribute for one in self._numbers]:
            # Kept as they are otherwise: the arrays are told by them.
            self._numbers = tuple(
                FrameNumber(name, self._known[name].source, self._current)
                for name in sorted(self._chosen)
            )

    def look(self, value: Any) -> None:
        """Take the numbers of the frame that is delivered next."""
        self._current.clear()
        self._current.update(numbers(value, self._chosen))

    @property
    def per_frame(self) -> tuple[FrameNumber, ...]:
        """The numbers that are recorded with each frame."""
        return self._numbers

    @property
    def configuration(self) -> Mapping[str, float | int | str]:
        """The others, by name, and the colour mode as :data:`COLOUR_MODE`."""
        fixed = {
            name: one.value
            for name, one in self._known.items()
            if name not in self._chosen and name != "ColorMode"
        }
        return {COLOUR_MODE: self._colour, **fixed}


class FrameNumber:
    """One number that comes with each frame, as what stands beside it in the store.

    It looks like the track of an axis whose position is always known: that of the frame
    being delivered. Of exposures that are averaged it is the last one's.
    """

    units: str | None = None
    until = math.inf

    def __init__(
        self, attribute: str, source: str, current: Mapping[str, float]
    ) -> None:
        self.attribute = attribute
        self.name = _key(attribute)
        self.source = source or f"attribute {attribute}"
        self._current = current

    def at(self, moment: float) -> float:
        """Return the number; NaN if the frame came without."""
        return self._current.get(self.attribute, math.nan)


def _key(attribute: str) -> str:
    """Return the end of a data key for an attribute."""
    key = "".join(c if c.isalnum() or c == "_" else "_" for c in attribute)
    # The stamps of frames are called so.
    return f"{key}_attribute" if key in ("time", "id") else key
