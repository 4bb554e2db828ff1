"""What a stream holds, as tables and arrays of Tiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tiled.ndslice import NDBlock, NDSlice
from tiled.structures.core import Spec, StructureFamily

from bluesky_beamtime.database.streams import Stream
from bluesky_beamtime.database.variable_names import ROWS, free_name
from bluesky_beamtime.serving.datasets import datasets
from bluesky_beamtime.serving.names import apart
from bluesky_beamtime.serving.subscriptions import Unsubscribable
from bluesky_beamtime.serving.untyped import ArrayStructure, TableStructure, pa

if TYPE_CHECKING:
    import xarray as xr

TABLE = "internal"
"""Name of the table of a stream, as bluesky-tiled-plugins expects it."""


def stream_nodes(stream: Stream) -> Mapping[str, Callable[[], Any]]:
    """Return what makes each child of a stream, by name.

    One table has a column for each field with a single value per event, its timestamps
    as ``ts_<field>``, ``seq_num`` and ``time``; it is left out of a stream of
    frames that has none yet. All else is an array whose first dimension is ``time``.

    Clients see columns and arrays as one: no two have the same name.
    """
    dataset = datasets.read(stream)
    data_keys = stream.data_keys
    arrays: list[str] = []
    fields: list[str] = []
    for name, variable in dataset.variables.items():
        key = str(name)
        if key in ROWS:
            continue
        external = "external" in data_keys.get(key, {})
        is_column = variable.dims == ("time",) and not external
        (fields if is_column else arrays).append(key)
    names = apart(arrays, taken=(TABLE, *ROWS, *fields))
    nodes: dict[str, Callable[[], Any]] = {}
    if fields or dataset.sizes["time"]:
        taken = list(names.values())
        nodes[TABLE] = lambda: EventTable(stream, dataset, fields, data_keys, taken)
    for key, name in names.items():
        nodes[name] = lambda key=key, name=name: FieldArray(
            dataset[key], _described(data_keys.get(key, {}), key, name)
        )
    return nodes


def _described(data_key: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    """Return a data key that says of which field it is where the name does not."""
    return data_key if key == name else {"field": key, **data_key}


class FieldArray(Unsubscribable):
    """A field with one array per event.

    Parameters
    ----------
    values
        The field, first dimension ``time``; NumPy or dask within.
    data_key
        What the descriptor says of it.
    """

    structure_family = StructureFamily.array
    specs: Sequence[Spec] = ()
    access_tags = None

    def __init__(self, values: xr.DataArray, data_key: Mapping[str, Any]) -> None:
        self._values = values.data
        if self._values.dtype.kind == "O":
            self._values = np.asarray([_text(value) for value in values.values])
        self._dims = tuple(map(str, values.dims))
        self._data_key = data_key

    def metadata(self) -> dict[str, Any]:
        """Return the data key of the descriptor, units included."""
        return dict(self._data_key)

    def structure(self) -> Any:
        """Return shape, dtype, blocks and dimensions."""
        return ArrayStructure.from_array(self._values, dims=self._dims)

    def read(self, slice: NDSlice = NDSlice(...)) -> NDArray[Any]:  # noqa: B008  # what Tiled passes for everything
        """Return some of the values, or all.

        Raises
        ------
        IndexError
            There is nothing at such a place.
        """
        return _compute(_part(self._values, slice))

    def read_block(self, block: NDBlock, slice: NDSlice = NDSlice(...)) -> NDArray[Any]:  # noqa: B008
        """Return one of the blocks that the structure names, or some of it."""
        region = block.slice_from_chunks(self.structure().chunks)
        return _compute(_part(self._values[tuple(region)], slice))

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)


def _part(values: Any, wanted: Any) -> Any:
    if any(getattr(each, "step", None) == 0 for each in wanted):
        raise IndexError("the step of a slice is not zero")
    return values[tuple(wanted)] if wanted else values


def _compute(values: Any) -> NDArray[Any]:
    # One thread per request: the server has as many as it wants.
    compute = getattr(values, "compute", None)
    return np.asarray(values if compute is None else compute(scheduler="synchronous"))


class EventTable(Unsubscribable):
    """The fields of a stream that have one value per event.

    Parameters
    ----------
    stream
        The stream.
    dataset
        Its fields.
    fields
        Which of them.
    data_keys
        What the descriptors say.
    taken
        Names that no column may have.
    """

    structure_family = StructureFamily.table
    specs: Sequence[Spec] = ()
    access_tags = None

    def __init__(
        self,
        stream: Stream,
        dataset: xr.Dataset,
        fields: Sequence[str],
        data_keys: Mapping[str, Any],
        taken: Sequence[str] = (),
    ) -> None:
        self._stream = stream
        self._dataset = dataset
        self._fields = fields
        self._data_keys = data_keys
        self._taken = taken
        names = apart(fields, _column_name, (*ROWS, *taken))
        self._columns = {name: field for field, name in names.items()}
        self._table: Any = None

    def metadata(self) -> dict[str, Any]:
        """Return the data keys of the columns, units included."""
        keys = self._data_keys
        return {
            column: keys[field]
            for column, field in self._columns.items()
            if field in keys
        }

    def structure(self) -> Any:
        """Return the columns and their types."""
        return TableStructure.from_schema(self._arrow().schema, npartitions=1)

    def _arrow(self) -> Any:

        if self._table is not None:
            return self._table
        columns: dict[str, Any] = {
            "seq_num": self._dataset["seq_num"].values,
            "time": self._dataset["time"].values,
        }
        stamps = self._stream.timestamps()
        for column, field in self._columns.items():
            columns[column] = _arrow_values(self._dataset[field].values)
        used = {*columns, *self._taken}
        for field in self._fields:
            if field in stamps and len(stamps[field]) == len(columns["seq_num"]):
                name = free_name(f"ts_{field}", used)
                used.add(name)
                columns[name] = stamps[field].values
        self._table = pa.table(columns)
        return self._table

    def read(self, fields: Sequence[str] | str | None = None) -> Any:
        """Return a table of pandas with some of the columns, or all.

        Raises
        ------
        KeyError
            There is no such column.
        """
        table = self._arrow()
        if fields is None:
            return table.to_pandas()
        wanted = [fields] if isinstance(fields, str) else list(fields)
        for name in wanted:
            if name not in table.column_names:
                raise KeyError(name)
        return table.select(wanted).to_pandas()

    def read_partition(
        self, partition: int, fields: Sequence[str] | str | None = None
    ) -> Any:
        """Return the only partition.

        Raises
        ------
        IndexError
            Another one was asked for.
        """
        if partition:
            raise IndexError(f"there is one partition, no number {partition}")
        return self.read(fields)

    def __getitem__(self, key: str) -> FieldArray:
        """Return one column, without a look at the others where that is possible."""
        import xarray as xr

        field = self._columns.get(key)
        if field is not None:
            table = pa.table({key: _arrow_values(self._dataset[field].values)})
            column = table.to_pandas()[key]
        else:
            column = self.read([key])[key]
        values = xr.DataArray(column.to_numpy(), dims=("time",))
        return FieldArray(values, self.metadata().get(key, {}))


def _column_name(field: str) -> str:
    """Return the name of a column; Tiled keeps those with an underscore to itself."""
    return f"field{field}" if field.startswith("_") else field


def _arrow_values(values: NDArray[Any]) -> Any:
    if values.dtype.kind == "c":
        return [str(value) for value in values]
    if values.dtype.kind != "O":
        return values
    plain = [v.tolist() if isinstance(v, np.ndarray) else v for v in values]
    try:
        return pa.array(plain)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if v is None else str(v) for v in plain])


def _text(value: Any) -> str:
    return "" if value is None else str(value)
