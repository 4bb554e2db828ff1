"""The finished parts of a Parquet file that is still written, and how they become one.

Each part says in its metadata which session wrote it, and which number it has there;
the file that they become says which parts it holds. So a process that is killed after
it has put them together, and before it has taken them away, leaves nothing twice.
"""

from __future__ import annotations

import contextlib
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, cast

from bluesky_beamtime.sinks.append_file import open_alone, sync_folder
from bluesky_beamtime.sinks.parquet_files import KEY, facts_of, parquet, sync_file
from bluesky_beamtime.sinks.parquet_growing import Growing
from bluesky_beamtime.sinks.parquet_merge import merge

_READINGS_PER_PART = 500
"""A part with fewer takes the readings of further calls."""


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
        self._growing: Growing | None = None
        self._last: Any = None
        self._last_shape = ""
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
            held = facts_of(self._path).get("parts", {})
        self.paths = []
        for path in self.find():
            facts = facts_of(path)
            if facts.get("number", 0) < held.get(facts.get("session", ""), 0):
                path.unlink()
            else:
                self.paths.append(path)
        self._session, self._number, self._last = session, 0, None
        self._next = _number_of(self.paths[-1]) + 1 if self.paths else 1
        self._unsynced = list(self.paths)
        # What is there already has to be read again; else the file can grow beside.
        self._growing = (
            None
            if self._sources()
            else Growing(self._path, session, self._options, self._row_group_size)
        )

    def _is_there(self) -> bool:
        if not self._path.exists() or not self._path.stat().st_size:
            return False
        # One that we made without a row has no columns that anybody chose.
        facts = facts_of(self._path)
        return not facts or parquet().read_metadata(self._path).num_rows > 0

    def _sources(self) -> list[Path]:
        return [*([self._path] if self._is_there() else []), *self.paths]

    def look(self) -> tuple[str | None, list[str] | None]:
        """Return whether it all is readings or blocks, and the names of the columns."""
        names: dict[str, None] = {}
        shape: str | None = None
        for path in self._sources():
            names.update(dict.fromkeys(parquet().read_schema(path).names))
            shape = shape or facts_of(path).get("shape", "readings")
        return shape, list(names) or None

    def write(self, table: Any, shape: str) -> None:
        """Write a table into a part; it is there whole, or not at all.

        While the last part has few readings, of the same columns, it is written anew
        with them: that costs hardly more than a small file beside it, and spares
        thousands of those.
        """
        goes_on = shape == "readings" and self._takes(table)
        if goes_on:
            both = cast("Any", import_module("pyarrow")).concat_tables
            table = both([self._last, table]).combine_chunks()
            path = self.paths[-1]
        else:
            name = f"{self._stem}.part-{self._next:05d}.parquet"
            path = self._path.with_name(name)
        facts = {
            "session": self._session,
            "number": self._number - goes_on,
            "shape": shape,
        }
        self._put(table.replace_schema_metadata({KEY: json.dumps(facts)}), path)
        if not goes_on:
            self._end_part()
            self._number += 1
            self._next += 1
            self.paths.append(path)
        if self._unsynced[-1:] != [path]:
            self._unsynced.append(path)
        self._last, self._last_shape = table, shape

    def _takes(self, table: Any) -> bool:
        """Return whether the last part goes on with a table."""
        return (
            self._last is not None
            and self._last.num_rows < _READINGS_PER_PART
            and table.schema.equals(self._last.schema)
        )

    def _put(self, table: Any, path: Path) -> None:
        unfinished = path.with_name(f".{path.name}.unfinished")
        content = cast("Any", import_module("pyarrow")).BufferOutputStream()
        # It will not be there for long: quickly written, not tightly; and in one go,
        # since the library writes each piece of each column for itself.
        parquet().write_table(
            table,
            content,
            row_group_size=self._row_group_size or table.num_rows,
            compression="none",
            use_dictionary=table.num_rows > 5000,
            write_statistics=False,
        )
        try:
            unfinished.write_bytes(content.getvalue())
            unfinished.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise

    def _end_part(self) -> None:
        """Let the last part be as it is; the file that grows beside has it then."""
        last, self._last = self._last, None
        if last is None or self._growing is None:
            return
        if not self._growing.add(last, self._last_shape):
            self._growing = None

    def sync(self) -> None:
        """Bring the parts to the device."""
        # What is on the device stays: to put another file there could lose both.
        self._end_part()
        while self._unsynced:
            sync_file(self._unsynced[-1])
            self._unsynced.pop()
        sync_folder(self._path.parent)

    # ----------------------------------------------------------- putting together

    def combine(self, shape: str | None) -> None:
        """Make one file of the file and its parts."""
        sources = self._sources()
        self._end_part()
        growing, self._growing = self._growing, None
        if sources == [self._path]:
            return
        if growing is None or not growing.finish():
            merge(sources, self._path, shape, self._options, self._row_group_size)
        for path in self.paths:
            path.unlink(missing_ok=True)
        self.paths, self._unsynced = [], []
        sync_folder(self._path.parent)


def _number_of(path: Path) -> int:
    return int(path.name.removesuffix(".parquet").rpartition("-")[2])
