"""``beamtime samples`` and ``beamtime sql``."""

from __future__ import annotations

import csv as csv_format
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.cli import tables
from bluesky_beamtime.cli.listing import print_json

if TYPE_CHECKING:
    from bluesky_beamtime.beamtime import Beamtime
    from bluesky_beamtime.database import Sample, SampleMetadata


def list_samples(file: Path, name: str | None, *, json: bool) -> None:
    """Print all samples, or what one of them was from when on."""
    from bluesky_beamtime.beamtime import Beamtime

    with Beamtime(file, mode="r") as beamtime:
        if name is not None:
            _print_history(beamtime.samples[name], json=json)
        else:
            print_samples(beamtime, json=json)


def print_samples(beamtime: Beamtime, *, json: bool) -> None:
    """Print the samples of an open beamtime."""
    counts = beamtime.distinct("sample")
    known = [
        (sample.metadata, counts.get(sample.name, 0))
        for sample in beamtime.samples.values()
    ]
    if json:
        print_json([{**asdict(sample), "runs": count} for sample, count in known])
    elif not known:
        print("no sample yet")
    else:
        rows = [(sample.name, count, *_said(sample)) for sample, count in known]
        _print(("sample", "runs", *_SAID), rows)


_SAID = ("formula", "serial", "position", "tags", "more")


def _said(sample: SampleMetadata) -> tuple[str, ...]:
    more = ", ".join(f"{key}: {value}" for key, value in sample.extra.items())
    position = "" if sample.beamline_pos is None else str(sample.beamline_pos)
    tags = ", ".join(sample.tags)
    return (sample.formula or "", sample.serial or "", position, tags, more)


def _print_history(sample: Sample, *, json: bool) -> None:
    changes = sample.history
    if json:
        print_json([asdict(change) for change in changes])
        return
    rows = [
        (tables.moment(change.time or None), change.sample.name, *_said(change.sample))
        for change in changes
    ]
    _print(("from", "sample", *_SAID), rows)


def ask_in_sql(file: Path, query: str, *, json: bool, csv: bool) -> None:
    """Print what a query answers: as a table, as JSON objects, or as CSV."""
    from bluesky_beamtime.database import Database
    from bluesky_beamtime.database.rawsql import ask

    database = Database(file, mode="r")
    try:
        answer = ask(database, query)
    finally:
        database.close()
    if json:
        print_json([dict(zip(answer.columns, row, strict=True)) for row in answer.rows])
    elif csv:
        writer = csv_format.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.columns)
        writer.writerows(answer.rows)
    else:
        _print(answer.columns, answer.rows)


def _print(columns: Any, rows: Any) -> None:
    tables.console().print(tables.plain_table(columns, rows))
