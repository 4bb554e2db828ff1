"""Metadata of devices on its way to a store: rows R-67 to R-70."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.errors import MetadataError
from bluesky_beamtime.storage import (
    FrameSink,
    FrameStore,
    ZarrWriter,
    clear_metadata,
    register_metadata,
    snapshot_metadata,
)

FRAME = np.zeros((4, 6), "<u2")
Begin = Callable[..., tuple[ZarrWriter, list[FrameSink]]]


def test_r67_the_last_registration_wins():
    """R-67: by name."""
    register_metadata("cam", {"gain": 1})
    register_metadata("other", {"gain": 2})
    register_metadata("cam", {"offset": 3})
    assert snapshot_metadata() == {"cam": {"offset": 3}, "other": {"gain": 2}}


def test_r67_it_is_copied():
    """R-67: changing what was registered later does not leak in."""
    metadata: dict[str, Any] = {"roi": [1, 2]}
    register_metadata("cam", metadata)
    metadata["roi"].append(3)
    metadata["gain"] = 1
    assert snapshot_metadata() == {"cam": {"roi": [1, 2]}}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"deeper": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        {1, 2},
        object(),
        b"bytes",
        np.arange(3),
        1j,
        2**70,
        -(2**64),
        "\ud800",
        nested(400),
    ],
    ids=lambda value: str(value)[:12].encode("ascii", "replace").decode(),
)
def test_r67_what_json_cannot_hold_is_refused_at_once(value: Any, begin: Begin):
    """R-67: not at kickoff, not in a thread, and nothing is changed on the way."""
    with pytest.raises(MetadataError) as caught:
        register_metadata("cam", {"key": value})
    assert isinstance(caught.value, TypeError)
    assert snapshot_metadata() == {}
    _, (sink,) = begin("cam")
    with pytest.raises(MetadataError):
        sink.set_attributes({"key": value})
    sink.write(FRAME)
    assert sink.publish() == 1


@pytest.mark.parametrize("value", [2**63, -(2**63), 1e300, "ä\0\u2028", None, True, []])
def test_r67_what_json_can_hold_is_kept_exactly(value: Any):
    """R-67: numbers and texts come back as they were."""
    register_metadata("cam", {"key": value})
    kept = snapshot_metadata()["cam"]["key"]
    assert kept == value and type(kept) is type(value)


@pytest.mark.parametrize("name", ["", None, 3])
def test_r67_it_needs_a_name(name: Any):
    """R-67: of the device."""
    with pytest.raises(MetadataError):
        register_metadata(name, {})


def test_r68_a_snapshot_is_a_copy():
    """R-68: deep."""
    register_metadata("cam", {"roi": {"x": [1]}})
    snapshot_metadata()["cam"]["roi"]["x"].append(2)
    assert snapshot_metadata() == {"cam": {"roi": {"x": [1]}}}


def test_r69_clear():
    """R-69: empties the registry."""
    register_metadata("cam", {"gain": 1})
    clear_metadata()
    assert snapshot_metadata() == {}


def test_r69_a_writer_that_finishes_does_not_clear_anothers(begin: Begin):
    """R-69: what was staged after it began belongs to somebody else."""
    register_metadata("one", {"of": "first"})
    _, (one,) = begin("one", folder="first")
    register_metadata("two", {"of": "second"})
    one.write(FRAME)
    one.close()
    assert snapshot_metadata() == {"two": {"of": "second"}}
    writer, _ = begin("two", folder="second")
    assert writer.metadata == {"two": {"of": "second"}}


def test_r69_a_writer_does_not_take_what_belongs_to_anothers_source(begin: Begin):
    """R-69: two groups of devices that start at different times."""
    other = ZarrWriter.get("other")
    other.prepare("two", "two", "<u2", (4, 6))
    register_metadata("two", {"of": "second"})
    register_metadata("one", {"of": "first"})
    writer, (one,) = begin("one", folder="first")
    assert writer.metadata == {"one": {"of": "first"}}
    one.write(FRAME)
    one.close()
    assert snapshot_metadata() == {"two": {"of": "second"}}


def test_r70_metadata_is_of_one_acquisition(begin: Begin):
    """R-70: an aborted acquisition takes its metadata with it."""
    register_metadata("cam", {"gain": 1})
    writer, _ = begin("cam", folder="aborted")
    writer.abort()
    assert snapshot_metadata() == {}
    writer, _ = begin("cam", folder="next", writer=writer)
    assert writer.metadata == {}


def test_r70_what_is_staged_again_meanwhile_is_kept(begin: Begin):
    """R-70: the device is prepared for the next run before this one has ended."""
    register_metadata("cam", {"run": 1})
    writer, (sink,) = begin("cam", folder="one")
    register_metadata("cam", {"run": 2})
    sink.write(FRAME)
    sink.close()
    writer, _ = begin("cam", folder="two", writer=writer)
    assert writer.metadata == {"cam": {"run": 2}}


@pytest.mark.parametrize("wrong", [{"dtype": "U3"}, {"shape": (-1,)}, {"gain": 1}])
def test_r70_an_attach_that_fails_leaves_nothing_staged(
    tmp_path: Any, wrong: dict[str, Any]
):
    """R-70: a device that could not be attached does not label the next store."""
    store = FrameStore(tmp_path, name=lambda: "run")
    good = {"dtype": "<u2", "shape": (4, 6), "metadata": {"gain": 1}}
    with pytest.raises((ValueError, TypeError)):
        store.attach("cam", **{**good, **wrong})
    assert snapshot_metadata() == {}
    # Late as well.
    first = store.attach("first", dtype="<u2", shape=(4, 6))
    with pytest.raises((ValueError, TypeError)):
        store.attach("cam", **{**good, **wrong})
    assert snapshot_metadata() == {}
    store.detach(first)


def test_threads_may_register_at_once():
    def register(number: int) -> None:
        for turn in range(50):
            register_metadata(f"cam {number}", {"turn": turn})
            snapshot_metadata()

    threads = [threading.Thread(target=register, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert snapshot_metadata() == {f"cam {n}": {"turn": 49} for n in range(4)}
