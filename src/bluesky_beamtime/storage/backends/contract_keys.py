"""The tests of a backend's keys: taken or refused, deleted, listed."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from bluesky_beamtime.errors import PathError
from bluesky_beamtime.storage.backends.contract_checks import fill, raises
from bluesky_beamtime.storage.backends.protocol import StorageBackend

GOOD_KEYS = (
    "zarr.json",
    "a/b/c.0.0",
    "with space/é ü/日本",
    "100%/100%20",
    "q?x#y&z=1+2",
    "..a/b..",
    ".hidden/~home",
    "[br]{ac}|<ket>'\"*!",
    "A/b",
)
"""Keys that every backend takes."""

BAD_KEYS = (
    "",
    "/",
    "/a",
    "//",
    "a//b",
    "a/",
    ".",
    "..",
    "a/../b",
    "./a",
    "a/.",
    "a\\b",
    "..\\b",
    "a\0b",
    "a\nb",
    "a\x7f",
    "\ud800",
    "x" * 256,
    "/".join(["y" * 200] * 6),
)
"""Keys that every backend refuses."""


class KeysContract:
    """What a backend promises of keys and of prefixes."""

    # ----------------------------------------------------------------------- keys

    def test_good_keys(self, backend: StorageBackend) -> None:
        """Whatever a key may hold survives storing and listing."""
        for number, key in enumerate(GOOD_KEYS):
            backend.put_bytes(key, str(number).encode())
        assert list(backend.list_prefix("", recursive=True)) == sorted(GOOD_KEYS)
        for number, key in enumerate(GOOD_KEYS):
            assert backend.get_bytes(key) == str(number).encode(), key
            assert backend.exists(key), key
            backend.delete(key)
        assert list(backend.list_prefix("", recursive=True)) == []

    def test_bad_keys(self, backend: StorageBackend) -> None:
        """Whatever a key may not hold is refused everywhere, and nothing is written."""
        calls: tuple[Callable[[str], object], ...] = (
            lambda key: backend.put_bytes(key, b"1"),
            backend.get_bytes,
            lambda key: backend.get_range(key, 0, 1),
            backend.delete,
        )
        for key, call in itertools.product(BAD_KEYS, calls):
            with raises(PathError):
                call(key)
        for key in set(BAD_KEYS) - {"", "a/"}:
            for call in (
                backend.exists,
                backend.list_prefix,
                backend.delete_prefix,
                backend.ensure_prefix,
            ):
                with raises(PathError):
                    call(key)
        assert list(backend.list_prefix("", recursive=True)) == []

    # -------------------------------------------------------------------- deleting

    def test_delete(self, backend: StorageBackend) -> None:
        """One value goes; twice, or without a value, nothing happens."""
        fill(backend, ("a/b", "a/c"))
        backend.delete("a/b")
        backend.delete("a/b")
        backend.delete("never/there")
        backend.delete("a/c/below a value")
        assert list(backend.list_prefix("", recursive=True)) == ["a/c"]

    def test_delete_never_takes_a_tree(self, backend: StorageBackend) -> None:
        """Deleting the name of a container leaves what is in it."""
        fill(backend, ("a/b/c",))
        backend.delete("a")
        backend.delete("a/b")
        assert backend.get_bytes("a/b/c") == b"a/b/c"

    def test_delete_prefix(self, backend: StorageBackend) -> None:
        """A prefix is made of whole parts: ``runs/a`` is no prefix of ``runs/ab/y``."""
        fill(backend, ("runs/a/x", "runs/a/s/z", "runs/ab/y", "runs/a.json", "other"))
        backend.delete_prefix("runs/a")
        backend.delete_prefix("runs/a")
        backend.delete_prefix("not/there")
        kept = ["other", "runs/a.json", "runs/ab/y"]
        assert list(backend.list_prefix("", recursive=True)) == kept
        backend.delete_prefix("runs/")
        assert list(backend.list_prefix("", recursive=True)) == ["other"]

    def test_delete_prefix_leaves_a_value_of_that_name(
        self, backend: StorageBackend
    ) -> None:
        """What ``list_prefix`` does not list, ``delete_prefix`` does not remove."""
        fill(backend, ("a/b",))
        backend.delete_prefix("a/b")
        assert backend.exists("a/b")

    def test_deleting_everything_must_be_said(self, backend: StorageBackend) -> None:
        """An empty prefix alone is refused."""
        fill(backend, ("a", "b/c"))
        with raises(PathError):
            backend.delete_prefix("")
        assert list(backend.list_prefix("", recursive=True)) == ["a", "b/c"]
        backend.delete_prefix("", everything=True)
        assert list(backend.list_prefix("", recursive=True)) == []
        backend.put_bytes("a", b"usable afterwards")
        assert backend.exists("a")

    # --------------------------------------------------------------------- listing

    def test_list_all(self, backend: StorageBackend) -> None:
        """All values below a prefix, full keys, sorted by code point."""
        keys = ("g/z", "g/s/a", "g/s/t/b", "g-1", "g.1", "g0", "h")
        fill(backend, keys)
        assert list(backend.list_prefix("", recursive=True)) == sorted(keys)
        below = ["g/s/a", "g/s/t/b", "g/z"]
        assert list(backend.list_prefix("g", recursive=True)) == below
        assert list(backend.list_prefix("g/", recursive=True)) == below

    def test_list_children(self, backend: StorageBackend) -> None:
        """The children of a prefix as full keys; containers end in a slash."""
        fill(backend, ("g/file", "g/sub/a", "g/sub/b", "g/sub.x", "top"))
        children = ["g/file", "g/sub.x", "g/sub/"]
        assert list(backend.list_prefix("g")) == children
        assert list(backend.list_prefix("g/")) == children
        assert list(backend.list_prefix("")) == ["g/", "top"]
        assert list(backend.list_prefix("g/sub/")) == ["g/sub/a", "g/sub/b"]

    def test_list_nothing(self, backend: StorageBackend) -> None:
        """A prefix that is not there, or that is a value, holds nothing."""
        fill(backend, ("a/b",))
        for prefix, recursive in itertools.product(("x", "a/b", "a/b/c"), (0, 1)):
            assert list(backend.list_prefix(prefix, recursive=bool(recursive))) == []

    def test_list_is_an_iterator(self, backend: StorageBackend) -> None:
        """Keys come one by one."""
        fill(backend, ("a", "b", "c"))
        keys = backend.list_prefix("", recursive=True)
        assert iter(keys) is keys
        assert [next(keys), next(keys), next(keys)] == ["a", "b", "c"]

    def test_deleting_while_listing(self, backend: StorageBackend) -> None:
        """Every value is met once, though each is deleted as it is met."""
        keys = [f"{group}/{n:02}" for group in "abc" for n in range(12)]
        fill(backend, keys)
        seen: list[str] = []
        for key in backend.list_prefix("", recursive=True):
            seen.append(key)
            backend.delete(key)
        assert seen == keys
        assert list(backend.list_prefix("", recursive=True)) == []

    def test_a_tree_deleted_while_listing(self, backend: StorageBackend) -> None:
        """What was there all the time is yielded, though other parts vanish."""
        fill(backend, ("a/1", "b/1", "b/2", "c/1"))
        keys = backend.list_prefix("", recursive=True)
        assert next(keys) == "a/1"
        backend.delete_prefix("b")
        assert [key for key in keys if not key.startswith("b/")] == ["c/1"]

    def test_ensure_prefix(self, backend: StorageBackend) -> None:
        """It may be repeated, and changes no value; containers may be listed or not."""
        fill(backend, ("a/b",))
        for prefix in ("a", "new/deep", "new/deep/", ""):
            backend.ensure_prefix(prefix)
            backend.ensure_prefix(prefix)
        assert list(backend.list_prefix("", recursive=True)) == ["a/b"]
        assert set(backend.list_prefix("")) - {"new/"} == {"a/"}
        assert not backend.exists("new/deep")
