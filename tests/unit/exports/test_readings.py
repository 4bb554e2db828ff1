"""Tables of readings: the export is what a live sink wrote, byte for byte."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.sinks import CsvSink, ParquetSink, SinkSubscriber

from .kinds import KINDS

SINKS: dict[str, Any] = {"csv": CsvSink, "parquet": ParquetSink}
ABLE = ["going_on", "several_streams", "failed", "absent_values", "repeated", "cameras"]


@pytest.mark.parametrize("to", SINKS)
@pytest.mark.parametrize("name", ABLE)
def test_export_is_what_a_live_sink_wrote(tmp_path: Path, name: str, to: str) -> None:
    live, later = tmp_path / f"live.{to}", tmp_path / f"later.{to}"
    with Beamtime(tmp_path / "x.db") as beamtime:
        with SinkSubscriber(SINKS[to](live), blocks=False) as subscriber:

            def both(name: str, doc: Any) -> None:
                beamtime(name, doc)
                subscriber(name, doc)

            kind = KINDS[name](both, tmp_path)
        run = beamtime[kind.uid]
        assert run.export(later, to, rows="readings") == [later]
    if to == "csv":
        assert later.read_bytes() == live.read_bytes()
    else:
        assert pq.read_table(later).equals(pq.read_table(live))
    assert not list(tmp_path.glob(".beamtime*"))


@pytest.mark.parametrize("to", SINKS)
def test_run_without_readings_says_so(tmp_path: Path, to: str) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        run = beamtime[KINDS["only_frames"](beamtime, tmp_path).uid]
        before = sorted(path.name for path in tmp_path.iterdir())
        with pytest.raises(ExportError, match="has no readings"):
            run.export(tmp_path / "run.x", to, rows="readings")
    assert [n for n in before if "run" in n] == []
    assert not list(tmp_path.glob("run.x*"))


async def test_export_works_where_an_event_loop_is_running(tmp_path: Path) -> None:
    """As in a notebook."""
    with Beamtime(tmp_path / "x.db") as beamtime:
        run = beamtime[KINDS["failed"](beamtime, tmp_path).uid]
        await asyncio.sleep(0)
        assert run.export(tmp_path / "run.csv", "csv", rows="readings")


def test_progress_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with Beamtime(tmp_path / "x.db") as beamtime:
        run = beamtime[KINDS["failed"](beamtime, tmp_path).uid]
        with pytest.raises(KeyboardInterrupt):
            run.export(tmp_path / "run.csv", "csv", rows="readings", progress=stop)
    assert not list(tmp_path.glob("*run*")) + list(tmp_path.glob(".beamtime*"))


@pytest.mark.parametrize("value", ["rows", "", None])
def test_rows_of_another_kind_are_refused(tmp_path: Path, value: Any) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        run = beamtime[KINDS["failed"](beamtime, tmp_path).uid]
        with pytest.raises(ExportError, match="'events' or 'readings'"):
            run.export(tmp_path / "run.csv", "csv", rows=value)
        with pytest.raises(ExportError, match="hdf5 has no option 'rows'"):
            run.export(tmp_path / "run.h5", "hdf5", rows="readings")
