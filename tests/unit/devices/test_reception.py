"""One acquisition: exposures counted, averaged, refused."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.devices import FrameDataProvider, FrameReceiver, FrameStamp
from bluesky_beamtime.devices.frame_form import FrameForm
from bluesky_beamtime.devices.reception import Reception
from bluesky_beamtime.errors import FrameMismatchError, SinkClosedError
from bluesky_beamtime.storage import FrameStore, open_frames


def provider_for(
    path: Path, dtype: Any = "<u2", shape: tuple[int, ...] = (2, 3)
) -> FrameDataProvider:
    return FrameDataProvider(
        FrameStore(path),
        "cam",
        form=FrameForm(shape, np.dtype(dtype)),
        source="test://cam",
    )


def stored(provider: FrameDataProvider, which: int = 0) -> Any:
    return np.asarray(open_frames(provider._sinks[which].uri)[:])


async def test_is_what_sources_are_promised(tmp_path: Path) -> None:
    provider = provider_for(tmp_path)
    assert isinstance(Reception(provider, 1), FrameReceiver)
    provider.close()


async def test_number_ends_it(tmp_path: Path) -> None:
    provider = provider_for(tmp_path)
    reception = Reception(provider, 3)
    for value in range(5):
        reception.frame(np.full((2, 3), value, "<u2"))
    await asyncio.wait_for(reception.over, 5)
    assert reception.complete and not reception.cut_off
    assert provider.account.late == 2
    assert await provider.collections_written_signal.get_value() == 3
    provider.close()
    assert stored(provider)[:, 0, 0].tolist() == [0, 1, 2]


async def test_stop_ends_it(tmp_path: Path) -> None:
    provider = provider_for(tmp_path)
    reception = Reception(provider, 3)
    reception.frame(np.zeros((2, 3), "<u2"))
    reception.stop()
    assert reception.over.done()
    assert reception.cut_off
    assert await provider.collections_written_signal.get_value() == 1
    reception.frame(np.zeros((2, 3), "<u2"))
    assert provider.account.late == 1
    provider.close()
    assert len(stored(provider)) == 1


async def test_the_first_failure_counts(tmp_path: Path) -> None:
    provider = provider_for(tmp_path)
    reception = Reception(provider, 3)
    first = OSError("first")
    reception.fail(first)
    reception.fail(OSError("second"))
    await asyncio.wait_for(reception.over, 5)
    assert reception.failure is first
    with pytest.raises(OSError, match="first"):
        reception.frame(np.zeros((2, 3), "<u2"))
    provider.close()


async def test_frames_from_many_threads(tmp_path: Path) -> None:
    provider = provider_for(tmp_path)
    reception = Reception(provider, 400)

    def deliver(worker: int) -> None:
        for n in range(100):
            value = worker * 100 + n
            reception.frame(np.full((2, 3), value, "<u2"), FrameStamp(value, value))

    threads = [threading.Thread(target=deliver, args=(w,)) for w in range(4)]
    for thread in threads:
        thread.start()
    await asyncio.wait_for(reception.over, 30)
    for thread in threads:
        thread.join()
    provider.close()
    frames, times, ids = (stored(provider, which) for which in range(3))
    # Whatever the order, frame, time and id of a row belong together.
    assert sorted(ids.tolist()) == list(range(400))
    np.testing.assert_array_equal(frames[:, 1, 1], ids)
    np.testing.assert_array_equal(times, ids)


@pytest.mark.parametrize(
    ("dtype", "values", "mean"),
    [
        ("<u2", [65535, 65535, 65534], 65535),
        ("<u2", [1, 2], 2),
        ("<u2", [2, 3], 2),
        ("<i2", [-3, -2, -1], -2),
        ("<u4", [2**32 - 1, 2**32 - 3], 2**32 - 2),
        ("<i8", [2**62 + 1, 2**62 + 3], 2**62 + 2),
        ("<f4", [0.5, 1.0], 0.75),
        ("<c16", [1 + 2j, 3 + 4j], 2 + 3j),
        ("|b1", [True, True, False], True),
    ],
)
async def test_averages(tmp_path: Path, dtype: str, values: Any, mean: Any) -> None:
    provider = provider_for(tmp_path, dtype)
    reception = Reception(provider, len(values), len(values))
    buffer = np.zeros((2, 3), dtype)
    for value in values:
        # A source may use its buffer again.
        buffer[:] = value
        reception.frame(buffer)
    await asyncio.wait_for(reception.over, 5)
    provider.close()
    assert stored(provider).tolist() == [[[mean] * 3] * 2]


@pytest.mark.parametrize("wrong", [0, 1, 2])
@pytest.mark.parametrize(("dtype", "shape"), [("<f4", (2, 3)), ("<u2", (3,))])
async def test_an_average_takes_no_exposure_that_is_not_as_declared(
    tmp_path: Path, dtype: str, shape: tuple[int, ...], wrong: int
) -> None:
    provider = provider_for(tmp_path)
    reception = Reception(provider, 3, 3)
    for number in range(wrong):
        reception.frame(np.full((2, 3), number, "<u2"))
    with pytest.raises(FrameMismatchError):
        reception.frame(np.zeros(shape, dtype))
    assert isinstance(reception.failure, FrameMismatchError)
    assert provider.rows == 0
    provider.close()


async def test_without_a_stamp_frames_are_numbered_and_timed(tmp_path: Path) -> None:
    provider = provider_for(tmp_path)
    reception = Reception(provider, 3)
    before = time.time()
    for stamp in (None, FrameStamp(), FrameStamp(time=12.5)):
        reception.frame(np.zeros((2, 3), "<u2"), stamp)
    provider.close()
    times, ids = stored(provider, 1), stored(provider, 2)
    assert ids.tolist() == [0, 1, 2]
    assert before <= times[0] <= times[1] <= time.time()
    assert times[2] == 12.5


async def test_stamps_are_bounded_in_memory_and_all_there(tmp_path: Path) -> None:
    from bluesky_beamtime.devices.frame_rows import STAMP_BLOCK

    provider = provider_for(tmp_path, shape=())
    reception = Reception(provider, 0)
    count = 3 * STAMP_BLOCK + 7
    for n in range(count):
        reception.frame(np.asarray(n, "<u2"), FrameStamp(n, n / 2))
        assert len(provider._times) <= STAMP_BLOCK
    assert provider.publish() == count
    for which in range(3):
        assert len(stored(provider, which)) == count
    provider.close()


async def test_a_closed_provider_takes_nothing(tmp_path: Path) -> None:
    provider = provider_for(tmp_path)
    reception = Reception(provider, 5)
    provider.close()
    provider.close()
    with pytest.raises(SinkClosedError):
        reception.frame(np.zeros((2, 3), "<u2"))
    assert isinstance(reception.failure, SinkClosedError)
    assert provider.rows == 0
    assert provider.publish() == 0
