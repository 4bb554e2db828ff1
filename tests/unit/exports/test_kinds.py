"""Every kind of run in every format, read back by other programs: all of it is there.

What a format has no place for is listed here, and in the reference.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
import tifffile

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import BeamtimeWarning, ExportError
from bluesky_beamtime.testing import assert_documents_equal
from tests.exported import FORMATS

from .kinds import KINDS, Column, Kind
from .readers import READERS, from_json

TEXT_TABLES = ("csv", "xlsx")


@pytest.fixture(scope="module")
def beamtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beamtime]:
    with Beamtime(tmp_path_factory.mktemp("kinds") / "x.db") as beamtime:
        yield beamtime


@pytest.fixture(scope="module")
def kinds(beamtime: Beamtime) -> dict[str, Kind]:
    assert beamtime.path is not None
    return {name: make(beamtime, beamtime.path.parent) for name, make in KINDS.items()}


def written(beamtime: Beamtime, kind: Kind, folder: Path, to: str) -> list[Path]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BeamtimeWarning)
        return beamtime[kind.uid].export(folder / f"run.{FORMATS[to]}", to)


# ------------------------------------------------------------------- how values compare


def listed(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [listed(item) for item in value]
    if isinstance(value, bytes):
        return value.decode()
    return value


def text_of(value: str, to: str) -> str:
    """Return text as a format has it: UTF-8, and HDF5 ends it at a zero."""
    text = value.encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\0") if to in ("hdf5", "nexus", "netcdf") else text


def same(found: Any, sent: Any, to: str) -> bool:
    found, sent = listed(found), listed(sent)
    if isinstance(sent, str):
        # The text itself, or what files have in its place.
        return (found or "") in (sent, text_of(sent, to))
    if to in TEXT_TABLES and isinstance(found, str):
        # What a cell has no type for.
        found = cell_value(found, sent)
    if isinstance(found, str) and to in ("netcdf", "zarr"):
        found = from_json(found)
    if sent is None or found is None:
        # Among numbers nothing is not a number.
        empty = (None, "", "null")
        return all(
            v in empty or (isinstance(v, float) and math.isnan(v))
            for v in (found, sent)
        )
    if isinstance(sent, list):
        return len(found) == len(sent) and all(
            same(f, s, to) for f, s in zip(found, sent, strict=True)
        )
    if isinstance(sent, dict):
        return found.keys() == sent.keys() and all(
            same(found[k], sent[k], to) for k in sent
        )
    if isinstance(sent, complex):
        return same(found.real, sent.real, to) and same(found.imag, sent.imag, to)
    if isinstance(sent, float) and math.isnan(sent):
        return isinstance(found, float) and math.isnan(found)
    return found == sent and math.copysign(1, found) == math.copysign(1, sent)


def cell_value(text: str, sent: Any) -> Any:
    if isinstance(sent, bool) and text in ("True", "False"):
        return text == "True"
    if isinstance(sent, (int, float)) or sent is None:
        try:
            return int(text)
        except ValueError:
            return float(text) if text not in ("", "null") else None
    return from_json(text)


def is_plain_number(column: Column) -> bool:
    values = list(column.rows.values())
    numbers = all(
        v is None or (isinstance(v, (bool, int, float, np.number, np.bool_)))
        for v in values
    )
    # Integers that no type of NumPy holds are left as objects.
    small = all(abs(v) < 2**53 for v in values if isinstance(v, int))
    return numbers and (small or all(-(2**63) <= v < 2**64 for v in values))


def left_out(column: Column, to: str) -> bool:
    if to in TEXT_TABLES:
        return column.frames
    return to == "spec" and bool(column.rows) and not is_plain_number(column)


@pytest.mark.parametrize("to", READERS)
@pytest.mark.parametrize("name", KINDS)
def test_all_of_it_is_there(
    beamtime: Beamtime, kinds: dict[str, Kind], tmp_path: Path, name: str, to: str
) -> None:
    kind = kinds[name]
    keys = [list(columns) for columns in kind.streams.values()]
    found = READERS[to](written(beamtime, kind, tmp_path, to), keys)
    assert len(found) == len(kind.streams)
    for number, (stream, columns) in enumerate(kind.streams.items()):
        times, units = found[number].pop("")
        assert units in ("s", None)
        for seq_num, time in kind.times[stream].items():
            assert float(times[seq_num]) == time
        for key, column in columns.items():
            read = text_of(key, to)
            if left_out(column, to):
                assert read not in found[number]
                continue
            if not column.rows:
                # A table has no column for what was never measured, or an empty one.
                rows, _ = found[number].pop(read, ({}, None))
                assert all(same(value, None, to) for value in rows.values())
                continue
            rows, units = found[number].pop(read)
            if to != "spec":
                assert units == column.units, key
            for seq_num, value in rows.items():
                sent = column.rows.get(seq_num)
                if to == "spec":
                    sent = math.nan if sent is None else float(sent)
                assert same(value, sent, to), (key, seq_num, value, sent)
            assert column.rows.keys() <= rows.keys(), key
        assert not found[number], "nobody sent these"


@pytest.mark.parametrize("to", ["jsonl", "msgpack"])
@pytest.mark.parametrize("name", KINDS)
def test_documents_are_those_of_the_run(
    beamtime: Beamtime, kinds: dict[str, Kind], tmp_path: Path, name: str, to: str
) -> None:
    kind = kinds[name]
    documents = list(beamtime[kind.uid].documents())
    if (name, to) == ("values", "msgpack"):
        with pytest.raises(ExportError, match="msgpack has no type for 11805916"):
            written(beamtime, kind, tmp_path, to)
        return
    (path,) = written(beamtime, kind, tmp_path, to)
    if to == "msgpack":
        with path.open("rb") as file:
            unpacker = msgpack.Unpacker(file, object_hook=msgpack_numpy.decode)
            found = [(name, doc) for name, doc in unpacker]
        assert_documents_equal(found, documents)
        return
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [name for name, _ in lines] == [name for name, _ in documents]
    # By whom they are read back: an import into another beamtime.
    from bluesky_beamtime.database.decoding import decode

    texts = path.read_text("utf-8").splitlines()
    assert_documents_equal([tuple(decode(text)) for text in texts], documents)


@pytest.mark.parametrize("to", ["tiff", "ome-tiff"])
@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_of_the_cameras(
    beamtime: Beamtime, kinds: dict[str, Kind], tmp_path: Path, name: str, to: str
) -> None:
    kind = kinds[name]
    sent = [
        np.array([column.rows[n] for n in sorted(column.rows)])
        for columns in kind.streams.values()
        for column in columns.values()
        if column.frames
    ]
    if not sent:
        with pytest.raises(ExportError, match="has no frames"):
            written(beamtime, kind, tmp_path, to)
        return
    if (name, to) == ("pixels", "ome-tiff"):
        with pytest.raises(ExportError, match="no pixels of type uint64"):
            written(beamtime, kind, tmp_path, to)
        return
    paths = written(beamtime, kind, tmp_path, to)
    assert len(paths) == len(sent)
    for path, expected in zip(paths, sent, strict=True):
        np.testing.assert_array_equal(tifffile.imread(path), expected)
