"""One stream of a run, as an xarray.Dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import func, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.descriptions import Descriptions, Setting
from bluesky_beamtime.database.reading import StreamReading
from bluesky_beamtime.database.rowframes import RowFrames
from bluesky_beamtime.database.variable_names import variable_names

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from bluesky_beamtime.database.runs import Run


class Stream:
    """The events of one name in one run, such as ``primary`` or ``baseline``.

    Made by :class:`~bluesky_beamtime.database.Run`; reads what is there at each call,
    also while the run is going on.

    Attributes
    ----------
    run : Run
        The run.
    name : str
        Name of the stream.
    """

    def __init__(self, run: Run, name: str) -> None:
        self.run = run
        self.name = name
        self._database = run.database

    # ------------------------------------------------------------------ description

    @property
    def descriptors(self) -> list[dict[str, Any]]:
        """The EventDescriptors, oldest first; several if it was described anew."""
        return [decode(text) for _, text in self.descriptor_rows()]

    def descriptor_rows(self) -> list[tuple[str, str]]:
        """Return uid and JSON text of each EventDescriptor, oldest first."""
        table = schema.streams
        query = (
            select(table.c.uid, table.c.descriptor)
            .where(table.c.run_uid == self.run.uid, table.c.name == self.name)
            .order_by(table.c.ordinal)
        )
        with self._database.reading() as connection:
            return [(row.uid, row.descriptor) for row in connection.execute(query)]

    @property
    def data_keys(self) -> dict[str, dict[str, Any]]:
        """What each field is: source, dtype, shape, units.

        A field whose units changed within the stream has none here; see
        :attr:`units_of_rows`.
        """
        return Descriptions(self).data_keys()

    @property
    def units_of_rows(self) -> dict[str, list[tuple[int, str | None]]]:
        """The units of each field that does not have the same in all rows.

        ``{field: [(seq_num, units), …]}``, each with the first event that has them;
        empty unless a device was configured within the run so that its units changed.
        """
        return Descriptions(self).units_of_rows()

    @property
    def configuration(self) -> dict[str, dict[str, Any]]:
        """Settings of each device, ``{device: {field: value}}``.

        Of one that was changed within the run the last; see
        :attr:`configuration_changes`.
        """
        return Descriptions(self).configuration()

    @property
    def configuration_units(self) -> dict[str, dict[str, str]]:
        """Units of the settings that have some, ``{device: {field: unit}}``."""
        return Descriptions(self).configuration_units()

    @property
    def configuration_changes(self) -> dict[str, dict[str, list[Setting]]]:
        """Settings that were changed within the run, ``{device: {field: […]}}``.

        Each value of a setting, the first one too, with the ``seq_num`` of the first
        event that was taken with it: an exposure that ``bps.configure`` made longer
        after two events is ``[Setting(1, 0.1, "s"), Setting(3, 0.5, "s")]``.
        """
        return Descriptions(self).configuration_changes()

    @property
    def num_events(self) -> int:
        """Events so far; of a stream that only has frames, rows of frames."""
        uids = [uid for uid, _ in self.descriptor_rows()]
        events, datums = schema.events, schema.stream_datums
        with self._database.reading() as connection:
            # A seq_num that was repeated after a pause is one event.
            count = connection.execute(
                select(func.count(events.c.seq_num.distinct())).where(
                    events.c.stream_uid.in_(uids)
                )
            ).scalar_one()
            if count:
                return count
            last = connection.execute(
                select(func.max(datums.c.seq_stop)).where(datums.c.stream_uid.in_(uids))
            ).scalar()
        return 0 if last is None else last - 1

    def __len__(self) -> int:
        return self.num_events

    def __iter__(self) -> Iterator[str]:
        return iter(self.data_keys)

    def __contains__(self, field: object) -> bool:
        return field in self.data_keys

    def __getitem__(self, field: str) -> xr.DataArray:
        return self.read([field])[variable_names(self.data_keys).get(field, field)]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.data_keys)

    # ---------------------------------------------------------------------- reading

    def read(
        self,
        fields: Iterable[str] | str | None = None,
        *,
        chunks: Literal["auto"] | None = "auto",
    ) -> xr.Dataset:
        """Return the stream as a Dataset; frames are read when they are looked at.

        Parameters
        ----------
        fields
            Names of the fields; by default all that can be read.
        chunks
            ``"auto"`` gives frames as dask arrays, blocks of a few frames each; None
            without dask, as arrays that read what is indexed.

        Returns
        -------
        xarray.Dataset
            Dimension ``time``, one row per event in the order of ``seq_num``; of an
            event that was repeated after a pause the last. Coordinates ``time``
            (float64, seconds since 1970, NaN where nobody took it) and ``seq_num``; the
            time of each frame ``<key>_time`` is a coordinate too, and so are the
            positions of axes at each frame, ``<key>_<axis>``. Frames are dask arrays
            with dimensions ``time``, ``<key>_y``, ``<key>_x``, and ``<key>_frame``
            after ``time`` if an event has several. Of a run that is going on: the
            events that are complete in every field. A field that is called ``time`` or
            ``seq_num`` is the variable ``time_value``, or ``time_value_`` if there is
            such a field too. Long texts, and texts that are
            missing now and then, are objects; pandas holds no half of a surrogate pair
            among these, which stands there as its escape. A field whose units changed
            within the run has no ``units``, but ``units_of_rows``, and a warning says
            so.

        Raises
        ------
        RunNotFoundError
            There is no field of this name.
        StorageError
            The frames of a field that was asked for cannot be read. Those that nobody
            asked for by name are left out with a warning.
        """
        reading = StreamReading(self, fields, dask=chunks is not None)
        reading.warn_of_units(stacklevel=3)
        return reading.dataset()

    def frames(self, field: str) -> RowFrames:
        """Return the frames of a field as a lazy array: indexing it reads frames.

        Parameters
        ----------
        field
            Name of a camera, or of a field with arrays.

        Returns
        -------
        RowFrames
            Has ``shape`` (events first), ``dtype`` and ``len``; what indexing returns
            is a NumPy array. Row ``n`` belongs to row ``n`` of :meth:`read`
            of this field.

        Raises
        ------
        RunNotFoundError
            There is no field of this name.
        DocumentError
            The field has no frames, or they have not one shape.
        StorageError
            They cannot be read.
        """
        return StreamReading(self, [field]).frames(field)

    def to_pandas(self, fields: Iterable[str] | str | None = None) -> pd.DataFrame:
        """Return a table of the fields with one value per event, by ``seq_num``.

        Parameters
        ----------
        fields
            Names of the fields; by default all that have one value per event.
        """
        import pandas as pd

        reading = StreamReading(self, fields, scalars=True)
        reading.warn_of_units(stacklevel=3)
        dataset = reading.dataset()
        columns: dict[str, Any] = {"time": dataset["time"].values}
        columns |= {
            str(name): variable.values
            for name, variable in dataset.data_vars.items()
            if variable.dims == ("time",)
        }
        index = pd.Index(dataset["seq_num"].values, name="seq_num")
        return pd.DataFrame(columns, index=index)

    table = to_pandas

    def timestamps(self) -> xr.Dataset:
        """Return when each value was taken, by the clock of its device.

        Returns
        -------
        xarray.Dataset
            A variable
            per field, float64, seconds since 1970.
        """
        return StreamReading(self, None, scalars=True, part="timestamps").timestamps()

    def to_grid(
        self, fields: Iterable[str] | str | None = None, *, fill: Any = None
    ) -> xr.Dataset:
        """Return a grid scan with one dimension per axis instead of ``time``.

        Parameters
        ----------
        fields
            Names of the fields; by default all that can be read. The motors are those
            of the plan, whether they are among them or not.
        fill
            What stands where nothing was measured (yet), such as 0 or -1, so that
            integers stay integers; by default NaN. The coordinate ``measured`` says
            where there is a measurement.

        Returns
        -------
        xarray.Dataset
            The axes' coordinates are the mean readings along each axis; where nothing
            was measured, what the plan intended. The readings themselves are the
            variables ``<motor>_readback``. Integers become floats if a point is missing
            and no ``fill`` is given; ``seq_num`` is 0 there.

        Raises
        ------
        DocumentError
            The run is no grid scan, this stream does not belong to the grid, or its
            events cannot be told to be each at a point of its own: there are more
            of them than points, or the plan does not run row by row, as a square
            spiral, and the readings of its motors are not where its ``extents`` say.
        """
        from bluesky_beamtime.database.grids import axis_fields, to_grid

        start = self.run.start
        wanted = fields
        if fields is not None:
            named = [fields] if isinstance(fields, str) else list(fields)
            axes = [field for field in axis_fields(start) if field in self]
            wanted = list(dict.fromkeys([*named, *axes]))
        return to_grid(start, self.name, self.read(wanted), fill=fill)

    def plot(self, field: str | None = None, *, axes: Any = None) -> Any:
        """Draw the newest frame of a field, or its values against the first motor.

        Parameters
        ----------
        field
            What to draw; by default the first camera, else the first number.
        axes
            Matplotlib axes to draw into; by default those of a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            ``.figure`` is what shows or saves it.

        Raises
        ------
        DocumentError
            There is nothing that can be drawn.
        MissingExtraError
            Matplotlib is not installed.
        """
        from bluesky_beamtime.database.display import plot_stream

        return plot_stream(self, field, axes)

    def __repr__(self) -> str:
        count = self.num_events
        keys = ", ".join(self.data_keys)
        what = "event" if count == 1 else "events"
        return f"<Stream {self.name!r} of {self.run.label}: {count} {what}, {keys}>"

    def _repr_html_(self) -> str:
        from bluesky_beamtime.database.display import stream_html

        return stream_html(self)
