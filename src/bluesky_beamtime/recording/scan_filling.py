"""One run on its way into the array of a ScanStorage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database.grids import check_fits
from bluesky_beamtime.errors import (
    DocumentError,
    ScanMismatchError,
    StorageError,
    StoreStateError,
)
from bluesky_beamtime.recording.point_values import PointReader, PointValues
from bluesky_beamtime.recording.scan_plan import (
    ScanPlan,
    choose_field,
    declared_cell,
    declared_type,
    describe_scan,
    plan_scan,
)
from bluesky_beamtime.storage.scan_values import cast_exactly

if TYPE_CHECKING:
    from bluesky_beamtime.storage import ScanStorage

Document = Mapping[str, Any]
_MOST_MISSED_EVENTS = 1024  # They hold arrays perhaps; StreamDatums do not.


class ScanFilling:
    """Fills the reserved array of a storage with the points of one run.

    Parameters
    ----------
    storage
        Where to.
    start
        The RunStart document.
    field
        The field to take; None for what the devices hint at.
    stream
        Name of the stream.
    fill
        What stands where nothing was measured.
    open_array
        Opens what a StreamResource tells of.
    claim
        Called before the storage is reserved; raises if it may not be.

    Attributes
    ----------
    missed : list
        Documents whose values could not be taken, to be tried again at the end.
    """

    def __init__(
        self,
        storage: ScanStorage,
        start: Document,
        field: str | None,
        stream: str,
        fill: Any,
        open_array: Callable[[Document], Any] | None,
        claim: Callable[[ScanFilling], None],
    ) -> None:
        self._claim = claim
        self._storage = storage
        self._start = start
        self._asked, self._fill = field, fill
        self._stream = stream
        self._reader = PointReader(stream, open_array)
        self._field = ""
        self._plan: ScanPlan | None = None
        self._wanted: set[str] = set()
        self._positions: dict[str, NDArray[np.float64]] = {}
        self._visited: list[NDArray[np.bool_]] = []
        self._cell: tuple[int, ...] | None = None
        self._buffer: Path | None = None
        self._dtype = np.dtype(np.float64)
        self._touched = self._axes_are_old = False
        self._number = 0
        self._newest: dict[str, NDArray[np.int64]] = {}
        self.missed: list[tuple[int, str, Document]] = []
        self._forgotten = 0
        self._newest_point = 0

    @property
    def label(self) -> str:
        """Name of the run for messages."""
        number, name = self._start.get("scan_id"), self._start.get("plan_name", "run")
        return f"{name} {number}" if number is not None else str(name)

    @property
    def reserved(self) -> bool:
        """Whether the array of this run is reserved and not yet being saved."""
        return self._buffer is not None and self._storage.buffer == self._buffer

    def take(self, name: str, doc: Document) -> None:
        """Take a document of the run.

        Raises
        ------
        DocumentError
            The run makes no array.
        StoreStateError
            The array was saved or replaced by somebody else meanwhile.
        StorageError
            Values that cannot be read, do not fit, or cannot be written; later ones may
            do better.
        """
        self._number += 1
        self._take(self._number, name, doc)

    def _take(self, number: int, name: str, doc: Document) -> None:
        if name == "descriptor":
            if self._reader.descriptor(doc) and self._plan is None:
                self._begin(doc)
        elif name == "stream_resource":
            self._reader.resource(doc)
        elif self._plan is not None:
            try:
                for points in self._reader.read(name, doc, self._wanted):
                    self._put(self._plan, points, number)
            except StoreStateError:
                raise
            except Exception:
                if name == "stream_datum" or len(self.missed) < _MOST_MISSED_EVENTS:
                    self.missed.append((number, name, doc))
                else:
                    self._forgotten += 1
                raise

    def refresh(self) -> None:
        """Write the axes as far as they are known by now, if they have changed.

        Raises
        ------
        StorageError
            They cannot be written; the data are not touched.
        """
        if self._axes_are_old and self._plan is not None and self.reserved:
            self._storage.set_axes(self._plan.axes(self._positions))
            self._axes_are_old = False

    def end(self, stop: Document | None) -> None:
        """Save what there is, with its axes; what comes after begins a new array.

        Parameters
        ----------
        stop
            The RunStop document; None if none came.

        Raises
        ------
        StorageError
            Values that were missed before, and again, or too many to be kept.
        DocumentError
            There were more points than the plan said: what was saved says so too.
        """
        failure: Exception | None = None
        missed, self.missed = self.missed, []
        for number, name, doc in missed:
            try:
                self._take(number, name, doc)
            except Exception as error:
                failure = failure or error
        if self._plan is not None and self.reserved:
            tags: dict[str, Any] = {}
            if stop is not None:
                tags["exit_status"] = stop.get("exit_status")
            others = self._plan.others(self._positions)
            if others:
                tags["positions"] = others
            try:
                check_fits(self._newest_point, self._plan.shape)
            except DocumentError as error:
                # What was measured is kept, but not as if it were where it seems to be.
                tags["problem"] = str(error)
                failure = failure or error
            self._storage.save(self._plan.axes(self._positions), tags=tags)
            # What comes after, if anything does, goes to an array of its own.
            self._buffer = self._cell = None
            self._touched = False
        if failure is not None:
            raise failure
        if self._forgotten:
            raise StorageError(
                f"{self._forgotten} events of {self.label} came after too many that "
                "failed and are not in its array; to_grid() of the run has them"
            )

    # ------------------------------------------------------------------------ layout

    def _begin(self, descriptor: Document) -> None:
        keys = self._reader.data_keys
        self._field = choose_field(self._asked, descriptor, self._start)
        plan = plan_scan(self._start, self._stream, self._field, keys)
        moved = {field for axis in plan.fields for field in axis}
        self._positions = {field: np.full(plan.shape, np.nan) for field in moved}
        self._visited = [np.zeros(size, bool) for size in plan.shape]
        self._wanted = {self._field, *moved}
        points = math.prod(plan.shape)
        self._newest = {key: np.zeros(points, np.int64) for key in self._wanted}
        self._plan = plan
        declared = declared_cell(keys[self._field])
        if declared is not None:
            self._reserve(plan, *declared)

    def _reserve(
        self, plan: ScanPlan, cell: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._claim(self)
        self._storage.reserve(
            (*plan.shape, *cell),
            self._fill,
            dtype=dtype,
            axes=plan.axes(self._positions),
            tags=describe_scan(
                plan, self._stream, self._field, self._reader.data_keys, len(cell)
            ),
            autosave=False,
        )
        self._cell, self._dtype = cell, dtype
        self._buffer = self._storage.buffer

    # ------------------------------------------------------------------------ values

    def _put(self, plan: ScanPlan, points: PointValues, number: int) -> None:
        cells = plan.cells(points.seq_nums)
        newest_point = int(points.seq_nums.max(initial=0))
        self._newest_point = max(self._newest_point, newest_point)
        inside = np.flatnonzero(cells >= 0)
        # What is tried again does not replace what was measured since.
        newest = self._newest[points.key]
        inside = inside[newest[cells[inside]] <= number]
        if points.key in self._positions:
            self._note_positions(plan, points, cells, inside)
        if points.key == self._field and len(inside):
            self._fill_in(plan, points, cells, inside)
        newest[cells[inside]] = number

    def _note_positions(
        self,
        plan: ScanPlan,
        points: PointValues,
        cells: NDArray[np.intp],
        inside: NDArray[np.intp],
    ) -> None:
        try:
            values = np.asarray(points.values, np.float64)
        except (TypeError, ValueError):
            return
        means = values.reshape(len(values), -1).mean(axis=1)
        self._positions[points.key].flat[cells[inside]] = means[inside]
        if points.key not in plan.coordinates:
            return
        number = plan.coordinates.index(points.key)
        steps = np.unravel_index(cells[inside], plan.shape)[number]
        # Not at every point: the mean of a position wanders with each reading.
        if not self._visited[number][steps].all():
            self._visited[number][steps] = True
            self._axes_are_old = True

    def _fill_in(
        self,
        plan: ScanPlan,
        points: PointValues,
        cells: NDArray[np.intp],
        inside: NDArray[np.intp],
    ) -> None:
        cell = tuple(points.values.shape[1:])
        if not self._touched:
            dtype = self._type_of(points.values)
            if (cell, dtype) != (self._cell, self._dtype):
                self._reserve(plan, cell, dtype)
        if not self._storage.enabled or (self._buffer is None and not self._touched):
            return
        if not self.reserved:
            raise StoreStateError(
                f"the array of {self.label} was saved or replaced while the run went "
                "on; the points after that are not in it"
            )
        places = np.unravel_index(cells[inside], plan.shape)
        indices = zip(*(axis.tolist() for axis in places), strict=True)
        values = points.values[inside]
        self._storage.update(dict(zip(indices, values, strict=True)))
        self._touched = True

    def _type_of(self, values: NDArray[Any]) -> np.dtype[Any]:
        """Return the declared type, unless the values do not fit into it."""
        declared = declared_type(self._reader.data_keys[self._field])
        if declared is None or values.dtype.kind == "b":
            return values.dtype
        try:
            cast_exactly(values, declared, self._field)
        except ScanMismatchError:
            return values.dtype
        return declared
