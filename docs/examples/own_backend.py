"""A backend of one's own: values in one SQLite file."""

# [backend]
import sqlite3
import threading
from collections.abc import Iterator

from bluesky_beamtime.errors import KeyNotFoundError
from bluesky_beamtime.storage.backends import (
    Backend,
    BytesLike,
    as_buffer,
    listing,
    open_backend,
    register_backend,
)


@register_backend("onefile")
class OneFileBackend(Backend):
    """Values in the table of a SQLite file: ``onefile:///data/values.sqlite``."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        path = url.removeprefix("onefile://")
        self._lock = threading.Lock()
        self._file = sqlite3.connect(
            path, check_same_thread=False, isolation_level=None
        )
        self._run("CREATE TABLE IF NOT EXISTS value (key TEXT PRIMARY KEY, data BLOB)")

    def _run(self, statement: str, *values: object) -> list[tuple]:
        with self._lock:
            return self._file.execute(statement, values).fetchall()

    @property
    def url(self) -> str:
        return self._url

    def put_bytes(self, key: str, data: BytesLike) -> None:
        values = self._key(key), bytes(as_buffer(data))
        self._run("INSERT OR REPLACE INTO value VALUES (?, ?)", *values)

    def get_bytes(self, key: str) -> bytes:
        found = self._run("SELECT data FROM value WHERE key = ?", self._key(key))
        if not found:
            raise KeyNotFoundError(key, self.url)
        return found[0][0]

    def exists(self, key: str) -> bool:
        if self._prefix(key) != key or not key:
            return False
        return bool(self._run("SELECT 1 FROM value WHERE key = ?", key))

    def delete(self, key: str) -> None:
        self._run("DELETE FROM value WHERE key = ?", self._key(key))

    def list_prefix(self, prefix: str, recursive: bool = False) -> Iterator[str]:
        return self._list(self._prefix(prefix), recursive)

    def _list(self, prefix: str, recursive: bool) -> Iterator[str]:
        self._check_open()
        keys = [row[0] for row in self._run("SELECT key FROM value ORDER BY key")]
        yield from listing(keys, prefix, recursive)

    def close(self) -> None:
        super().close()
        self._file.close()


# [use]
with open_backend("onefile://values.sqlite") as backend:
    backend.put_bytes("runs/a/first", b"0123456789")
    backend.put_bytes("runs/ab/second", b"")
    print(backend)
    print(list(backend.list_prefix("runs")))
    print(backend.get_range("runs/a/first", 3, 4))
    backend.delete_prefix("runs/a")
    print(list(backend.list_prefix("", recursive=True)))
