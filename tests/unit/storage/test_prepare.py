"""Row R-71."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.errors import CapacityError
from bluesky_beamtime.storage import PrepareInfo


def test_r71_defaults():
    """R-71: neither a number nor forever; it is a value."""
    info = PrepareInfo()
    assert (info.capacity, info.write_forever) == (0, False)
    assert info == PrepareInfo(0, write_forever=False)
    with pytest.raises(FrozenInstanceError):
        info.capacity = 3  # type: ignore[misc]


def test_r71_one_of_them():
    """R-71: a number, of Python or NumPy, or forever."""
    assert PrepareInfo(capacity=10).capacity == 10
    assert PrepareInfo(capacity=np.int64(10)).capacity == 10
    assert PrepareInfo(write_forever=True).write_forever


@pytest.mark.parametrize("capacity", [1, 10])
def test_r71_contradictions_are_refused(capacity: int):
    """R-71: ten frames and forever cannot both be meant."""
    with pytest.raises(CapacityError, match="forever"):
        PrepareInfo(capacity=capacity, write_forever=True)


@pytest.mark.parametrize("capacity", [-1, 2.5, None, "3"])
def test_r71_what_is_no_number_is_refused(capacity: Any):
    """R-71: at once, and as a ValueError."""
    with pytest.raises(ValueError, match="capacity"):
        PrepareInfo(capacity=capacity)
