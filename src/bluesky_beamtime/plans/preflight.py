"""Will it fit? Asked before the first motor of a run moves."""

from __future__ import annotations

import errno
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bluesky.utils import Msg, MsgGenerator

from bluesky_beamtime.errors import BeamtimeWarning, DiskSpaceError
from bluesky_beamtime.plans.expectation import (
    EVENT_BYTES,
    Appetite,
    Recall,
    appetites,
    each,
    find_detectors,
    planned_events,
    planned_rows,
)
from bluesky_beamtime.plans.untyped import bu
from bluesky_beamtime.storage import free_space, human_size

_logger = logging.getLogger("bluesky_beamtime.plans")

MARGIN = 32 * 1000**2
"""Bytes that a run has to leave free, by default."""

WORTH_A_LINE = 1000**3
"""A run that takes so many bytes is told of before it begins."""

_MOVES = frozenset(("set", "trigger", "kickoff"))
_LOOKED_AT = _MOVES | {
    "stage",
    "unstage",
    "prepare",
    "open_run",
    "close_run",
    "save",
}

Mode = Literal["refuse", "warn"]


class Preflight:
    """A preprocessor that compares what a run needs with what the disk has.

    ``RE.preprocessors.append(Preflight(folder))``; ``beamtime.attach(RE)`` does so.

    How many events a run takes stands in its start document: ``num_points`` of
    Bluesky's plans, ``num_frames`` of this package's, ``shape``; or in what a detector
    is prepared for. What an event takes is what its detectors say: by ``footprint()``,
    as this package's cameras do, or by ``describe()``, or else what they took the last
    time. It is asked when the run is about to open and, if a detector has been prepared
    since, before the first motor moves and the first detector is triggered. Where the
    number of events is not known, only that a little is free.

    Parameters
    ----------
    folder
        Where frames go that are not known to go elsewhere, and events.
    mode
        ``"refuse"``: a run that does not fit raises; one that may or may not, because
        frames are compressed or their size is that of an earlier run, is warned of.
        ``"warn"``: only warn.
    margin
        Bytes that have to remain.
    recall
        Returns what a device, given by its name, took in the last run that had it.
    warn
        Called with a warning.
    tell
        Called with one line about a large run.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        mode: Mode = "refuse",
        margin: float = MARGIN,
        recall: Recall | None = None,
        warn: Callable[[str], None] | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        if mode not in ("refuse", "warn"):
            raise ValueError(f"mode must be 'refuse' or 'warn', not {mode!r}")
        if not margin >= 0:
            raise ValueError(f"margin must be a number of bytes, not {margin!r}")
        self.folder = Path(folder)
        self.mode: Mode = mode
        self.margin = margin
        self.recall = recall
        self.warn = warn or _warn
        self.tell = tell

    def __call__(self, plan: Any) -> MsgGenerator[Any]:
        """Return the plan with the checks in it.

        Raises
        ------
        DiskSpaceError
            Into the plan, which cleans up behind it: a run does not fit.
        """
        watch = _Watch(self)
        inner = bu.ensure_generator(plan)
        response: Any = None
        error: BaseException | None = None
        while True:
            try:
                msg = inner.send(response) if error is None else inner.throw(error)
            except StopIteration as stop:
                return stop.value
            response = error = None
            try:
                if msg.command in _LOOKED_AT:
                    yield from watch.before(msg)
                response = yield msg
            except GeneratorExit:
                inner.close()
                raise
            except BaseException as raised:
                error = raised


def preflight_wrapper(
    plan: Any, folder: str | os.PathLike[str], **options: Any
) -> MsgGenerator[Any]:
    """Check the disk space of one plan; see :class:`Preflight`.

    ``RE(preflight_wrapper(count([camera], 1000), "/data"))``

    Parameters
    ----------
    plan
        The plan.
    folder, **options
        As for :class:`Preflight`.

    Raises
    ------
    DiskSpaceError
        A run does not fit.
    """
    return (yield from Preflight(folder, **options)(plan))


def preflight_decorator(folder: str | os.PathLike[str], **options: Any) -> Any:
    """Check the disk space of each plan that a function makes.

    Parameters
    ----------
    folder, **options
        As for :class:`Preflight`.
    """
    return bu.make_decorator(preflight_wrapper)(folder, **options)


@dataclass
class _Run:
    """A run that is open, or about to be."""

    md: Mapping[str, Any]
    events: int | None
    """Events that it announces."""
    moved: bool = False
    """Whether something was set, or a detector triggered in it."""
    flown: bool = False
    """Whether a detector was kicked off in it."""
    unseen: bool = False
    """Whether a detector was prepared or staged since it was last checked."""
    told: bool = False
    saved: int = 0
    appetites: list[Appetite] = field(default_factory=list[Appetite])

    @property
    def name(self) -> str:
        return str(self.md.get("plan_name") or "the run")


class _Watch:
    """What has happened in one plan so far."""

    def __init__(self, preflight: Preflight) -> None:
        self._preflight = preflight
        self._staged: dict[int, Any] = {}
        self._prepared: dict[int, tuple[Any, Any]] = {}
        self._runs: dict[Any, _Run] = {}

    def before(self, msg: Any) -> MsgGenerator[None]:
        """Look at a message that is about to be carried out."""
        match msg.command:
            case "open_run":
                run = _Run(msg.kwargs, planned_events(msg.kwargs))
                yield from self._check(run, msg.run)
                self._runs[msg.run] = run
            case "close_run":
                self._runs.pop(msg.run, None)
            case "save":
                if msg.run in self._runs:
                    self._runs[msg.run].saved += 1
            case "stage":
                self._staged[id(msg.obj)] = msg.obj
                self._prepared.pop(id(msg.obj), None)
            case "unstage":
                self._staged.pop(id(msg.obj), None)
                self._prepared.pop(id(msg.obj), None)
            case "prepare":
                info = msg.args[0] if msg.args else None
                if hasattr(info, "collections_per_event"):
                    self._prepared[id(msg.obj)] = (msg.obj, info)
                    for run in self._runs.values():
                        run.unseen = True
            case _:
                for key, run in self._runs.items():
                    if run.unseen:
                        run.unseen = False
                        yield from self._check(run, key)
                    run.moved = True
                    run.flown = run.flown or msg.command == "kickoff"

    def _check(self, run: _Run, key: Any) -> MsgGenerator[None]:
        """Ask the detectors in the event loop, then compare."""
        detectors = self._detectors(run)
        answers: list[list[Appetite]] = []

        async def ask() -> None:
            # Called again when the plan is rewound.
            del answers[:]
            for device, rows in detectors:
                answers.append(await appetites(device, rows, self._preflight.recall))

        futures: Any = yield Msg("wait_for", None, [ask])
        for future in futures or ():
            problem = future.exception()
            if problem is not None:
                # What the check stumbles over must not cost anybody a scan.
                _logger.warning("no disk space was estimated: %r", problem)
                return
        run.appetites = [one for found in answers for one in found]
        flying = self._flying()
        if run.flown or run.saved:
            # Part of what was announced may be on the disk already; what was prepared
            # last is not.
            if flying is not None:
                self._compare(run, key, flying)
            return
        if flying is not None:
            run.events = max(flying, run.events or 0)
        if run.events is None:
            self._look_at_rest(run)
        else:
            self._compare(run, key, run.events)

    def _detectors(self, run: _Run) -> list[tuple[Any, int | None]]:
        """Return the detectors with the frames that each takes for an event."""
        found = find_detectors(self._staged.values(), run.md)
        seen = {id(device) for device in found}
        found += [obj for at, (obj, _) in self._prepared.items() if at not in seen]
        rows: list[tuple[Any, int | None]] = []
        for device in found:
            if id(device) in self._prepared:
                _, info = self._prepared[id(device)]
                rows.append((device, int(info.collections_per_event)))
            else:
                name = str(getattr(device, "name", ""))
                rows.append((device, planned_rows(run.md, name)))
        return rows

    def _flying(self) -> int | None:
        """Return the most events that a detector is prepared for by itself."""
        numbers = [
            int(getattr(info, "number_of_events", 1) or 0)
            for _, info in self._prepared.values()
        ]
        return max((number for number in numbers if number > 1), default=None)

    def _look_at_rest(self, run: _Run) -> None:
        """Check that something is free, for a run whose end is open."""
        folders = {str(self._preflight.folder)}
        folders |= {one.folder for one in run.appetites if one.folder}
        for folder in sorted(folders):
            free = _free(folder)
            if free is not None and free < self._preflight.margin:
                self._complain(run, folder, free, None)

    def _compare(self, run: _Run, key: Any, events: int) -> None:
        """Compare what is to come with what is free, disk by disk."""
        disks: dict[int, _Disk] = {}
        for other, one in {**self._runs, key: run}.items():
            own = other == key
            left = events if own else max(0, (one.events or 0) - one.saved)
            for appetite in (*one.appetites, _EVENT):
                folder = appetite.folder
                if folder is None:
                    folder = str(self._preflight.folder)
                number = _device_number(folder)
                if number is not None:
                    size = appetite.size(left)
                    disk = disks.setdefault(number, _Disk(folder))
                    disk.add(size, sure=appetite.sure, own=own)
        margin = self._preflight.margin
        for disk in disks.values():
            free = _free(disk.folder)
            if free is None:
                continue
            if disk.sure + margin > free:
                self._complain(run, disk.folder, free, events, disk.sure)
            elif disk.needed + margin > free:
                self._complain(run, disk.folder, free, events, disk.needed, sure=False)
            if disk.own >= WORTH_A_LINE and not run.told:
                run.told = True
                self._preflight.tell(
                    f"{run.name}: about {human_size(disk.own)} in {_spaced(events)} "
                    f"events; {human_size(free)} free at {disk.folder!r}"
                )

    def _complain(
        self,
        run: _Run,
        folder: str,
        free: int,
        events: int | None,
        needed: float = 0,
        *,
        sure: bool = True,
    ) -> None:
        """Refuse the run, or warn of it."""
        refused = sure and self._preflight.mode == "refuse"
        if events is None:
            text = f"{run.name} has an open end"
        else:
            size = ("" if sure else "up to ") + human_size(needed)
            text = f"{run.name} needs {size} for {_spaced(events)} events"
            if any(other is not run for other in self._runs.values()):
                text += ", with what is still to come of other open runs"
        text += (
            f", and {human_size(free)} are free at {folder!r}, of which "
            f"{human_size(self._preflight.margin)} have to remain"
        )
        if not refused:
            self._preflight.warn(f"{text}. Free some space, or take less")
            return
        raise DiskSpaceError(
            f"{text}; nothing has moved. Free some space, take less, or go on all the "
            "same after beamtime.attach(RE, preflight='warn')"
            if not run.moved
            else f"{text}. Free some space, or take less",
            needed=round(needed),
            free=free,
            margin=round(self._preflight.margin),
            errno=errno.ENOSPC,
            filename=folder,
        )


_EVENT = Appetite("events", each(EVENT_BYTES), None, sure=True)


@dataclass
class _Disk:
    """What is wanted of one file system."""

    folder: str
    needed: float = 0
    sure: float = 0
    own: float = 0

    def add(self, size: float, *, sure: bool, own: bool) -> None:
        self.needed += size
        self.sure += size if sure else 0
        self.own += size if own else 0


def _free(folder: str) -> int | None:
    """Return the bytes that are free; None if the folder cannot be asked."""
    try:
        return free_space(folder)
    except (OSError, ValueError):
        return None


def _device_number(folder: str) -> int | None:
    """Return the number of the file system that a folder is or would be in.

    None for a folder of another machine.
    """
    if not folder:
        return None
    path = Path(folder).absolute()
    for place in (path, *path.parents):
        with suppress(OSError):
            return os.stat(place).st_dev
    return None


def _spaced(number: int) -> str:
    """Return a number as people read it: ``10 000``."""
    return f"{number:,}".replace(",", " ")


def _warn(message: str) -> None:
    _logger.warning(message)
    # A filter that turns warnings into errors must not fail the plan.
    with suppress(Warning):
        warnings.warn(message, BeamtimeWarning, stacklevel=2)
