"""Writers of frames that are killed at random moments: gate R2.

The mechanism is that of ``benchmarks/kills.py``, whose table stands in the docs: every
format, codec, checksum and size of shards takes its turn. Twenty kills here;
``BEAMTIME_KILLS`` asks for more.
"""

from __future__ import annotations

import importlib
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

KILLS = int(os.environ.get("BEAMTIME_KILLS", "20"))
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def kills() -> Iterator[ModuleType]:
    """Import the script as it imports its own parts."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("kills")
        for name in {"kills", "killed"} - before:
            sys.modules.pop(name, None)


@pytest.mark.timeout(120 + 10 * KILLS)
def test_nothing_acknowledged_is_lost(
    tmp_path: Path, kills: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    table = kills.run(tmp_path, KILLS, random.Random())
    total = sum(table.values(), kills.Count())
    with capsys.disabled():
        print(f" [{vars(total)}]", end="")
    assert total.complaints == []
    assert (total.lost, total.wrong) == (0, 0)
    assert total.kills == KILLS
    assert total.acknowledged > KILLS
    # Nine in ten, as a rule; only that they do hit is asked of a busy machine.
    assert total.within > KILLS / 4
    if KILLS >= 20:
        written = {(case.mimetype, case.compression) for case in table}
        assert len(written) == 7


@pytest.mark.parametrize("mimetype", ["application/x-zarr", "application/x-hdf5"])
def test_what_is_lost_or_wrong_would_be_counted(
    tmp_path: Path, kills: ModuleType, mimetype: str
) -> None:
    """The same examination, of a store that does not hold what its child said."""
    from bluesky_beamtime.storage import make_writer

    case = kills.Case(mimetype, "none", False, 4)
    size, number, count = 8, 3, 20
    writer = make_writer(mimetype, "not killed", **case.options)
    writer.set_uri(str(tmp_path / "store"))
    sinks = [writer.prepare(name, name, "<u2", (size, size)) for name in kills.SOURCES]
    writer.kickoff()
    for source, sink in enumerate(sinks):
        frames = kills.pool(number, source, size)
        stored = kills.numbered(frames, np.arange(count))
        if source:
            stored[7, 5, 5] += 1
        sink.write_many(stored)
        sink.close()
    type(writer).release("not killed")
    state = kills.said(tmp_path, "w+")
    state[:] = [[count + 4, count + 3, count + 1], [count, count, count]]
    found = kills.examine(tmp_path, number, case, size)
    # Both readers miss one published frame before the repair, three frames after it.
    assert found.lost == 2 * 1 + 2 * 3
    # Frame 7 of the second source, to both readers, before the repair and after it.
    assert found.wrong == 4
    assert found.within == 1
