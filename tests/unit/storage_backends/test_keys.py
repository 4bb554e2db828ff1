"""The rules for keys, against names that people and attackers make up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluesky_beamtime.errors import PathError
from bluesky_beamtime.storage.backends import (
    LocalBackend,
    MemoryBackend,
    check_key,
    check_prefix,
    listing,
)

hostile = st.lists(
    st.sampled_from(
        [*"/\\.\0\n~ :%#?*aé", "..", "//", "../", "/..", "\ud800", "\x7f", "x" * 300]
    )
    | st.characters(),
    max_size=12,
).map("".join)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "empty"),
        ("/a", "begins with '/'"),
        ("a/", "container"),
        ("a//b", "'//'"),
        ("a/./b", "'.' would lead elsewhere"),
        ("..", "'..' would lead elsewhere"),
        ("a\\b", "backslash"),
        ("a\0b", "NUL"),
        ("a\tb", "control character"),
        ("a\x7f", "control character"),
        ("\ud800", "Unicode"),
        ("x" * 256, "256 bytes, 255 is the most"),
        ("é" * 128, "256 bytes, 255 is the most"),
        ("/".join(["y" * 250] * 5), "1254 bytes, 1024 is the most"),
        (".~beamtime-1", "being written"),
        (7, "not text"),
        (b"a", "not text"),
    ],
)
def test_a_refusal_says_the_rule(key: str, reason: str) -> None:
    with pytest.raises(PathError, match="is no key") as caught:
        check_key(key)
    assert reason in str(caught.value)


def test_prefixes_may_end_in_one_slash() -> None:
    assert check_prefix("") == ""
    assert check_prefix("a/b/") == check_prefix("a/b") == "a/b"
    for prefix in ("/", "//", "a//", "/a"):
        with pytest.raises(PathError):
            check_prefix(prefix)


@settings(max_examples=1000)
@given(hostile)
def test_no_key_leads_out_of_the_root(key: str) -> None:
    try:
        checked = check_key(key)
    except PathError:
        return
    assert checked == key
    path = os.path.normpath(os.path.join("/base", key))
    # Nothing is rewritten by the file system either: the key is the path.
    assert path == f"/base/{key}"


@given(st.lists(hostile, max_size=8))
def test_folder_and_memory_agree(tmp_path_factory: object, keys: list[str]) -> None:
    root = Path(tmp_path_factory.mktemp("root"))  # type: ignore[attr-defined]
    (root / "outside").mkdir()
    local, memory = LocalBackend(root / "store"), MemoryBackend()
    for key in keys:
        refused: list[bool] = []
        try:
            memory.put_bytes(key, key.encode("utf-8", "surrogatepass"))
            refused.append(False)
        except PathError:
            refused.append(True)
        try:
            local.put_bytes(key, key.encode("utf-8", "surrogatepass"))
            refused.append(False)
        except PathError:
            refused.append(True)
        except OSError as error:
            # On a disk one key cannot be a value and a container.
            assert "value and a container" in str(error)
            memory.delete(key)
            continue
        assert refused[0] == refused[1]
    for prefix in ("", "a"):
        for recursive in (False, True):
            assert list(local.list_prefix(prefix, recursive)) == list(
                memory.list_prefix(prefix, recursive)
            )
    for key in memory.list_prefix("", recursive=True):
        assert local.get_bytes(key) == memory.get_bytes(key)
    assert sorted(os.listdir(root)) in (["outside"], ["outside", "store"])
    assert os.listdir(root / "outside") == []


names = st.sampled_from(["a", "b", "a.b", "a-b", "ab", "A", "é", "a b", "0"])


@given(st.sets(st.lists(names, min_size=1, max_size=4).map("/".join)), names)
def test_listing_is_what_a_loop_would_find(keys: set[str], prefix: str) -> None:
    for chosen in ("", prefix):
        start = f"{chosen}/" if chosen else ""
        below = sorted(key for key in keys if key.startswith(start))
        assert list(listing(sorted(keys), chosen, True)) == below
        children = {
            start + rest.split("/")[0] + ("/" if "/" in rest else "")
            for rest in (key[len(start) :] for key in below)
        }
        assert list(listing(sorted(keys), chosen, False)) == sorted(children)
