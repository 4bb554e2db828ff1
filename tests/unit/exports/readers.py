"""What other programs find in exported files: no code of ours reads them here.

Each reader returns ``{stream: {field: (values by seq_num, units)}}``, where the streams
are numbered in their order: names that files cannot have are checked apart.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_ROWS = ("seq_num", "time")
Found = dict[int, dict[str, tuple[dict[int, Any], Any]]]


def untagged(value: Any) -> Any:
    """Return what JSON text means by its tags."""
    if isinstance(value, list):
        return [untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"$float"}:
        return float(value["$float"])
    if set(value) == {"$int"}:
        return int(value["$int"])
    if set(value) == {"$complex"}:
        return complex(*untagged(value["$complex"]))
    return {key.removeprefix("$"): untagged(item) for key, item in value.items()}


def from_json(text: str) -> Any:
    """Return what a JSON text means."""

    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    return untagged(json.loads(text, parse_constant=refuse))


def column_of(name: str, names: Sequence[str]) -> str:
    """Return the name of a column: that of the rows belongs to them."""
    if name not in _ROWS:
        return name
    shown = f"{name}_value"
    while shown in names:
        shown += "_"
    return shown


def read_csv(paths: Sequence[Path], keys: Sequence[Sequence[str]]) -> Found:
    """Read tables of text; cells are texts."""
    found: Found = {}
    csv.field_size_limit(1 << 30)
    for number, (path, names) in enumerate(zip(paths, keys, strict=True)):
        with path.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        found[number] = _table(head, rows, names)
    return found


def read_xlsx(paths: Sequence[Path], keys: Sequence[Sequence[str]]) -> Found:
    """Read a workbook."""
    import openpyxl
    from openpyxl.utils.escape import unescape

    def plain(cell: Any) -> Any:
        assert cell.data_type != "f"
        return unescape(cell.value) if isinstance(cell.value, str) else cell.value

    (path,) = paths
    book = openpyxl.load_workbook(path)
    assert book.sheetnames[-1] == "run"
    found: Found = {}
    for number, names in enumerate(keys):
        sheet = book.worksheets[number]
        head, *rows = ([plain(cell) for cell in row] for row in sheet.iter_rows())
        found[number] = _table(head, rows, names)
    book.close()
    return found


def _table(head: list[Any], rows: list[list[Any]], names: Sequence[str]) -> Any:
    shown = [column_of(name, names) for name in names]
    assert len(set(head)) == len(head)
    assert head[:2] == ["seq_num", "time"]
    found: dict[str, tuple[dict[int, Any], Any]] = {}
    for name, column in zip(names, shown, strict=True):
        if column not in head:
            continue
        place = head.index(column)
        units = None
        beside = f"{name}_unit_" if f"{name}_unit" in names else f"{name}_unit"
        if beside in head and rows:
            (units,) = {row[head.index(beside)] for row in rows}
        found[name] = ({int(row[0]): row[place] for row in rows}, units)
    times = {int(row[0]): row[1] for row in rows}
    return found | {"": (times, "s")}


def read_spec(paths: Sequence[Path], keys: Sequence[Sequence[str]]) -> Found:
    """Read SPEC scans: numbers only."""
    found: Found = {}
    for number, (path, names) in enumerate(zip(paths, keys, strict=True)):
        lines = path.read_text("utf-8").splitlines()
        labels = next(line for line in lines if line[:2] == "#L")[3:].split("  ")
        count = next(line for line in lines if line[:2] == "#N")
        assert int(count[3:]) == len(labels) == len(set(labels))
        rows = [line.split() for line in lines if line and line[0] not in "#"]
        units = dict(
            line[8:].rsplit(" = ", 1) for line in lines if line.startswith("#C unit ")
        )
        place = labels.index("seq_num")
        found[number] = {}
        shown = {"": "time"} | {
            name: f"{name}_value" if name in _ROWS else " ".join(name.split()) or "_"
            for name in names
        }
        if len(labels) == 2 + len(names):
            # All of them, so that each has its place; two names may have had one label.
            shown |= dict(zip(names, labels[2:], strict=True))
        for name, label in shown.items():
            if label in labels:
                at = labels.index(label)
                values = {int(row[place]): float(row[at]) for row in rows}
                found[number][name] = (values, units.get(label))
    return found


def read_parquet(paths: Sequence[Path], keys: Sequence[Sequence[str]]) -> Found:
    """Read Parquet files; arrays come with their shapes."""
    import pyarrow.parquet as pq

    found: Found = {}
    for number, (path, names) in enumerate(zip(paths, keys, strict=True)):
        table = pq.read_table(path)
        seq_nums = table["seq_num"].to_pylist()
        found[number] = {
            "": (dict(zip(seq_nums, table["time"].to_pylist(), strict=True)), "s")
        }
        for place, name in enumerate(names, 2):
            if place >= table.num_columns:
                break
            field = table.schema.field(place)
            assert field.name == column_of(name, names)
            told = field.metadata or {}
            values = table.column(place).to_pylist()
            if told.get(b"encoding") == b"json":
                values = [None if v is None else from_json(v) for v in values]
            shape = getattr(field.type, "shape", None)
            if shape is not None:
                dtype = field.type.value_type.to_pandas_dtype()
                values = [
                    None if v is None else np.array(v, dtype).reshape(shape)
                    for v in values
                ]
            rows = dict(zip(seq_nums, values, strict=True))
            units = told.get(b"units")
            found[number][name] = (rows, units and units.decode())
    return found


def _values(dataset: Any) -> list[Any]:
    import h5py

    values = dataset[...]
    if h5py.check_string_dtype(dataset.dtype) is None:
        return list(values)
    texts = dataset.asstr()[...]
    if dataset.attrs.get("encoding") == "json":
        return [from_json(text) for text in texts]
    return list(texts)


def read_hdf5(paths: Sequence[Path], keys: Sequence[Sequence[str]]) -> Found:
    """Read the HDF5 file."""
    import h5py

    (path,) = paths
    found: Found = {}
    with h5py.File(path) as root:
        streams = list(root.get("streams", {}).values())
        streams.sort(key=lambda group: group.attrs["number"])
        for number, group in enumerate(streams):
            seq_nums = group["seq_num"][...].tolist()
            times = dict(zip(seq_nums, group["time"][...].tolist(), strict=True))
            found[number] = {"": (times, group["time"].attrs["units"])}
            for name, dataset in group["data"].items():
                mine = seq_nums
                if name in group.get("rows", {}):
                    mine = group["rows"][name][...].tolist()
                rows = dict(zip(mine, _values(dataset), strict=True))
                units = dataset.attrs.get("units")
                found[number][dataset.attrs["name"]] = (rows, units)
    return found


def read_nexus(paths: Sequence[Path], keys: Sequence[Sequence[str]]) -> Found:
    """Read the NeXus file."""
    import h5py

    (path,) = paths
    found: Found = {}
    with h5py.File(path) as root:
        entry = root["entry"]
        told = entry["bluesky/streams"].asstr()[...].tolist()
        for number, stream in enumerate(told):
            found[number] = {}
            plot = next(
                group
                for group in entry.values()
                if group.attrs.get("bluesky_name") == stream
            )
            assert plot.attrs["NX_class"] in ("NXdata", "NXcollection")
            seq_nums = plot["seq_num"][...].tolist()
            times = dict(zip(seq_nums, plot["time"][...].tolist(), strict=True))
            found[number][""] = (times, plot["time"].attrs["units"])
            for device in entry["instrument"].values():
                if device.attrs["stream"] != stream:
                    continue
                for name, dataset in device.items():
                    # A soft link is a second name of the same.
                    soft = isinstance(device.get(name, getlink=True), h5py.SoftLink)
                    if soft or "bluesky_name" not in dataset.attrs:
                        continue
                    mine = seq_nums
                    if f"{name}_seq_num" in device:
                        mine = device[f"{name}_seq_num"][...].tolist()
                    rows = dict(zip(mine, _values(dataset), strict=True))
                    units = dataset.attrs.get("units")
                    found[number][dataset.attrs["bluesky_name"]] = (rows, units)
    return found


def _datasets(engine: str) -> Callable[..., Found]:
    def read(paths: Sequence[Path], keys: Sequence[Sequence[str]]) -> Found:
        import xarray as xr

        found: Found = {}
        for number, path in enumerate(paths):
            with xr.open_dataset(path, engine=engine) as dataset:
                found[number] = dict(_variables(dataset.load()))
        return found

    return read


def _variables(dataset: Any) -> Iterable[tuple[str, tuple[dict[int, Any], Any]]]:
    times = dataset["time"]
    of_rows = dataset["seq_num"].values.tolist()
    rows = dict(zip(of_rows, times.values.tolist(), strict=True))
    yield "", (rows, times.attrs["units"])
    helpers = {"time", "seq_num"}
    for variable in dataset.variables.values():
        first = variable.dims[0] if variable.dims else ""
        if first.endswith("_event"):
            helpers.add(f"{first.removesuffix('_event')}_seq_num")
    for name, variable in dataset.variables.items():
        if name in helpers:
            continue
        first = variable.dims[0]
        if first == name:
            continue
        mine = of_rows
        if first != "time":
            if not first.endswith("_event"):
                continue
            beside = f"{first.removesuffix('_event')}_seq_num"
            mine = dataset[beside].values.tolist()
        values = dict(zip(mine, list(variable.values), strict=True))
        key = variable.attrs.get("bluesky_name", name)
        yield key, (values, variable.attrs.get("units"))


READERS: dict[str, Callable[..., Found]] = {
    "csv": read_csv,
    "xlsx": read_xlsx,
    "spec": read_spec,
    "parquet": read_parquet,
    "hdf5": read_hdf5,
    "nexus": read_nexus,
    "netcdf": _datasets("h5netcdf"),
    "zarr": _datasets("zarr"),
}
