"""Fields of streams, as every format takes them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database import Stream
from bluesky_beamtime.database.kinds import mapping_in, texts_in

BLOCK_BYTES = 8 << 20
"""What is held in memory at a time of a stack of frames."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Coordinates along an axis of each value, such as the energies of a spectrum."""

    name: str
    """Their name."""
    dim: str
    """Name of the axis."""
    values: NDArray[Any]
    """One for each place."""
    units: str | None
    """Their units, None without."""


@dataclass(frozen=True, slots=True)
class Field:
    """One data key of one stream, with a row for each event that has it."""

    key: str
    """Data key."""
    stream: str
    """Name of the stream."""
    device: str
    """Name of the object that it belongs to."""
    data_key: Mapping[str, Any]
    """What the descriptor says of it."""
    seq_nums: NDArray[np.int64]
    """Sequence number of each row, ascending."""
    values: Any
    """NumPy array, or a lazy one with the same ``[start:stop]``; rows first."""
    taken: Callable[[], NDArray[np.float64] | None] = lambda: None
    """Reads :attr:`timestamps`."""
    dims: tuple[str, ...] = ()
    """Names of the axes behind that of the rows."""
    axes: tuple[Axis, ...] = ()
    """Coordinates of those axes that have some."""
    units_of_rows: Sequence[tuple[int, str | None]] = ()
    """Units, each with the ``seq_num`` from which they hold, if they changed."""

    @property
    def units(self) -> str | None:
        """Units of all rows, None without."""
        units = self.data_key.get("units")
        return units if isinstance(units, str) else None

    @property
    def timestamps(self) -> NDArray[np.float64] | None:
        """When each value was taken, seconds since 1970; None where nobody says."""
        return self.taken()

    @property
    def attributes(self) -> dict[str, Any]:
        """What the descriptor says of the values themselves."""
        named = ("units", "precision", "source")
        told = {k: self.data_key[k] for k in named if self.data_key.get(k) is not None}
        changed = {"units_of_rows": self.units_of_rows} if self.units_of_rows else {}
        return told | changed

    @property
    def has_units(self) -> bool:
        """Whether any row has units."""
        return self.units is not None or bool(self.units_of_rows)

    def units_at(self, seq_nums: NDArray[np.int64]) -> list[str | None]:
        """Return the units at some sequence numbers."""
        if not self.units_of_rows:
            return [self.units] * len(seq_nums)
        begins = [seq_num for seq_num, _ in self.units_of_rows]
        places = np.searchsorted(begins, seq_nums, side="right") - 1
        return [self.units_of_rows[max(0, place)][1] for place in places.tolist()]

    @property
    def streamed(self) -> bool:
        """Whether its values are in files of the detector."""
        return self.data_key.get("external") == "STREAM:"

    def is_coordinate(self, keys: Container[str]) -> bool:
        """Say whether it tells when or where, of another field.

        Parameters
        ----------
        keys
            Data keys of the stream.
        """
        of: Any = self.data_key.get("coordinate_of")
        if isinstance(of, str) and of != self.key and of in keys:
            return True
        camera = self.key.removesuffix("_time")
        return self.streamed and camera != self.key and camera in keys

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, rows first."""
        return tuple(self.values.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values; ``object`` for what has no common type or shape."""
        return np.dtype(self.values.dtype)

    @property
    def is_image(self) -> bool:
        """Whether each row is a frame or several."""
        return len(self.shape) > 2

    @property
    def frames_per_row(self) -> int | None:
        """Frames of one event; None for one, without an axis of its own."""
        return getattr(self.values, "per_row", None)

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield the rows a few megabytes at a time, each with its first row's index."""
        row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        step = max(1, BLOCK_BYTES // max(1, row_bytes))
        for first in range(0, self.shape[0], step):
            yield first, np.asarray(self.values[first : first + step])


@dataclass(frozen=True, slots=True)
class StreamContent:
    """One stream of a run."""

    stream: Stream
    """The stream itself, with its descriptors and settings."""
    seq_nums: NDArray[np.int64]
    """Sequence numbers that any field has, ascending."""
    times: NDArray[np.float64]
    """Time of each, seconds since 1970; NaN where nobody took it."""
    fields: Mapping[str, Field]
    """The fields by data key."""
    attributes: Mapping[str, Any]
    """What is known of the run, in simple values: a Dataset has it as attributes."""
    names: Mapping[str, str]
    """Names of the fields where ``time`` and ``seq_num`` are those of the rows."""

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self.stream.name

    @property
    def images(self) -> list[Field]:
        """The fields whose rows are frames."""
        return [field for field in self.fields.values() if field.is_image]

    @property
    def hinted(self) -> list[str]:
        """Data keys that the devices recommend for a plot."""
        keys: list[str] = []
        for descriptor in self.stream.descriptors:
            for hint in mapping_in(descriptor.get("hints")).values():
                keys += texts_in(mapping_in(hint).get("fields"))
        return [key for key in dict.fromkeys(keys) if key in self.fields]
