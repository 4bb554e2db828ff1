"""What the ids of frames tell of those that are missing."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from bluesky_beamtime.devices.frame_ids import REORDER, FrameIds


def take(ids: Iterable[int], id_range: tuple[int, int] | None = None) -> FrameIds:
    found = FrameIds(id_range)
    for one in ids:
        found.take(one)
    return found


@pytest.mark.parametrize(
    ("ids", "lost", "repeated"),
    [
        ([], 0, 0),
        ([7], 0, 0),
        ([7, 8, 9], 0, 0),
        ([0, 1, 4, 5], 2, 0),
        ([0, 2, 1, 3], 0, 0),
        ([0, 4, 2, 1, 5], 1, 0),
        ([0, 0, 1, 1, 2], 0, 2),
        ([0, 1, 3, 3, 4], 1, 1),
        # A straggler that comes twice is repeated once.
        ([0, 2, 1, 1, 3], 0, 1),
        # Restarted: what was lost meanwhile is not known, nothing is made up.
        ([100, 101, 102, 0, 1, 2, 3], 0, 0),
        ([100, 102, 0, 1, 3], 2, 0),
        ([5000, 5001, 0, 1], 0, 0),
        ([10**12, 10**12 + 1, 3, 4, 5], 0, 0),
    ],
)
def test_lost_and_repeated(ids: list[int], lost: int, repeated: int) -> None:
    found = take(ids)
    assert (found.lost, found.repeated) == (lost, repeated)


@pytest.mark.parametrize("width", [16, 31, 32, 63, 64])
def test_counters_overflow(width: int) -> None:
    size = 1 << width
    count = [(size - 50 + n) % size for n in range(100)]
    assert take(count).lost == 0
    del count[48:53]  # across the overflow
    found = take(count)
    assert (found.lost, found.repeated) == (5, 0)
    # Out of order across it.
    swapped = [size - 3, size - 2, 0, size - 1, 1, 2]
    found = take(swapped)
    assert (found.lost, found.repeated) == (0, 0)


def test_a_counter_overflows_more_than_once() -> None:
    count = [n % 65536 for n in range(65000, 3 * 65536) if n % 1000]
    assert take(count).lost == sum(n % 1000 == 0 for n in range(65001, 3 * 65536))


def test_a_declared_range_may_leave_zero_out() -> None:
    gige = [65534, 65535, 1, 2, 4]
    assert take(gige, (1, 65535)).lost == 1
    assert take(gige).lost == 2, "without it, 0 is taken for lost"
    eight_bits = [n % 256 for n in range(1000) if n % 100]
    assert take(eight_bits, (0, 255)).lost == 9


@pytest.mark.parametrize("id_range", [(5, 5), (3, 1), (-1, 4)])
def test_a_range_is_checked(id_range: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="id_range"):
        FrameIds(id_range)


def test_a_wide_counter_that_was_restarted_where_a_narrow_one_ends() -> None:
    restarted = [65530, 65531, *range(70_000)]
    found = take(restarted)
    # The restart itself looks like an overflow; nothing after it does.
    assert found.lost == 65536 - 65532
    assert found.repeated == 0


def test_a_gap_too_wide_to_remember() -> None:
    found = take([0, 10**9, 10**9 + 1])
    assert found.lost == 10**9 - 1
    found.take(10**9 - 3)
    assert found.lost == 10**9 - 2
    assert len(found._missing) <= 2 * REORDER


@pytest.mark.parametrize("seed", range(20))
def test_any_mixture(seed: int) -> None:
    """Loss, repetition and disorder at once, across an overflow."""
    rng = random.Random(seed)
    size = 1 << rng.choice([16, 32])
    first = size - rng.randrange(100, 900)
    kept = [n for n in range(first, first + 2000) if n == first or rng.random() > 0.01]
    newest = max(kept)
    lost = newest - first + 1 - len(kept)
    repeats = 0
    arriving: list[tuple[float, int]] = []
    for n in kept:
        # Neither the first nor what would come before it out of order.
        delay = rng.uniform(0, 40) if n > first + 50 else 0
        arriving.append((n + delay, n % size))
        if n > first + 50 and rng.random() < 0.002:
            arriving.append((n + delay + 0.5, n % size))
            repeats += 1
    found = take(one for _, one in sorted(arriving))
    assert found.lost == lost
    assert found.repeated == repeats
