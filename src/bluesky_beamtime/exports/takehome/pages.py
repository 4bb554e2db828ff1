"""``index.html`` and a page for each run, with their pictures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

from bluesky_beamtime.beamtime import Beamtime
from bluesky_beamtime.database import Run, Stream
from bluesky_beamtime.database.descriptions import Descriptions
from bluesky_beamtime.database.external import stored_arrays
from bluesky_beamtime.database.times import local_time
from bluesky_beamtime.errors import BeamtimeError, MissingExtraError
from bluesky_beamtime.exports.takehome.naming import run_label, short_name
from bluesky_beamtime.pages import (
    PLOT_STYLE,
    environment,
    frame_png,
    plot_svg,
    shorten,
    stream_facts,
    thumbnail_png,
)
from bluesky_beamtime.storage import from_uri

EXTRA = "take-home"
_ON_A_PAGE = 1000
_FRAME_PIXELS = 400


@dataclass(frozen=True, slots=True)
class Told:
    """What pages say beside what is in the database."""

    names: Mapping[str, str]
    """For uids, names of their pages."""
    problems: Sequence[str] = ()
    """What is missing or damaged."""
    unfit: Sequence[str] = ()
    """What a format that was asked for cannot hold."""
    recording: frozenset[str] = frozenset()
    """Uids of runs that went on while they were copied."""
    exports: Mapping[str, Sequence[str]] = field(default_factory=dict[str, list[str]])
    """For uids, names of exported files relative to the folder."""
    chosen: bool = False
    """Whether these are only some of the runs."""


@cache
def templates() -> Any:
    """Return the templates.

    Raises
    ------
    MissingExtraError
        A package is not installed that pages and pictures need.
    """
    if find_spec("PIL") is None:
        # Not when half of it is done.
        raise MissingExtraError("making pictures", "pillow", EXTRA)
    made = environment("bluesky_beamtime.exports.takehome", EXTRA)
    made.globals["plot_style"] = PLOT_STYLE
    made.filters["href"] = quote
    return made


class Pages:
    """Writes the pages of a copy of a beamtime.

    Parameters
    ----------
    beamtime
        The copy, opened to be read.
    told
        What else to say.
    done
        Called with the name of each file that was written, relative to the folder.
    """

    def __init__(
        self, beamtime: Beamtime, told: Told, done: Callable[[str], object]
    ) -> None:
        self._beamtime = beamtime
        self._folder = beamtime.path.parent
        self._told = told
        self._done = done
        self._name = beamtime.path.name.removesuffix(".db")

    def write(self, progress: Callable[[str, int, int], None]) -> None:
        """Write all of them."""
        # Files of detectors may lie in a folder of that name already.
        (self._folder / "runs").mkdir(exist_ok=True)
        lines = [self._line(summary) for summary in self._beamtime.summaries()]
        for number, line in enumerate(lines):
            progress("pages", number, len(lines))
            newer = lines[number - 1] if number else None
            older = lines[number + 1] if number + 1 < len(lines) else None
            self._write_run(line, newer, older)
        self._write_index(lines)

    def _line(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        status = summary["exit_status"] or "interrupted"
        recording = summary["uid"] in self._told.recording
        return {
            **summary,
            "label": run_label(summary),
            "page": self._told.names[summary["uid"]],
            "began": _local_time(summary["time"]),
            "status": "recording" if recording else status,
            "style": "running" if recording else status,
            "incomplete": not summary["complete"] and status != "interrupted",
            "frames": [_account(*item) for item in summary["frames"].items()],
            "thumbnail": None,
        }

    # -------------------------------------------------------------------- the runs

    def _write_run(
        self,
        line: dict[str, Any],
        newer: Mapping[str, Any] | None,
        older: Mapping[str, Any] | None,
    ) -> None:
        run = self._beamtime[line["uid"]]
        # Without anything to show there is none; what is damaged is told on the page.
        with suppress(BeamtimeError, ValueError, ArithmeticError):
            small = thumbnail_png(run)
            line["thumbnail"] = self._write_new(
                f"runs/{line['page']}_small", ".png", small
            )
        stop = run.stop or {}
        names = sorted(run.stream_names, key=lambda name: name != "primary")
        streams = [self._stream(run, name, line["page"]) for name in names]
        page = (
            templates()
            .get_template("run.html")
            .render(
                line=line,
                name=self._name,
                newer=newer,
                older=older,
                ended=_local_time(stop.get("time")),
                reason=str(stop.get("reason") or ""),
                proposal=run.proposal,
                people=[_person(person) for person in run.people],
                notes=run.notes,
                problems=self._problems_of(run),
                exports=[
                    os.path.relpath(n, "runs")
                    for n in self._told.exports.get(run.uid, ())
                ],
                unfit=[told for told in self._told.unfit if run.uid in told],
                streams=streams,
                metadata=_texts(run.metadata),
                start=_texts(run.start),
            )
        )
        self._write(f"runs/{line['page']}.html", page.encode("utf-8", "replace"))

    def _stream(self, run: Run, name: str, page: str) -> dict[str, Any]:
        stream = run[name]
        try:
            facts = stream_facts(stream)
            facts["settings"] = _settings(stream)
        except (BeamtimeError, ValueError, TypeError, ArithmeticError) as error:
            # One stream that nobody understands must not cost all others.
            why = self._here(str(error))
            return {"name": name, "error": why, "events": stream.num_events}
        facts["error"] = self._here(facts["error"])
        plots: list[str] = []
        for key in facts["curves"]:
            # One that cannot be drawn is in the table.
            with suppress(BeamtimeError, ValueError, ArithmeticError):
                plots.append(plot_svg(stream, key, alone=False))
        facts["plots"] = plots
        for frame in facts["frames"]:
            row = frame["rows"] // 2
            try:
                png = frame_png(stream, frame["field"], row, largest=_FRAME_PIXELS)
            except (BeamtimeError, OSError, ValueError, ArithmeticError) as error:
                frame["error"] = self._here(str(error))
                continue
            words = short_name(f"{name}_{frame['field']}")
            frame["picture"] = self._write_new(f"runs/{page}_{words}", ".png", png)
            frame["row"] = row
        return facts

    def _here(self, text: str) -> str:
        """Return text that names files as they lie here, wherever the folder goes."""
        return text.replace(f"{self._folder}{os.sep}", "")

    def _problems_of(self, run: Run) -> list[str]:
        if not self._told.problems:
            return []
        marks = [run.uid]
        for array in stored_arrays(run.database, run.uid):
            try:
                path = os.path.relpath(from_uri(array.uri), self._folder)
            except (BeamtimeError, ValueError):
                continue
            marks.append(f"{path}:")
            marks.append(f"{path}/")
            marks.append(f"{path} ")
        return [p for p in self._told.problems if any(mark in p for mark in marks)]

    # ------------------------------------------------------------------- the index

    def _write_index(self, lines: Sequence[Mapping[str, Any]]) -> None:
        pages = [lines[n : n + _ON_A_PAGE] for n in range(0, len(lines), _ON_A_PAGE)]
        names = ["index.html", *(f"index-{n}.html" for n in range(2, len(pages) + 1))]
        times = [line["time"] for line in lines if line["time"] is not None]
        facts = {
            "name": self._name,
            "file": self._beamtime.path.name,
            "zarr": (self._folder / f"{self._name}.zarr").is_dir(),
            "count": len(lines),
            "first": _local_time(min(times, default=None)),
            "last": _local_time(max(times, default=None)),
            "proposal": self._beamtime.proposal,
            "people": [_person(person) for person in self._beamtime.people],
            "notes": self._beamtime.notes,
            "problems": self._told.problems,
            "chosen": self._told.chosen,
            "exports": any(self._told.exports.values()),
            "copied": _local_time(time.time()),
        }
        for number, part in enumerate(pages or [[]]):
            page = (
                templates()
                .get_template("index.html")
                .render(
                    **facts,
                    lines=part,
                    number=number,
                    names=names if len(pages) > 1 else [],
                )
            )
            self._write(names[number], page.encode("utf-8", "replace"))

    # ----------------------------------------------------------------------- files

    def _write_new(self, stem: str, suffix: str, content: bytes) -> str:
        """Write a file whose name may be taken already, on any file system."""
        for number in range(1, 10_000):
            name = f"{stem}{'' if number == 1 else f'_{number}'}{suffix}"
            if not (self._folder / name).exists():
                return self._write(name, content)
        raise FileExistsError(stem)

    def _write(self, name: str, content: bytes) -> str:
        with (self._folder / name).open("xb") as file:
            file.write(content)
        self._done(name)
        return name


def _local_time(seconds: float | None) -> str:
    return local_time(seconds) if seconds else ""


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): shorten(value, 2000) for key, value in values.items()}


def _settings(stream: Stream) -> dict[str, dict[str, str]]:
    """Return the settings of each device; of one that was changed all its values."""
    described = Descriptions(stream)
    found = {
        device: {key: shorten(value) for key, value in values.items()}
        for device, values in described.configuration().items()
        if values
    }
    for device, changes in described.configuration_changes().items():
        for key, held in changes.items():
            told = [
                f"{shorten(setting.value)} {setting.units or ''}".strip()
                + f" from event {setting.seq_num}"
                for setting in held
            ]
            found[device][key] = shorten(", ".join(told))
    return found


def _account(key: str, account: Mapping[str, int | None]) -> dict[str, Any]:
    written, expected = account["written"], account["expected"]
    short = written is not None and expected is not None and written < expected
    return {
        "key": key,
        "written": "?" if written is None else written,
        "expected": expected if short else None,
        "dropped": account["dropped"] or 0,
        "counts": {word: n for word, n in account.items() if n is not None},
    }


def _person(person: Any) -> str:
    return f"{person.name} ({person.role})" if person.role else person.name
