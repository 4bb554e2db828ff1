"""Runs as tables and lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from bluesky_beamtime.database import Run

_STATUS_STYLE = {"success": "green", "running": "cyan"}
# What the documents hold for machines, or what is told elsewhere.
_NOT_METADATA = {
    *("uid", "scan_id", "plan_name", "plan_type", "plan_args", "plan_pattern"),
    *(
        "plan_pattern_args",
        "plan_pattern_module",
        "time",
        "sample",
        "versions",
        "hints",
    ),
}


def console() -> Console:
    """Return a console that writes to standard output."""
    return Console(highlight=False)


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        header_style="bold",
        pad_edge=False,
        show_edge=False,
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    return table


def runs_table(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table with one line for each run.

    Parameters
    ----------
    summaries
        What :meth:`Run.summary` gives.
    """
    columns = ["scan", "time", "plan", "sample", "events", "frames", "status"]
    labels = [_labels(summary) for summary in summaries]
    labelled = any(labels)
    table = _table(*columns, *["tags"] * labelled, right=("scan", "events"))
    for summary, label in zip(summaries, labels, strict=True):
        table.add_row(
            _text(summary["scan_id"]),
            _when(summary["time"], "%Y-%m-%d %H:%M"),
            _text(summary["plan_name"]),
            _text(summary["sample"]),
            str(summary["num_events"]),
            _frames(summary["frames"]),
            _status(summary),
            *[Text(label)] * labelled,
        )
    return table


def _labels(summary: Mapping[str, Any]) -> str:
    star = ["★"] if summary.get("starred") else []
    return ", ".join((*star, *summary.get("tags", ())))


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """Return a table of values as they are."""
    table = _table()
    for column in columns:
        table.add_column(Text(column))
    for row in rows:
        table.add_row(*(_text(value) for value in row))
    return table


def moment(seconds: float | None) -> str:
    """Return a time as people write it."""
    return _when(seconds)


def account_lines(summaries: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return one line for each run that accounts for the frames of all its cameras."""
    lines = Table.grid(padding=(0, 1))
    lines.add_column(style="bold")
    for summary in summaries:
        accounts = list(summary["frames"].values())
        cells = [Text(f"scan {_text(summary['scan_id'])}")]
        for name in accounts[0] if accounts else ():
            counts = [account[name] for account in accounts]
            total = None if None in counts else sum(counts)
            wrong = name in ("dropped", "late") and total
            cells.append(Text(f" {_text(total)}", style="bold red" if wrong else ""))
            cells.append(Text(f"{name}{',' if name != 'written' else ''}"))
        lines.add_row(*cells)
    # The numbers, between the words.
    for column in lines.columns[1::2]:
        column.justify = "right"
    return lines


def run_report(run: Run, summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield what is to be told of one run, from top to bottom."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_row("scan", _text(summary["scan_id"]))
    facts.add_row("plan", _text(summary["plan_name"]))
    facts.add_row("sample", _text(summary["sample"]))
    facts.add_row("began", _when(summary["time"]))
    stop = run.stop
    if stop is not None and summary["time"] is not None:
        facts.add_row("took", f"{stop['time'] - summary['time']:.1f} s")
    facts.add_row("status", _status(summary))
    if stop is not None and stop.get("reason"):
        facts.add_row("reason", Text(str(stop["reason"]).strip()))
    facts.add_row("uid", str(summary["uid"]))
    for key, value in run.start.items():
        if key not in _NOT_METADATA:
            facts.add_row(Text(key), Text(_plain(value)))
    yield facts

    fields = _table(
        "stream", "events", "field", "shape", "dtype", "units", right=["events"]
    )
    for stream in run.streams.values():
        first = (stream.name, str(stream.num_events))
        for field, data_key in stream.data_keys.items():
            fields.add_row(
                *first,
                Text(field),
                " × ".join(map(str, data_key.get("shape") or [])),
                Text(str(data_key.get("dtype_numpy") or data_key.get("dtype") or "")),
                Text(str(data_key.get("units") or "")),
            )
            first = ("", "")
    if fields.row_count:
        yield ""
        yield fields

    accounts: Mapping[str, Any] = summary["frames"]
    if accounts:
        counters = list(next(iter(accounts.values())))
        columns = [*counters, "dead time"]
        frames = _table("frames of", *columns, right=columns)
        timing = run.frame_timing
        for key, account in accounts.items():
            dead = timing[key]["dead_time"] if key in timing else None
            frames.add_row(
                Text(key),
                *(_text(account[name]) for name in counters),
                "–" if dead is None else f"{100 * dead:.1f} %",
            )
        yield ""
        yield frames


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):  # pyright: ignore
        return ", ".join(value)  # pyright: ignore
    return json.dumps(value, default=str)


def _text(value: object) -> Text:
    return Text("–" if value is None else str(value))


def _when(seconds: float | None, how: str = "%Y-%m-%d %H:%M:%S") -> str:
    from bluesky_beamtime.database.times import local_time

    return "–" if seconds is None else local_time(seconds, how)


def _frames(accounts: Mapping[str, Mapping[str, int | None]]) -> Text:
    """Return ``cam1 25, cam2 24 of 25``."""
    text = Text()
    for key, account in accounts.items():
        if text:
            text.append(", ")
        written, expected = account["written"], account["expected"]
        text.append(f"{key} {'?' if written is None else written}")
        if expected is not None and written != expected:
            text.append(f" of {expected}", style="red")
    return text


def _status(summary: Mapping[str, Any]) -> Text:
    status = summary["exit_status"] or "running"
    text = Text(status, style=_STATUS_STYLE.get(status, "red"))
    if not summary["complete"]:
        text.append(", incomplete", style="bold red")
    return text


@contextmanager
def progress(what: str, total: int) -> Generator[Callable[[], object]]:
    """Show a bar on a terminal; lends what is called after each step."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
