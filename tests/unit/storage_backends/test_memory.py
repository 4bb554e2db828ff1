"""What values in memory do beyond the contract."""

from __future__ import annotations

import gc
import pickle

import pytest

from bluesky_beamtime.errors import PathError
from bluesky_beamtime.storage.backends import MemoryBackend, open_backend


def test_a_name_is_shared_and_lasts() -> None:
    first = open_backend("memory://test_shared")
    first.put_bytes("a", b"1")
    first.close()
    del first
    second = open_backend("memory://test_shared/")
    assert second.get_bytes("a") == b"1"
    assert second.url == "memory://test_shared"
    second.delete_prefix("", everything=True)
    assert not open_backend("memory://test_shared").exists("a")


def test_unnamed_ones_are_alone_but_can_be_found() -> None:
    first, second = open_backend("memory://"), open_backend("memory:")
    first.put_bytes("a", b"1")
    assert not second.exists("a")
    assert first.url != second.url
    same = open_backend(first.url)
    assert same.url == first.url
    assert same.get_bytes("a") == b"1"


def test_unnamed_ones_end() -> None:
    backend = open_backend("memory://")
    url = backend.url
    del backend
    gc.collect()
    with pytest.raises(PathError, match="is gone"):
        open_backend(url)


def test_a_prefix_shows_a_part() -> None:
    whole = MemoryBackend()
    part = open_backend(f"{whole.url}/a b/c")
    assert part.url == f"{whole.url}/a%20b/c"
    assert open_backend(part.url).url == part.url
    part.put_bytes("d", b"1")
    assert list(whole.list_prefix("", recursive=True)) == ["a b/c/d"]
    assert list(part.list_prefix("")) == ["d"]
    part.delete_prefix("", everything=True)
    assert not whole.exists("a b/c/d")


@pytest.mark.parametrize("url", ["memory:name", "memory:///../x", "memory://a/../b"])
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(PathError):
        open_backend(url)


def test_it_does_not_go_to_another_process() -> None:
    with pytest.raises(TypeError, match="stay here"):
        pickle.dumps(MemoryBackend())
