"""The tests of a backend's values: put, read as a whole or in part, missed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bluesky_beamtime.errors import KeyNotFoundError, StorageError
from bluesky_beamtime.storage.backends.contract_checks import raises
from bluesky_beamtime.storage.backends.protocol import StorageBackend
from bluesky_beamtime.storage.backends.values import get_size, put_pieces


class ValuesContract:
    """What a backend promises of itself and of single values."""

    # ----------------------------------------------------------------- the object

    def test_it_is_a_storage_backend(self, backend: StorageBackend) -> None:
        """It has every member of the protocol."""
        assert isinstance(backend, StorageBackend)

    def test_url_is_canonical(self, backend: StorageBackend) -> None:
        """The URL has a scheme, no last slash, no blanks and no credentials."""
        scheme, colon, rest = backend.url.partition("://")
        assert scheme == scheme.lower() and scheme and colon, backend.url
        assert not rest.endswith("/"), backend.url
        assert not set(" @?#") & set(rest), backend.url
        assert rest.isascii(), backend.url

    # --------------------------------------------------------------------- values

    def test_put_then_get(self, backend: StorageBackend) -> None:
        """What was put comes back, empty values too."""
        for value in (b"", b"\0", b"abc", bytes(range(256)) * 300):
            backend.put_bytes("a/b", value)
            found = backend.get_bytes("a/b")
            assert isinstance(found, bytes)
            assert found == value
            assert get_size(backend, "a/b") == len(value)

    def test_the_last_put_counts(self, backend: StorageBackend) -> None:
        """A second value replaces the first, also when it is shorter."""
        backend.put_bytes("k", b"first and long")
        backend.put_bytes("k", b"second")
        assert backend.get_bytes("k") == b"second"
        assert list(backend.list_prefix("")) == ["k"]

    def test_a_value_of_many_mib(self, backend: StorageBackend) -> None:
        """Values as large as shards, beyond what one request of S3 takes at a time."""
        value = np.arange(3 << 20, dtype="<u4")
        backend.put_bytes("large", value)
        assert backend.get_bytes("large") == value.tobytes()
        middle = value[1 << 20 : (1 << 20) + 10]
        assert backend.get_range("large", 4 << 20, 40) == middle.tobytes()

    def test_a_value_in_pieces(self, backend: StorageBackend) -> None:
        """A value that is made piece by piece appears as a whole, or not at all."""
        piece = bytes(range(256)) * 4096

        def broken() -> Iterator[bytes]:
            yield piece
            raise StorageError("the pieces end before they should")

        for count, size in ((0, 0), (1, 5), (7, 7 << 20), (7, 1)):
            put_pieces(backend, "a/pieces", [piece] * count, size)
            assert backend.get_bytes("a/pieces") == piece * count
        with raises(StorageError):
            put_pieces(backend, "a/pieces", broken(), 6 << 20)
        assert backend.get_bytes("a/pieces") == piece * 7
        assert list(backend.list_prefix("a")) == ["a/pieces"]

    def test_anything_with_bytes_can_be_put(self, backend: StorageBackend) -> None:
        """Buffers of all kinds, in C order; a later change does not reach the store."""
        array = np.arange(24, dtype=">u2").reshape(4, 6)
        changing = bytearray(b"before")
        samples = {
            "bytearray": (changing, b"before"),
            "view": (memoryview(b"abcdef")[1:4], b"bcd"),
            "strided": (memoryview(b"abcdef")[::2], b"ace"),
            "array": (array, array.tobytes()),
            "column": (array[:, 1], array[:, 1].tobytes()),
            "transposed": (array.T, array.T.tobytes()),
            "empty": (np.empty((0, 4)), b""),
            "scalar": (np.array(7.5), np.array(7.5).tobytes()),
        }
        for key, (data, _) in samples.items():
            backend.put_bytes(key, data)
        changing[:] = b"after!"
        for key, (_, expected) in samples.items():
            assert backend.get_bytes(key) == expected, key

    def test_text_is_refused(self, backend: StorageBackend) -> None:
        """Text and objects have no bytes of their own."""
        for data in ("text", 7, None, np.array([{}])):
            with raises(TypeError):
                backend.put_bytes("k", data)  # pyright: ignore[reportArgumentType]  # on purpose
        assert not backend.exists("k")

    def test_ranges(self, backend: StorageBackend) -> None:
        """Ranges are cut at the end of the value; negative ones are refused."""
        backend.put_bytes("k", b"0123456789")
        assert backend.get_range("k", 0, 10) == b"0123456789"
        assert backend.get_range("k", 3, 4) == b"3456"
        assert backend.get_range("k", 9, 1) == b"9"
        assert backend.get_range("k", 8, 100) == b"89"
        assert backend.get_range("k", 10, 1) == b""
        assert backend.get_range("k", 1000, 1) == b""
        assert backend.get_range("k", 5, 0) == b""
        for start, length in ((-1, 1), (0, -1)):
            with raises(ValueError):
                backend.get_range("k", start, length)
        for length in (0, 1):
            with raises(KeyNotFoundError):
                backend.get_range("other", 0, length)

    # -------------------------------------------------------------------- absence

    def test_a_missing_key(self, backend: StorageBackend) -> None:
        """Absence is a ``KeyError`` that names the key."""
        backend.put_bytes("a/b", b"1")
        for key in ("c", "a/c", "a/b/c", "ab"):
            with raises(KeyError):
                backend.get_bytes(key)
            try:
                backend.get_bytes(key)
            except KeyNotFoundError as error:
                assert (error.key, error.url) == (key, backend.url)
                assert repr(key) in str(error)

    def test_a_container_is_no_value(self, backend: StorageBackend) -> None:
        """A container can be neither read nor measured."""
        backend.put_bytes("a/b/c", b"1")
        for key in ("a", "a/b"):
            with raises(KeyNotFoundError):
                backend.get_bytes(key)
            with raises(KeyNotFoundError):
                backend.get_range(key, 0, 1)
            with raises(KeyNotFoundError):
                get_size(backend, key)

    def test_exists(self, backend: StorageBackend) -> None:
        """Only values exist."""
        backend.put_bytes("a/b", b"")
        assert backend.exists("a/b")
        for key in ("", "a", "a/", "a/c", "a/b/c", "b"):
            assert not backend.exists(key), key
