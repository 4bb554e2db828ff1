"""What the night shift types in IPython: ``%runs``, ``%sample``, ``%note`` and more.

``%load_ext bluesky_beamtime`` brings them; they speak of the beamtime that is open in
the session. ``%runs?`` explains one of them.
"""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from IPython.core import magic, magic_arguments
from IPython.core.error import UsageError

from bluesky_beamtime.beamtime import Beamtime
from bluesky_beamtime.errors import BeamtimeError

if TYPE_CHECKING:
    from collections.abc import Generator

    from bluesky_beamtime.database import Run

# IPython's decorators lack annotations.
_argument = cast("Callable[..., Callable[[Any], Any]]", magic_arguments.argument)
_arguments = cast(
    "Callable[..., Callable[[Any], Any]]", magic_arguments.magic_arguments
)
_line_magic = cast("Callable[[Any], Any]", magic.line_magic)
_parse: Callable[[Any, str], Namespace] = cast("Any", magic_arguments).parse_argstring
_magics_class = cast("Callable[[type], Any]", magic.magics_class)

_FEW = 10


@contextmanager
def _in_one_line() -> Generator[None]:
    """Say what this package raises as IPython says a typing error: in one line."""
    try:
        yield
    except BeamtimeError as error:
        raise UsageError(str(error)) from error


@_magics_class
class BeamtimeMagics(magic.Magics):
    """Magics that speak of the beamtime in the session."""

    @property
    def beamtime(self) -> Beamtime:
        """The beamtime called ``beamtime``, or the only one of any name.

        Raises
        ------
        UsageError
            There is none, or nobody knows which.
        """
        names: dict[str, Any] = self.shell.user_ns  # pyright: ignore
        named = names.get("beamtime")
        if isinstance(named, Beamtime):
            return named
        found = {
            id(value): value
            for name, value in names.items()
            if isinstance(value, Beamtime) and not name.startswith("_")
        }
        if len(found) == 1:
            return next(iter(found.values()))
        many = "several beamtimes are open" if found else "no beamtime is open"
        raise UsageError(
            f"{many} here; call one of them beamtime: "
            'beamtime = Beamtime("2026-11-LaB6.db")'
        )

    def _run(self, name: str | None) -> Run:
        from bluesky_beamtime.cli.listing import find_run

        return find_run(self.beamtime, name or "-1")

    @_arguments()
    @_argument("-n", "--limit", type=int, default=_FEW, help="so many at most, 0: all")
    @_argument("--sample", help="only of this sample")
    @_argument("--plan", help="only of this plan")
    @_argument("--since", help="only from then on: 2026-11-20, 2026-11-20T08:30")
    @_argument("--until", help="only until then")
    @_argument("--text", help="only where this stands in what is said of a run")
    @_argument("--tag", action="append", help="only with this tag")
    @_argument("--starred", action="store_true", help="only with a star")
    @_argument("--user", help="only with this person")
    @_argument("--status", help="only: success, abort, fail, interrupted")
    @_line_magic
    def runs(self, line: str) -> None:
        """List the last runs."""
        from bluesky_beamtime.cli.listing import print_runs

        given = vars(_parse(self.runs, line))
        limit: int = given.pop("limit")
        wanted = {
            **given,
            "plan_name": given.pop("plan"),
            "tags": given.pop("tag"),
            "exit_status": given.pop("status"),
            "starred": given["starred"] or None,
        }
        wanted = {key: value for key, value in wanted.items() if key in _SEARCHED}
        with _in_one_line():
            print_runs(self.beamtime, json=False, limit=limit, wanted=wanted)

    @_line_magic
    def sample(self, line: str) -> None:
        """Show what is in the beam, or say what is from now on.

        ``%sample`` shows it, ``%sample LaB6`` changes it, ``%sample LaB6 formula=LaB6
        thickness=0.2`` says more about it, and ``%sample --list`` lists all.
        """
        from bluesky_beamtime.cli.questions import print_samples

        beamtime = self.beamtime
        words = shlex.split(line)
        with _in_one_line():
            if words == ["--list"]:
                print_samples(beamtime, json=False)
                return
            if words:
                name, more = _described(words)
                beamtime.sample = {"name": name, **more} if more else name
            sample = beamtime.sample
            if sample is None:
                print("nothing is in the beam; %sample NAME says what is")
                return
            known = beamtime.samples[sample.name]
        said = {
            "formula": known.metadata.formula,
            "serial": known.metadata.serial,
            "position": known.metadata.beamline_pos,
            "tags": ", ".join(known.metadata.tags),
            **known.metadata.extra,
        }
        parts = [f"{key}: {value}" for key, value in said.items() if value]
        print(", ".join([f"in the beam: {known.name}", *parts]))

    @_line_magic
    def note(self, line: str) -> None:
        """Write a note about the last run, or show the notes.

        ``%note the beam was lost`` is about the last run, ``%note -r 12 …`` about run
        12, ``%note -b …`` about the beamtime. Without a text the notes are shown.
        """
        from bluesky_beamtime.cli.labels import print_notes

        options, text = _before_text(line)
        with _in_one_line():
            about = self.beamtime if "-b" in options else self._run(options.get("-r"))
            name = "the beamtime" if isinstance(about, Beamtime) else about.label
            if text:
                about.note(text)
                print(f"noted of {name}")
            else:
                print(f"notes of {name}:")
                print_notes(about.notes)

    @_line_magic
    def frames(self, line: str) -> None:
        """Show what became of every frame of the last runs, or of ``%frames RUN``."""
        from bluesky_beamtime.cli import tables

        with _in_one_line():
            if line.strip():
                summaries = [self._run(line.strip()).summary()]
            else:
                summaries = list(self.beamtime.search().limit(_FEW).summaries())
        seen = [summary for summary in summaries if summary["frames"]]
        if seen:
            tables.console().print(tables.account_lines(seen))
        else:
            print("no frames in the last runs" if not line.strip() else "no frames")

    @_arguments()
    @_argument("-n", "--runs", type=int, default=20, help="so many of the last runs")
    @_line_magic
    def doctor(self, line: str) -> None:
        """Look for what troubles this beamtime, and say what mends it."""
        from bluesky_beamtime.cli.doctor import print_report
        from bluesky_beamtime.doctor import examine

        given = _parse(self.doctor, line)
        with _in_one_line():
            print_report(examine(self.beamtime.path, runs=given.runs))


_SEARCHED = {
    *("sample", "plan_name", "since", "until", "text", "tags", "starred", "user"),
    "exit_status",
}


def _described(words: list[str]) -> tuple[str, dict[str, Any]]:
    """Return a name, of several words perhaps, and what ``key=value`` says."""
    name = " ".join(word for word in words if "=" not in word)
    more: dict[str, Any] = {}
    for word in words:
        key, found, value = word.partition("=")
        if found:
            more[key] = _value(value)
    if not name:
        raise UsageError("%sample needs a name: %sample LaB6 formula=LaB6")
    if "position" in more:
        more["beamline_pos"] = str(more.pop("position"))
    if "tags" in more:
        more["tags"] = str(more["tags"]).split(",")
    return name, more


def _value(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _before_text(line: str) -> tuple[dict[str, str], str]:
    """Return the options ahead of a text that is taken as it is typed."""
    first, _, rest = line.strip().partition(" ")
    if first == "-b":
        return {"-b": ""}, rest.strip()
    if first == "-r":
        run, _, text = rest.strip().partition(" ")
        if not run:
            raise UsageError("%note -r needs a run: %note -r 12 the beam was lost")
        return {"-r": run}, text.strip()
    return {}, line.strip()


def load_ipython_extension(ipython: Any) -> None:
    """Add the magics to an IPython session."""
    ipython.register_magics(BeamtimeMagics)
