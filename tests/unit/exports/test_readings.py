"""Tables of readings: the export is what a live sink wrote, byte for byte."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import ExportError, SinkSchemaError
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


@pytest.mark.parametrize("to", SINKS)
def test_text_that_is_no_utf_8_is_its_escape(tmp_path: Path, to: str) -> None:
    """As in the table of events: what a beamtime holds can be exported."""
    with Beamtime(tmp_path / "x.db") as beamtime:
        for name, doc in documents({"label": "\ud83d", "more": ["\ud83d"]}):
            beamtime(name, doc)
        (path,) = beamtime[-1].export(tmp_path / f"x.{to}", to, rows="readings")
    (row,) = pq.read_table(path).to_pylist() if to == "parquet" else csv_rows(path)
    assert (row["label"], row["more"]) == ("\\ud83d", '["\\ud83d"]')


@pytest.mark.parametrize("to", SINKS)
def test_what_a_sink_refuses_is_an_error_of_the_export(
    tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: Any, items: Any) -> None:
        raise SinkSchemaError("no place for it", records=items)

    monkeypatch.setattr(SINKS[to], "write_many", refuse)
    with Beamtime(tmp_path / "x.db") as beamtime:
        run = beamtime[KINDS["failed"](beamtime, tmp_path).uid]
        with pytest.raises(ExportError, match="no place for it"):
            run.export(tmp_path / f"run.{to}", to, rows="readings")
    assert not list(tmp_path.glob("*run*")) + list(tmp_path.glob(".beamtime*"))


def documents(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a run with one event."""
    keys = {key: {"source": "s", "dtype": "string", "shape": []} for key in data}
    yield "start", {"uid": "run", "time": 1.0, "scan_id": 1, "plan_name": "count"}
    yield (
        "descriptor",
        {
            "uid": "d",
            "run_start": "run",
            "time": 1.0,
            "name": "primary",
            "data_keys": keys,
            "object_keys": {"device": list(data)},
            "configuration": {},
            "hints": {},
        },
    )
    yield (
        "event",
        {
            "uid": "e",
            "descriptor": "d",
            "time": 1.0,
            "seq_num": 1,
            "data": data,
            "timestamps": dict.fromkeys(data, 1.0),
            "filled": {},
        },
    )
    yield (
        "stop",
        {
            "uid": "stop",
            "run_start": "run",
            "time": 2.0,
            "exit_status": "success",
            "num_events": {"primary": 1},
        },
    )


def csv_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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
