"""The contract finds what it is there to find: each broken backend fails its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bluesky_beamtime.errors import KeyNotFoundError, StorageError
from bluesky_beamtime.storage.backends import BytesLike, MemoryBackend, StorageBackend
from bluesky_beamtime.storage.backends.contract import StorageBackendContract


class DeletesTrees(MemoryBackend):
    def delete(self, key: str) -> None:
        super().delete(key)
        super().delete_prefix(key)


class PrefixesOfText(MemoryBackend):
    def delete_prefix(self, prefix: str, *, everything: bool = False) -> None:
        prefix = self._prefix_to_delete(prefix, everything)
        for key in self.list_prefix("", recursive=True):
            if key.startswith(prefix):
                self.delete(key)


class ContainersExist(MemoryBackend):
    def exists(self, key: str) -> bool:
        return super().exists(key) or any(self.list_prefix(key))


class WipesAtOnce(MemoryBackend):
    def delete_prefix(self, prefix: str, *, everything: bool = False) -> None:
        super().delete_prefix(prefix, everything=True)


class BareNames(MemoryBackend):
    def list_prefix(self, prefix: str, recursive: bool = False) -> Iterator[str]:
        prefix = self._prefix(prefix)
        for key in super().list_prefix(prefix, recursive):
            yield key[len(prefix) + 1 :] if prefix else key


class Unsorted(MemoryBackend):
    def list_prefix(self, prefix: str, recursive: bool = False) -> Iterator[str]:
        return reversed(list(super().list_prefix(prefix, recursive)))


class ListsAsAList(MemoryBackend):
    def list_prefix(self, prefix: str, recursive: bool = False) -> Iterator[str]:
        return list(super().list_prefix(prefix, recursive))  # type: ignore[return-value]


class SwallowsErrors(MemoryBackend):
    def get_bytes(self, key: str) -> bytes:
        try:
            return super().get_bytes(key)
        except StorageError:
            raise KeyNotFoundError(key, self.url) from None


class KeepsTheCallersBuffer(MemoryBackend):
    def put_bytes(self, key: str, data: BytesLike) -> None:
        super().put_bytes(key, data)
        if isinstance(data, bytearray):
            self._space.values[self._full(key)] = data  # type: ignore[assignment]


class Appends(MemoryBackend):
    def put_bytes(self, key: str, data: BytesLike) -> None:
        old = self.get_bytes(key) if self.exists(key) else b""
        super().put_bytes(key, data)
        new = self.get_bytes(key)
        super().put_bytes(key, new + old[len(new) :])


class RangesByEnd(MemoryBackend):
    def get_range(self, key: str, start: int, length: int) -> bytes:
        if start < 0 or length < 0:
            raise ValueError("no such range of a value")
        return self.get_bytes(key)[start:length]


class NeverCloses(MemoryBackend):
    def close(self) -> None:
        pass


class Torn(MemoryBackend):
    """Lets go of the lock between two halves of a value."""

    def put_bytes(self, key: str, data: BytesLike) -> None:
        whole = bytes(data)  # type: ignore[arg-type]
        super().put_bytes(key, whole[: len(whole) // 2])
        for _ in range(2000):
            pass
        super().put_bytes(key, whole)


class NoAbsentRange(MemoryBackend):
    def get_range(self, key: str, start: int, length: int) -> bytes:
        return super().get_range(key, start, length) if length else b""


BROKEN: list[tuple[type[MemoryBackend], str]] = [
    (DeletesTrees, "test_delete_never_takes_a_tree"),
    (PrefixesOfText, "test_delete_prefix"),
    (ContainersExist, "test_exists"),
    (WipesAtOnce, "test_deleting_everything_must_be_said"),
    (BareNames, "test_list_children"),
    (Unsorted, "test_list_all"),
    (ListsAsAList, "test_list_is_an_iterator"),
    (SwallowsErrors, "test_bad_keys"),
    (SwallowsErrors, "test_close"),
    (KeepsTheCallersBuffer, "test_anything_with_bytes_can_be_put"),
    (Appends, "test_the_last_put_counts"),
    (RangesByEnd, "test_ranges"),
    (NoAbsentRange, "test_ranges"),
    (NeverCloses, "test_close"),
    (NeverCloses, "test_context_manager"),
    (NeverCloses, "test_async_twin"),
    (Torn, "test_readers_never_see_a_part"),
]


def _test(name: str) -> Callable[[StorageBackend], None]:
    return getattr(StorageBackendContract(), name)


@pytest.mark.parametrize(
    ("kind", "name"), BROKEN, ids=[f"{k.__name__}-{n}" for k, n in BROKEN]
)
def test_a_broken_backend_fails(kind: type[MemoryBackend], name: str) -> None:
    _test(name)(MemoryBackend())
    with pytest.raises((AssertionError, StorageError, TypeError)):
        _test(name)(kind())


class OutOfOrder:
    """Has no ``get_range`` at all."""

    url = "dict://"


def test_a_missing_member_is_found() -> None:
    with pytest.raises(AssertionError):
        _test("test_it_is_a_storage_backend")(OutOfOrder())  # type: ignore[arg-type]
