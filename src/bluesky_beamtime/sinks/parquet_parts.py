"""The finished parts of a Parquet file that is still written, and how they become one.

Each part says in its metadata which session wrote it, and which number it has there;
the file that they become says which parts it holds. So a process that is killed after
it has put them together, and before it has taken them away, leaves nothing twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from bluesky_beamtime.errors import SinkSchemaError
from bluesky_beamtime.sinks.append_file import open_alone, sync_folder
from bluesky_beamtime.sinks.arrow import EXACT, cast_column, table_of_rows, unified
from bluesky_beamtime.sinks.layout import HEAD, TAIL

_KEY = b"bluesky_beamtime"
_READINGS_PER_GROUP = 100_000


def _parquet() -> Any:
    import pyarrow.parquet

    # It ships no types worth the name.
    return cast("Any", pyarrow.parquet)


class Parts:
    """The parts of one file.

    Parameters
    ----------
    path
        The file that they become.
    compression, use_dictionary
        How columns are stored.
    row_group_size
        Rows of a row group at most; None for the usual.
    """

    def __init__(
        self,
        path: Path,
        compression: str,
        use_dictionary: bool,
        row_group_size: int | None,
    ) -> None:
        self._path = path
        # So that the parts of x.parquet are not those of x.pq.
        self._stem = path.stem if path.suffix == ".parquet" else path.name
        self._lock: BinaryIO | None = None
        self._options = {"compression": compression, "use_dictionary": use_dictionary}
        self._row_group_size = row_group_size
        self._session, self._number, self._next = "", 0, 0
        self._unsynced: list[Path] = []
        self._growing: _Growing | None = None
        self.paths: list[Path] = []

    def lock(self) -> None:
        """Keep other sinks from the parts, of this process or another.

        Raises
        ------
        SinkWriteError
            Another sink has them.
        """
        self._lock = open_alone(self._lock_path, self._path)

    def unlock(self) -> None:
        """Let others have them."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with contextlib.suppress(OSError):
                self._lock_path.unlink()
            lock.close()

    @property
    def _lock_path(self) -> Path:
        return self._path.with_name(f".{self._stem}.parquet-lock")

    def find(self) -> list[Path]:
        """Return the parts that lie beside the file, oldest first."""
        name = re.compile(re.escape(self._stem) + r"\.part-(\d+)\.parquet")
        found: list[tuple[int, Path]] = []
        with contextlib.suppress(FileNotFoundError):
            for entry in self._path.parent.iterdir():
                if match := name.fullmatch(entry.name):
                    found.append((int(match[1]), entry))
        return [path for _, path in sorted(found)]

    def remove_all(self) -> None:
        """Take the file and its parts away."""
        self._path.unlink(missing_ok=True)
        for path in self.find():
            path.unlink()

    def open(self, session: str) -> None:
        """Begin a session; parts that the file already holds are taken away."""
        held: dict[str, int] = {}
        if self._is_there():
            held = _facts(self._path).get("parts", {})
        self.paths = []
        for path in self.find():
            facts = _facts(path)
            if facts.get("number", 0) < held.get(facts.get("session", ""), 0):
                path.unlink()
            else:
                self.paths.append(path)
        self._session, self._number = session, 0
        self._next = _number_of(self.paths[-1]) + 1 if self.paths else 1
        self._unsynced = list(self.paths)
        # What is there already has to be read again; else the file can grow beside.
        self._growing = (
            None
            if self._sources()
            else _Growing(self._path, session, self._options, self._row_group_size)
        )

    def _is_there(self) -> bool:
        if not self._path.exists() or not self._path.stat().st_size:
            return False
        # One that we made without a row has no columns that anybody chose.
        facts = _facts(self._path)
        return not facts or _parquet().read_metadata(self._path).num_rows > 0

    def _sources(self) -> list[Path]:
        return [*([self._path] if self._is_there() else []), *self.paths]

    def look(self) -> tuple[str | None, list[str] | None]:
        """Return whether it all is readings or blocks, and the names of the columns."""
        names: dict[str, None] = {}
        shape: str | None = None
        for path in self._sources():
            names.update(dict.fromkeys(_parquet().read_schema(path).names))
            shape = shape or _facts(path).get("shape", "readings")
        return shape, list(names) or None

    def write(self, table: Any, shape: str) -> None:
        """Write a table as the next part; it is there whole, or not at all."""
        facts = {"session": self._session, "number": self._number, "shape": shape}
        path = self._path.with_name(f"{self._stem}.part-{self._next:05d}.parquet")
        unfinished = path.with_name(f".{path.name}.unfinished")
        size = self._row_group_size or table.num_rows
        try:
            # It will not be there for long: quickly written, not tightly.
            _parquet().write_table(
                table.replace_schema_metadata({_KEY: json.dumps(facts)}),
                unfinished,
                row_group_size=size,
                compression="none",
                use_dictionary=table.num_rows > 5000,
                write_statistics=False,
            )
            unfinished.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        self._number += 1
        self._next += 1
        self.paths.append(path)
        self._unsynced.append(path)
        if self._growing is not None and not self._growing.add(table, shape):
            self._growing = None

    def sync(self) -> None:
        """Bring the parts to the device."""
        while self._unsynced:
            _sync(self._unsynced[-1])
            self._unsynced.pop()
        sync_folder(self._path.parent)

    # ----------------------------------------------------------- putting together

    def combine(self, shape: str | None) -> None:
        """Make one file of the file and its parts."""
        sources = self._sources()
        growing, self._growing = self._growing, None
        if sources == [self._path]:
            return
        if growing is None or not growing.finish():
            self._merge(sources, shape)
        for path in self.paths:
            path.unlink(missing_ok=True)
        self.paths, self._unsynced = [], []
        sync_folder(self._path.parent)

    def _merge(self, sources: list[Path], shape: str | None) -> None:
        unfinished = self._path.with_name(f".{self._path.name}.unfinished")
        schema = self._schema(sources, shape)
        try:
            writer = _parquet().ParquetWriter(unfinished, schema, **self._options)
            with writer:
                for group in self._groups(sources, schema, shape):
                    size = self._row_group_size or max(1, group.num_rows)
                    writer.write_table(group, row_group_size=size)
            _sync(unfinished)
            unfinished.replace(self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise

    def _schema(self, sources: list[Path], shape: str | None) -> Any:
        """Return a schema that holds the rows of all of them, with what it holds."""
        import pyarrow

        pa = cast("Any", pyarrow)
        held: dict[str, int] = {}
        kinds: dict[str, list[Any]] = {}
        for path in sources:
            schema = _parquet().read_schema(path)
            for field in schema:
                kinds.setdefault(field.name, []).append(field.type)
            facts = _facts(path)
            held.update(facts.get("parts", {}))
            if "session" in facts:
                count = facts["number"] + 1
                held[facts["session"]] = max(count, held.get(facts["session"], 0))
        fields: list[Any] = []
        for name, found in kinds.items():
            several = len(set(found)) > 1
            exact = not several or _exact_as_floats(sources, name)
            fields.append(pa.field(name, unified(found, exact)))
        facts = {"shape": shape, "parts": held}
        if not sources:
            fields = list(table_of_rows((*HEAD, *TAIL), [(None,) * 10]).schema)
        return pa.schema(fields, {_KEY: json.dumps(facts)})

    def _groups(
        self, sources: list[Path], schema: Any, shape: str | None
    ) -> Iterator[Any]:
        """Yield tables, each of which becomes a row group."""
        import pyarrow

        pa = cast("Any", pyarrow)
        size = self._row_group_size or _READINGS_PER_GROUP
        waiting: list[Any] = []
        rows = 0
        for path in sources:
            with _parquet().ParquetFile(path) as file:
                for number in range(file.num_row_groups):
                    group = _fitted(file.read_row_group(number), schema)
                    if shape == "blocks":
                        yield group
                        continue
                    waiting.append(group)
                    rows += group.num_rows
                    if rows >= size:
                        yield pa.concat_tables(waiting)
                        waiting, rows = [], 0
        if waiting:
            yield pa.concat_tables(waiting)


class _Growing:
    """The file, written beside its parts as long as its columns stay the same.

    Nobody can read it before it is finished, and it is not safe from a kill: the parts
    are. It spares reading them again at the end.
    """

    def __init__(
        self,
        path: Path,
        session: str,
        options: dict[str, Any],
        row_group_size: int | None,
    ) -> None:
        self._path = path
        self._unfinished = path.with_name(f".{path.name}.unfinished")
        self._session = session
        self._options = options
        self._row_group_size = row_group_size
        self._schema: Any = None
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._rows = 0

    def add(self, table: Any, shape: str) -> bool:
        """Add a table; False if it cannot be, and the file is given up."""
        try:
            if self._writer is None:
                self._begin(table, shape)
            elif not table.schema.equals(self._schema, check_metadata=False):
                self._give_up()
                return False
            self._waiting.append(table)
            self._rows += table.num_rows
            if shape == "blocks" or self._rows >= self._group:
                self._write()
        except Exception:
            # The parts have it all; what is wrong will be said when they are combined.
            self._give_up()
            return False
        return True

    @property
    def _group(self) -> int:
        return self._row_group_size or _READINGS_PER_GROUP

    def _begin(self, table: Any, shape: str) -> None:
        # All parts of this session, however many there will be.
        facts = {"shape": shape, "parts": {self._session: 2**53}}
        self._schema = table.schema
        schema = table.schema.with_metadata({_KEY: json.dumps(facts)})
        self._writer = _parquet().ParquetWriter(
            self._unfinished, schema, **self._options
        )

    def _write(self) -> None:
        import pyarrow

        if self._waiting:
            table = cast("Any", pyarrow).concat_tables(self._waiting)
            size = self._row_group_size or max(1, table.num_rows)
            self._writer.write_table(
                table.replace_schema_metadata(self._writer.schema.metadata),
                row_group_size=size,
            )
        self._waiting, self._rows = [], 0

    def _give_up(self) -> None:
        self._waiting = []
        with contextlib.suppress(Exception):
            if self._writer is not None:
                self._writer.close()
        with contextlib.suppress(OSError):
            self._unfinished.unlink(missing_ok=True)

    def finish(self) -> bool:
        """Put the file in its place; False if it could not be finished."""
        if self._writer is None:
            return False
        try:
            self._write()
            self._writer.close()
            _sync(self._unfinished)
            self._unfinished.replace(self._path)
        except Exception:
            self._give_up()
            return False
        return True


def _fitted(table: Any, schema: Any) -> Any:
    import pyarrow

    pa = cast("Any", pyarrow)
    there = set(table.column_names)
    columns = [
        cast_column(table.column(field.name), field.type)
        if field.name in there
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _exact_as_floats(sources: list[Path], name: str) -> bool:
    """Return whether all whole numbers of a column are exact as floats."""
    import pyarrow
    import pyarrow.compute

    pa, compute = cast("Any", pyarrow), cast("Any", pyarrow.compute)
    for path in sources:
        schema = _parquet().read_schema(path)
        if name not in schema.names or not pa.types.is_integer(schema.field(name).type):
            continue
        column = _parquet().read_table(path, columns=[name]).column(name)
        limits = compute.min_max(column).as_py()
        for limit in limits.values():
            if limit is not None and abs(limit) > EXACT:
                return False
    return True


def _facts(path: Path) -> dict[str, Any]:
    """Return what a file of ours says of itself; nothing for one of others."""
    try:
        metadata: dict[bytes, bytes] = _parquet().read_schema(path).metadata or {}
    except ValueError as error:
        raise SinkSchemaError(
            f"{path} is no finished Parquet file ({error}); move it away, or begin "
            "anew with overwrite=True"
        ) from error
    return json.loads(metadata.get(_KEY, b"{}"))


def _number_of(path: Path) -> int:
    return int(path.name.removesuffix(".parquet").rpartition("-")[2])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
