"""An S3 server, a line to it that can be cut, and stores to copy."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime.storage.backends import StorageBackend, open_backend
from bluesky_beamtime.storage.backends.s3_server import S3TestServer
from tests.s3 import new_bucket


@pytest.fixture
def bucket(s3_server: S3TestServer) -> str:
    """URL of an empty bucket."""
    return new_bucket(s3_server)


@pytest.fixture
def s3(s3_server: S3TestServer, bucket: str) -> Iterator[StorageBackend]:
    with open_backend(bucket, **s3_server.options) as backend:
        yield backend


class Line:
    """A line to a server that can be cut and mended; connections go through it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.whole = True
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break all connections; new ones are closed as soon as they are made."""
        self.whole = False
        self._hang_up()

    def mend(self) -> None:
        self.whole = True

    def close(self) -> None:
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _hang_up(self) -> None:
        with self._lock:
            for side in self._open:
                with suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self.whole:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._open |= {near, far}
            self._start(self._carry, near, far)

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        self._pump(near, far)
        back.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while self.whole and (data := source.recv(1 << 16)):
                sink.sendall(data)
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def line(s3_server: S3TestServer) -> Iterator[Line]:
    line = Line(s3_server.port)
    yield line
    line.close()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Wait until something is true, with a deadline."""

    def wait(condition: Callable[[], object], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)

    return wait


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[], dict[str, bytes]]:
    """Read every file below a folder that is not hidden."""

    def read(folder: Path = tmp_path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
            and not any(part[0] == "." for part in path.relative_to(folder).parts)
        }

    return read
