"""Counts that serve for a while."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bluesky_beamtime.serving.recent_counts import RecentCounts


class Runs:
    """Runs that take some seconds to be counted."""

    def __init__(self) -> None:
        self.now = 100.0
        self.number = 7
        self.seconds = 0.5
        self.counted = 0
        self.recent = RecentCounts(lambda: self.now)

    def count(self) -> int:
        self.counted += 1
        self.now += self.seconds
        return self.number

    def of(self, question: str, count: Callable[[], int] | None = None) -> int:
        return self.recent.of(question, count or self.count)


def test_a_slow_count_serves_for_twenty_times_as_long() -> None:
    runs = Runs()
    assert runs.of("a") == 7
    runs.number = 8
    runs.now += 9.9
    assert runs.of("a") == 7 and runs.counted == 1
    runs.now += 0.2
    assert runs.of("a") == 8 and runs.counted == 2
    # The new one counts from now.
    runs.now += 9.9
    assert runs.of("a") == 8 and runs.counted == 2


def test_a_quick_count_is_done_each_time() -> None:
    runs = Runs()
    runs.seconds = 0.0
    for number in range(3):
        runs.number = number
        assert runs.of("a") == number


def test_each_question_has_its_own_count() -> None:
    runs = Runs()
    assert runs.of("a") == 7
    runs.number = 8
    assert runs.of("b") == 8
    assert runs.of("a") == 7


def test_only_the_newest_questions_are_kept() -> None:
    runs = Runs()
    runs.seconds = 1000.0
    for number in range(65):
        runs.of(str(number))
        # So that none is out of date.
        runs.now = 100.0
    runs.of("64")
    runs.of("1")
    assert runs.counted == 65
    runs.of("0")
    assert runs.counted == 66


def test_a_count_that_fails_is_not_kept() -> None:
    runs = Runs()

    def fail() -> int:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        runs.of("a", fail)
    assert runs.of("a") == 7
