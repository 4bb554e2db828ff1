"""One suite of promises, run over every backend."""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from bluesky_beamtime.errors import KeyNotFoundError
from bluesky_beamtime.storage.backends import (
    Backend,
    BytesLike,
    LocalBackend,
    MemoryBackend,
    RecordingBackend,
    StorageBackend,
    as_buffer,
    listing,
    open_backend,
    registry,
)
from bluesky_beamtime.storage.backends.contract import StorageBackendContract
from bluesky_beamtime.storage.backends.s3_server import S3TestServer
from tests.s3 import new_bucket

ROOT = Path(__file__).parents[2]


class TestLocal(StorageBackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[StorageBackend]:
        with open_backend(tmp_path / "with space" / "é") as backend:
            assert isinstance(backend, LocalBackend)
            yield backend


class TestLocalThatSurvivesPowerCuts(StorageBackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[StorageBackend]:
        with LocalBackend(tmp_path, durability="power") as backend:
            yield backend


class TestMemory(StorageBackendContract):
    @pytest.fixture
    def backend(self) -> Iterator[StorageBackend]:
        with open_backend("memory://") as backend:
            yield backend


class TestMemoryBelowAPrefix(StorageBackendContract):
    @pytest.fixture
    def backend(self) -> Iterator[StorageBackend]:
        whole = MemoryBackend()
        whole.put_bytes("elsewhere/a/b", b"not seen")
        whole.put_bytes("here.too/a", b"not seen")
        with open_backend(f"{whole.url}/here") as backend:
            yield backend
        assert list(whole.list_prefix("elsewhere", recursive=True)) == ["elsewhere/a/b"]


class TestRecording(StorageBackendContract):
    @pytest.fixture
    def backend(self) -> Iterator[StorageBackend]:
        with RecordingBackend(MemoryBackend()) as backend:
            yield backend


class DictBackend(Backend):
    """What it takes to write a backend: z18 counts the lines."""

    def __init__(self, url: str = "dict://mine") -> None:
        self._url = url
        self.values: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return self._url

    def put_bytes(self, key: str, data: BytesLike) -> None:
        self.values[self._key(key)] = bytes(as_buffer(data))

    def get_bytes(self, key: str) -> bytes:
        try:
            return self.values[self._key(key)]
        except KeyError:
            raise KeyNotFoundError(key, self.url) from None

    def exists(self, key: str) -> bool:
        return self._prefix(key) in self.values and not key.endswith("/")

    def delete(self, key: str) -> None:
        self.values.pop(self._key(key), None)

    def list_prefix(self, prefix: str, recursive: bool = False) -> Iterator[str]:
        return self._list(self._prefix(prefix), recursive)

    def _list(self, prefix: str, recursive: bool) -> Iterator[str]:
        self._check_open()
        yield from listing(sorted(self.values.copy()), prefix, recursive)


class TestDict(StorageBackendContract):
    @pytest.fixture
    def backend(self) -> Iterator[StorageBackend]:
        with DictBackend() as backend:
            yield backend

    def test_z18_a_backend_takes_few_lines(self) -> None:
        assert len(inspect.getsource(DictBackend).splitlines()) <= 50


class TestS3(StorageBackendContract):
    @pytest.fixture
    def backend(self, s3_server: S3TestServer) -> Iterator[StorageBackend]:
        url = new_bucket(s3_server)
        with open_backend(url, **s3_server.options) as backend:
            yield backend


class TestS3BelowAPrefix(StorageBackendContract):
    @pytest.fixture
    def backend(self, s3_server: S3TestServer) -> Iterator[StorageBackend]:
        url = new_bucket(s3_server)
        with open_backend(url, **s3_server.options) as whole:
            whole.put_bytes("elsewhere/a/b", b"not seen")
            whole.put_bytes("a b/é.too/a", b"not seen")
            with open_backend(f"{url}/a b/é", **s3_server.options) as backend:
                assert backend.url == f"{url}/a%20b/%C3%A9"
                yield backend
            assert whole.exists("elsewhere/a/b")


class TestTheDocumentedExample(StorageBackendContract):
    """The backend that docs/how-to/bring-your-own-backend.md shows."""

    @pytest.fixture
    def backend(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[StorageBackend]:
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
        monkeypatch.chdir(tmp_path)
        shown = runpy.run_path(str(ROOT / "docs" / "examples" / "own_backend.py"))
        with shown["OneFileBackend"](f"onefile://{tmp_path}/contract") as backend:
            yield backend
